//! `latchkey adopt` and `latchkey events`: a lost ledger, and what it is rebuilt from.
//!
//! Owns how both are shown. Never touches a ledger itself: that is `app`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};

use super::args::EventsArgs;
use super::exit::{Exit, Failure};
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{configuration, text, time};
use crate::app::{self, Adopted, Adoption, Exported};

/// Arguments of `adopt --from`.
#[derive(Debug, Clone, Args)]
pub struct AdoptLedgerArgs {
    /// Rebuild a lost ledger from this: an export of `latchkey events`, or the witness; repeat for several
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["member", "role", "target"])]
    pub from: Vec<PathBuf>,
    /// With --from: configuration file, which names the ledger
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// With --from: write the ledger, which must be empty or missing, instead of showing what would be written
    #[arg(long, requires = "from")]
    pub write: bool,
}

/// `latchkey events`
pub(super) async fn events(args: &EventsArgs, streams: &mut Streams) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    let out = &mut streams.out;
    let exported = app::export_events(&config, args.after, |line| writeln!(out, "{line}"))
        .await
        .map_err(|error| failed(&error, "`latchkey doctor` looks at the ledger"))?;
    match exported {
        Exported::Events(_) => Ok(Exit::Done),
        Exported::Beyond { newest } => Err(Failure::new(
            Exit::Conflict,
            format!(
                "there is no event {} yet: the newest is {newest}, so this is not the ledger that was exported before",
                args.after
            ),
            "if the ledger was restored or rebuilt, begin a new file with `--after 0`: sequences are used again",
        )),
    }
}

/// `latchkey adopt`
pub(super) async fn adopt(
    args: &AdoptLedgerArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let Some(file) = &args.config else {
        return Err(Failure::usage(
            "which ledger is not said",
            "give --config, the configuration that names it",
        ));
    };
    let config = configuration::load(file, streams)?;
    let clock = Arc::clone(&streams.clock);
    let adoption = Adoption {
        from: args.from.clone(),
        write: args.write,
    };
    let adopted = app::adopt(&config, &adoption, clock.as_ref())
        .await
        .map_err(|error| failed(&error, "docs/recovery.md has the steps"))?;
    if format != Format::Table {
        streams.document(format, &adopted)?;
        return Ok(Exit::Done);
    }
    show(&adopted, streams)?;
    Ok(Exit::Done)
}

fn show(adopted: &Adopted, streams: &mut Streams) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let heading = format!(
        "{} with {} and {}, from {}",
        text::count(adopted.members, "member", "members"),
        text::count(adopted.grants, "grant", "grants"),
        text::count(adopted.assignments.len(), "assignment", "assignments"),
        text::count(adopted.events, "event", "events"),
    );
    let heading = streams.paint(Paint::Bold, &heading);
    streams.line(&heading)?;
    let mut table = Table::new(&["MEMBER", "ASSIGNMENT", "ENDS BY", "REMOVED", "KNOWN FROM"]);
    for one in &adopted.assignments {
        let ends = one.must_end_by.map_or_else(
            || "an unknown time".to_owned(),
            |at| time::clock_time(at, now, zone),
        );
        let due = if one.due <= now {
            "now".to_owned()
        } else {
            time::clock_time(one.due, now, zone)
        };
        table.row(
            Paint::Plain,
            [
                format!("{}/{}", one.integration, one.member),
                one.assignment.clone(),
                ends,
                due,
                one.source.to_owned(),
            ],
        );
    }
    table.print(streams, "nothing is left to take away")?;
    for words in &adopted.left_out {
        streams.warning(words)?;
    }
    if !adopted.is_written {
        return streams.note("nothing was written; add --write to do it");
    }
    streams.note(if adopted.in_hold {
        "written; the connector starts in hold: look at `latchkey hold`, then release it"
    } else {
        "written; witness and audit agree on everything, so the connector starts without a hold"
    })
}

fn failed(error: &anyhow::Error, advice: &'static str) -> Failure {
    Failure::new(Exit::Failed, format!("{error:#}"), advice)
}
