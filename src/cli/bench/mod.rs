//! `latchkey bench`: ratios measured in one run on one machine.
//!
//! Owns the measurements and their baselines, interleaved so that a machine that changes speed changes both. Never
//! states an absolute number without the baseline of the same run, and never talks to a real Elastic Cloud.

mod accepts;
mod large;
mod lateness;
mod load;
pub mod parts;
mod proc;
mod report;
mod stage;
mod storm;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::parts::Part;
use self::report::Line;
use super::streams::Format;
use super::{Exit, Streams};
use crate::domain::Timestamp;

/// Arguments of `latchkey bench`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only these sections
    #[arg(long, value_enum, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<Section>,
    /// Tiny sizes and one round: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Pairs of subject and baseline, interleaved; slow measurements make fewer
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of one round of a throughput measurement
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Active grants of the large ledger, twenty a member; as many events has the audit
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    grants: u32,
    /// Where ledgers are made; the large one takes some 4 GiB [default: the system's]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Keep the large ledger in PostgreSQL, in databases made beside the one named here and dropped at the end; on
    /// loopback, by a role without a password that may make databases. Sections memory, idle and restart
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Exit with 1 when a goal is missed
    #[arg(long)]
    enforce: bool,
    /// Print tables in Markdown, as they stand in docs/performance.md
    #[arg(long)]
    markdown: bool,
}

impl BenchArgs {
    /// Whether it is a connector that is asked for.
    pub(super) fn serves(&self) -> bool {
        matches!(self.part, Some(Part::Serve(_)))
    }
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// How fast grants are made durable
    Accept,
    /// How late removals are
    Lateness,
    /// What a million grants hold in memory
    Memory,
    /// What the connector does while nothing is due
    Idle,
    /// How soon after a start the first overdue removal is on the wire
    Restart,
    /// What callers feel while many are due at once
    Storm,
    /// How many upstream calls a grant costs
    Calls,
    /// How fast a sealed audit is verified
    Verify,
}

/// Those that have a large ledger.
const LARGE: [Section; 3] = [Section::Memory, Section::Idle, Section::Restart];

