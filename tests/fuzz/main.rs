//! Hostile bytes for every decoder. `docs/hostile-input.md` says what is decoded, and what must hold.
//!
//! Owns the command line and the loop. A plain run takes every kept input of `corpus/` and a fixed number of mutations of
//! them, the same each time; `--seconds` goes on from a seed of choice. Every run is repeatable by seed and number alone.

mod engine;
#[path = "../libtest/mod.rs"]
mod libtest;
mod seeds;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use peak_alloc::PeakAlloc;
use tokio::time::Instant;

use self::engine::Source;
use self::libtest::Harness;
use self::targets::{Target, Verdict};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Stack of the thread that decodes: what threads of the runtime have.
const STACK: usize = 2 << 20;

/// Runs the fuzz targets.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Options {
    /// Only this target; the list of them without one.
    #[arg(long)]
    target: Option<String>,
    /// Goes on for so many seconds, shared by the targets.
    #[arg(long)]
    seconds: Option<u64>,
    /// Another sequence of mutations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Takes one file and says what becomes of it.
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// Writes every input to this file before it is taken, for ends that cannot be caught.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Names of tests, as `cargo test NAME` passes them on to every target.
    names: Vec<String>,
    #[command(flatten)]
    harness: Harness,
}

/// What a target went through.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    accepted: u64,
    population: usize,
    slowest: Duration,
    most: usize,
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name)
}

/// The kept inputs of a target, in order of name.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus(name))
        .map(|all| all.filter_map(Result::ok).map(|one| one.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a file of the corpus can be read"))
        .collect()
}

/// Takes one input; a panic, or more memory than its size justifies, is the failure that is answered.
fn take(target: &Target, input: &[u8]) -> Result<(Verdict, usize), String> {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    let taken = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let used = ALLOCATED.peak_usage().saturating_sub(before);
    let verdict = taken.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("it panicked: {}", text.unwrap_or("without words"))
    })?;
    let allowed = target.floor + target.factor * input.len();
    if used > allowed {
        return Err(format!(
            "{used} bytes were held at once for {} bytes of input; {allowed} are allowed",
            input.len()
        ));
    }
    Ok((verdict, used))
}

/// Plays a target; answers how the first failing input came to be.
fn play(target: &Target, options: &Options, share: Option<Duration>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut source = Source::new(target.name, options.seed, target.words);
    let samples: Vec<Vec<u8>> = seeds::of(target.name)
        .into_iter()
        .chain(kept(target.name))
        .collect();
    if samples.is_empty() {
        return Err(format!("{}: no sample to begin with", target.name));
    }
    // What every thread sets up once is not of the first input.
    drop(take(target, &samples[0]));
    let began = Instant::now();
    let goes_on = |tally: &Tally| match share {
        Some(share) => began.elapsed() < share,
        None => tally.runs < target.executions + samples.len() as u64,
    };
    while goes_on(&tally) {
        let at = usize::try_from(tally.runs).unwrap_or(usize::MAX);
        let input = match samples.get(at) {
            Some(sample) => sample.clone(),
            None => source.next(tally.runs),
        };
        if let Some(keep) = &options.keep {
            fs::write(keep, &input).map_err(|error| format!("{}: {error}", keep.display()))?;
        }
        let before = Instant::now();
        let (verdict, used) = take(target, &input).map_err(|failure| {
            let file = std::env::temp_dir().join(format!(
                "latchkey-fuzz-{}-{}-{}",
                target.name, options.seed, tally.runs
            ));
            let place = match fs::write(&file, &input) {
                Ok(()) => format!(
                    "the input is {}; when it is understood it belongs into {}",
                    file.display(),
                    corpus(target.name).display()
                ),
                Err(error) => format!("the input could not be written: {error}"),
            };
            format!(
                "{}: run {} of seed {}: {failure}\n  {place}",
                target.name, tally.runs, options.seed
            )
        })?;
        tally.slowest = tally.slowest.max(before.elapsed());
        tally.most = tally.most.max(used);
        tally.runs += 1;
        tally.accepted += u64::from(verdict.is_accepted);
        if source.keep(input, verdict.kind, at < samples.len()) {
            tally.population += 1;
        }
    }
    if tally.accepted == 0 {
        return Err(format!(
            "{}: nothing was accepted, so nothing was tried",
            target.name
        ));
    }
    Ok(tally)
}

fn run(options: &Options) -> Result<(), String> {
    let chosen: Vec<&Target> = targets::ALL
        .iter()
        .filter(|target| {
            options
                .target
                .as_deref()
                .is_none_or(|name| name == target.name)
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        return Err(format!("there are: {}", names.join(", ")));
    }
    if let Some(path) = &options.input {
        let input = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (verdict, used) = take(chosen[0], &input)?;
        say(&format!("{verdict:?}, {used} bytes held"));
        return Ok(());
    }
    let share = options.seconds.map(Duration::from_secs);
    let share = share.map(|all| all / u32::try_from(chosen.len()).unwrap_or(u32::MAX));
    let mut failures = Vec::new();
    for target in chosen {
        let began = Instant::now();
        match play(target, options, share) {
            Ok(tally) => say(&format!(
                "{:<18} {:>8} runs, {:>7} accepted, {:>5} kinds, at most {:>6} KiB, slowest {:>4} ms, {:>5.1} s",
                target.name,
                tally.runs,
                tally.accepted,
                tally.population,
                tally.most / 1024,
                tally.slowest.as_millis(),
                began.elapsed().as_secs_f64(),
            )),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}

#[expect(clippy::print_stdout, reason = "the report of a test")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the report of a test")]
fn main() -> ExitCode {
    let options = Options::parse();
    let is_other = options.target.is_none()
        && !options.names.is_empty()
        && !options
            .names
            .iter()
            .any(|name| "fuzz".contains(name.as_str()));
    if options.harness.list || options.harness.ignored || is_other {
        return ExitCode::SUCCESS;
    }
    // A panic is a finding, told once and with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || run(&options));
    match thread.expect("a thread").join().expect("panics are caught") {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
