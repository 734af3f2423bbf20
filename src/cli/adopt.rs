//! `latchkey adopt` and `latchkey events`: a lost ledger, and what it is rebuilt from.
//!
//! Owns how both are shown. Never touches a ledger itself: that is `app`.

use std::io::Write as _;
use std::sync::Arc;

use super::args::{AdoptArgs, EventsArgs};
use super::exit::{Exit, Failure};
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{configuration, text, time};
use crate::app::{self, Adopted, Adoption};

/// `latchkey events`
pub(super) async fn events(args: &EventsArgs, streams: &mut Streams) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    let out = &mut streams.out;
    app::export_events(&config, args.after, |line| writeln!(out, "{line}"))
        .await
        .map_err(|error| failed(&error, "`latchkey doctor` looks at the ledger"))?;
    Ok(Exit::Done)
}

/// `latchkey adopt`
pub(super) async fn adopt(
    args: &AdoptArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
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