impl Section {
    fn title(self) -> &'static str {
        match self {
            Self::Accept => "Accepting grants",
            Self::Lateness => "Lateness of removals",
            Self::Memory => "Memory",
            Self::Idle => "Idle",
            Self::Restart => "Restart",
            Self::Storm => "Callers during a storm",
            Self::Calls => "Upstream calls",
            Self::Verify => "Verifying the audit",
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Interleaved pairs of each measurement.
    rounds: usize,
    /// How long one round of a throughput measurement runs.
    round: Duration,
    /// Grants of the large ledger.
    grants: usize,
    /// Whether only to show that it works.
    quick: bool,
}

/// Measures and prints one table, or runs a part of the bench.
///
/// # Errors
/// When the parts of the bench cannot be started or a call fails.
pub(super) async fn run(
    args: BenchArgs,
    format: Format,
    streams: &mut Streams,
) -> anyhow::Result<Exit> {
    let BenchArgs {
        part,
        only,
        quick,
        rounds,
        seconds,
        grants,
        directory,
        postgres,
        enforce,
        markdown,
    } = args;
    if let Some(part) = part {
        let clock = std::sync::Arc::clone(&streams.clock);
        parts::run(part, clock.as_ref(), &mut *streams.out).await?;
        return Ok(Exit::Done);
    }
    let only = match &postgres {
        Some(_) => of_large(only)?,
        None => only,
    };
    let plan = if quick {
        Plan {
            rounds: 1,
            round: Duration::from_millis(100),
            grants: 400,
            quick,
        }
    } else {
        Plan {
            rounds: usize::try_from(rounds).unwrap_or(usize::MAX),
            round: Duration::from_secs(u64::from(seconds)),
            grants: usize::try_from(grants).unwrap_or(usize::MAX),
            quick,
        }
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix("latchkey-bench-");
    let place = match &directory {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    }
    .context("making a directory")?;
    let mut table = Table {
        style: match format {
            Format::Table if markdown => Style::Markdown,
            Format::Table => Style::Text,
            Format::Json | Format::Yaml => Style::Document,
        },
        out: &mut *streams.out,
        lines: Vec::new(),
        missed: 0,
    };
    let started = Instant::now();
    let now = streams.clock.now();
    let at = (place.path(), postgres.as_deref());
    measure(&plan, at, now, &only, &mut table).await?;
    let missed = table.finish(started.elapsed())?;
    Ok(if enforce && missed > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// The sections that a ledger in PostgreSQL is measured by, of those that are wanted.
fn of_large(only: Vec<Section>) -> anyhow::Result<Vec<Section>> {
    if only.is_empty() {
        return Ok(LARGE.to_vec());
    }
    for section in &only {
        anyhow::ensure!(
            LARGE.contains(section),
            "section {} knows no --postgres: write --only memory,idle,restart or some of them",
            section.name()
        );
    }
    Ok(only)
}

async fn measure(
    plan: &Plan,
    (directory, postgres): (&std::path::Path, Option<&str>),
    now: Timestamp,
    only: &[Section],
    table: &mut Table<'_>,
) -> anyhow::Result<()> {
    let wanted = |section: Section| only.is_empty() || only.contains(&section);
    if wanted(Section::Accept) {
        table.show(Section::Accept, accepts::measure(plan, directory).await?)?;
    }
    if wanted(Section::Lateness) {
        table.show(Section::Lateness, lateness::measure(plan, directory).await?)?;
    }
    if wanted(Section::Calls) {
        table.show(Section::Calls, storm::calls(plan, directory).await?)?;
    }
    if wanted(Section::Storm) {
        table.show(Section::Storm, storm::callers(plan, directory).await?)?;
    }
    if LARGE.into_iter().any(wanted) {
        let mut show = |section, lines| table.show(section, lines);
        Box::pin(large::measure(
            plan, directory, postgres, &wanted, &mut show,
        ))
        .await?;
    }
    if wanted(Section::Verify) {
        table.show(
            Section::Verify,
            verify::measure(plan, directory, now).await?,
        )?;
    }
    Ok(())
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// For people.
    Text,
    /// To be pasted.
    Markdown,
    /// For programs, at the end.
    Document,
}

/// The table while it grows: people see each section when it is done.
struct Table<'a> {
    style: Style,
    out: &'a mut (dyn Write + Send),
    lines: Vec<Value>,
    missed: usize,
}

impl Table<'_> {
    fn show(&mut self, section: Section, lines: Vec<Line>) -> anyhow::Result<()> {
        self.missed += lines.iter().filter(|line| !line.is_met()).count();
        let title = section.title();
        let text = match self.style {
            Style::Text => report::head(title) + &lines.iter().map(Line::text).collect::<String>(),
            Style::Markdown => {
                let rows: String = lines.iter().map(Line::markdown).collect();
                report::markdown_head(title) + &rows
            }
            Style::Document => {
                let name = section.name();
                self.lines.extend(lines.iter().map(|line| line.json(&name)));
                return Ok(());
            }
        };
        writeln!(self.out, "{text}").context("printing")?;
        self.out.flush().context("printing")
    }

    /// Ends the table; answers how many goals were missed.
    fn finish(self, took: Duration) -> anyhow::Result<usize> {
        let missed = self.missed;
        if self.style != Style::Document {
            let verdict = match missed {
                0 => "every goal is met".to_owned(),
                1 => "one goal is missed".to_owned(),
                many => format!("{many} goals are missed"),
            };
            writeln!(self.out, "In {took:.0?}: {verdict}.").context("printing")?;
        } else {
            let document = json!({ "measurements": self.lines, "missed": missed });
            writeln!(self.out, "{document:#}").context("printing")?;
        }
        Ok(missed)
    }
}
