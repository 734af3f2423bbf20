//! The whole daemon, simulated: service, scheduler and reconciliation in one thread on virtual time, from one seed.
//! `docs/simulation.md` says what is simulated and what must hold.
//!
//! Owns the command line. Every run is repeatable by its seed alone.

mod callers;
mod cast;
mod clock;
mod cloud;
mod invariants;
mod ledger;
#[path = "../libtest/mod.rs"]
mod libtest;
mod meddlers;
mod model;
mod mutations;
mod network;
mod process;
mod run;
mod stage;
mod storm;
mod story;
mod unknowns;
mod weather;
mod world;

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Parser;

use self::clock::{MINUTE, Ms};
use self::libtest::Harness;
use self::run::{Outcome, TROUBLED, run};
use self::stage::Tally;

/// A run clones far more records than it computes; the system's allocator was a fifth of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that a plain `cargo test` runs.
const FEW: Range<u64> = 0..100;

/// Seeds that once failed, one on a line, each with what it showed.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// The seeds that always run.
fn regressions() -> Vec<u64> {
    REGRESSIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(|seed| seed.parse().expect("a line of the list begins with a seed"))
        .collect()
}

/// Runs the simulation.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Options {
    /// Runs one seed and prints its story.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the seeds A..B.
    #[arg(long, value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
    /// Virtual minutes of trouble in each run.
    #[arg(long)]
    minutes: Option<i64>,
    /// Breaks a rule on purpose; only in the build that `scripts/mutations` makes.
    #[arg(long)]
    mutation: Option<String>,
    /// Prints what the runs came across, and how fast they were.
    #[arg(long)]
    report: bool,
    /// Runs every seed twice, and fails when the two differ.
    #[arg(long)]
    twice: bool,
    /// Prints the whole story, not only what concerns the person in trouble.
    #[arg(long)]
    whole: bool,
    /// Goes on after the first failing seed, and lists all of them.
    #[arg(long)]
    all: bool,
    /// Names of tests, as `cargo test NAME` passes them on to every target.
    names: Vec<String>,
    #[command(flatten)]
    harness: Harness,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is not A..B");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    Ok(number(from)?..number(to)?)
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads: nothing to be done about it.
    drop(out.write_all(text.as_bytes()));
    drop(out.flush());
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.harness.list {
        print("simulation: test\n");
        return ExitCode::SUCCESS;
    }
    if !options.names.is_empty()
        && !options
            .names
            .iter()
            .any(|name| "simulation".contains(&**name))
    {
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &options.mutation
        && !mutations::choose(name)
    {
        print(&format!(
            "this build cannot break {name:?}; see scripts/mutations\n"
        ));
        return ExitCode::from(2);
    }
    let troubled = options.minutes.map_or(TROUBLED, |minutes| minutes * MINUTE);
    if let Some(seed) = options.seed {
        return tell(seed, troubled, options.whole);
    }
    let stale = mutations::stale();
    if !stale.is_empty() {
        print(&format!(
            "simulation: FAILED, tests/simulation/mutations.toml does not fit the sources any more: {}\n",
            stale.join("; ")
        ));
        return ExitCode::FAILURE;
    }
    let all = Mutex::new(Vec::new());
    let began = real_time();
    let chosen = options.seeds.clone().unwrap_or(FEW);
    let summary = run_all(&options, chosen, troubled, &all);
    let took = began.elapsed().as_secs_f64();
    let mut failed = all.into_inner().expect("no thread panicked");
    failed.sort_unstable();
    if options.report {
        print(&summary.report(took));
    }
    match failed.first() {
        None => {
            print(&format!("simulation: {} seeds, all well\n", summary.runs));
            ExitCode::SUCCESS
        }
        Some(seed) => {
            if options.mutation.is_none() && !options.all {
                tell(*seed, troubled, false);
            }
            print(&format!(
                "simulation: FAILED seeds {failed:?}\nagain: cargo test --profile sim --no-default-features --test simulation -- --seed {seed}\n"
            ));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is measured in real time, and nothing else is"
)]
fn real_time() -> std::time::Instant {
    std::time::Instant::now()
}

/// What all runs came across together.
#[derive(Debug, Default)]
struct Summary {
    runs: u64,
    lasted: Ms,
    tally: Tally,
}

impl Summary {
    /// How much happened, in how much time, and how densely.
    fn report(&self, took: f64) -> String {
        let Self { runs, lasted, .. } = *self;
        let Tally {
            calls,
            faults,
            grants,
            crashes,
            commits,
            passes,
        } = self.tally;
        let years = lasted as f64 / (365.25 * 86_400_000.0);
        let ratio = lasted as f64 / 1000.0 / took.max(1e-9);
        let each = |count: u64| count / runs.max(1);
        format!(
            "{runs} runs, {years:.2} virtual years in {took:.1} s: {ratio:.0} times real time\n\
             each on average: {} virtual minutes, {} grants, {} calls, {} faults, {} crashes, {} commits, {} loads of records\n",
            each((lasted / MINUTE).unsigned_abs()),
            each(grants),
            each(calls),
            each(faults),
            each(crashes),
            each(commits),
            each(passes),
        )
    }

    fn add(&mut self, outcome: &Outcome) {
        let Tally {
            calls,
            faults,
            grants,
            crashes,
            commits,
            passes,
        } = outcome.tally;
        self.runs += 1;
        self.lasted += outcome.lasted;
        self.tally.calls += calls;
        self.tally.faults += faults;
        self.tally.grants += grants;
        self.tally.crashes += crashes;
        self.tally.commits += commits;
        self.tally.passes += passes;
    }
}

fn run_all(
    options: &Options,
    chosen: Range<u64>,
    troubled: Ms,
    failed: &Mutex<Vec<u64>>,
) -> Summary {
    let jobs = options
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let first = if options.mutation.is_none() {
        regressions()
    } else {
        Vec::new()
    };
    let seeds: Vec<u64> = first
        .iter()
        .copied()
        .chain(chosen.filter(|seed| !first.contains(seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let outcome = run(seed, troubled, options.twice);
                    let differs = options.twice && {
                        let again = run(seed, troubled, true);
                        again.fingerprint != outcome.fingerprint
                    };
                    summary.lock().expect("no thread panicked").add(&outcome);
                    if differs {
                        print(&format!("seed {seed} went differently the second time\n"));
                    }
                    if differs || !outcome.wrong.is_empty() {
                        if options.all {
                            let first = &outcome.wrong[0];
                            let text: String = first.text.chars().take(160).collect();
                            print(&format!("seed {seed}: {}: {text}\n", first.rule));
                        } else {
                            stop.store(true, Ordering::Relaxed);
                        }
                        failed.lock().expect("no thread panicked").push(seed);
                    }
                }
            });
        }
    });
    summary.into_inner().expect("no thread panicked")
}

/// Prints the story of a seed.
fn tell(seed: u64, troubled: Ms, whole: bool) -> ExitCode {
    let outcome = run(seed, troubled, true);
    if let Some(story) = &outcome.story {
        let story = if whole { &outcome.whole } else { story };
        print(&format!("seed {seed}\n{story}\n"));
    }
    for violation in &outcome.wrong {
        print(&format!(
            "{}:{:02} {}: {}\n",
            violation.at / MINUTE,
            violation.at % MINUTE / 1000,
            violation.rule,
            violation.text
        ));
    }
    print(&format!(
        "seed {seed}: {}, story {:016x}\n",
        if outcome.wrong.is_empty() {
            "all well"
        } else {
            "FAILED"
        },
        outcome.fingerprint
    ));
    if outcome.wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
