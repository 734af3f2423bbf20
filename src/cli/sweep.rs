//! `latchkey sweep`: the last resort, when no connector can run.
//!
//! Owns its arguments and its words. Never wires adapters: that is `app`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::args::RequesterArgs;
use super::exit::{Exit, Failure};
use super::streams::{Format, Streams};
use super::text;
use crate::app::{SweepAsk, SweepError, SweepReport};
use crate::config::Config;
use crate::domain::Timestamp;

/// How long a sweep goes on trying without `--timeout`.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Arguments of `sweep`.
#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// Configuration file of the connector
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Show what would be removed, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do nothing, and fail at nothing, where a connector works on the ledger
    #[arg(long)]
    pub unless_running: bool,
    /// End every grant first, as `drain` does, instead of only removing what is due
    #[arg(long, requires = "reason")]
    pub all: bool,
    /// Why everything is ended; required with --all
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
}

#[derive(Debug, Serialize)]
struct Planned {
    integration: String,
    member: String,
    assignments: Vec<String>,
    method: String,
    path: String,
    body: String,
}

#[derive(Debug, Serialize)]
struct Left {
    integration: String,
    member: String,
    assignment: String,
    due_at: Timestamp,
    attempts: u32,
    blocked_code: Option<String>,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Unreached {
    integration: String,
    code: String,
    remedy: String,
}

#[derive(Debug, Serialize)]
struct Swept {
    dry_run: bool,
    planned: Vec<Planned>,
    members: usize,
    removals_sent: usize,
    left: Vec<Left>,
    second_looks_owed: usize,
    second_looks_until: Option<Timestamp>,
    unreached: Vec<Unreached>,
}

/// Runs a sweep and says what came of it.
pub(super) async fn sweep(
    config: &Config,
    args: &SweepArgs,
    patience: Duration,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let ask = SweepAsk {
        everything: args.reason.clone().filter(|_| args.all),
        requester: args.by.requester.clone(),
        dry_run: args.dry_run,
        patience,
    };
    if args.all && args.reason.as_ref().is_none_or(|why| why.trim().is_empty()) {
        return Err(Failure::usage("--all needs a reason", "add --reason"));
    }
    let clock = std::sync::Arc::clone(&streams.clock);
    let report = match crate::app::sweep(config, &ask, clock).await {
        Ok(report) => report,
        Err(error @ SweepError::InUse { .. }) if args.unless_running => {
            streams.note(&format!("{error}; there is nothing to do here"))?;
            return Ok(Exit::Done);
        }
        Err(error) => return Err(refused(error)),
    };
    let swept = document(&ask, &report);
    if format == Format::Table {
        say(&swept, streams)?;
    } else {
        streams.document(format, &swept)?;
    }
    if args.dry_run || (swept.left.is_empty() && swept.unreached.is_empty()) {
        return Ok(Exit::Done);
    }
    if swept.left.is_empty() {
        return Err(Failure::new(
            Exit::Unavailable,
            "not every organization could be reached; nothing is due there",
            "",
        ));
    }
    let count = text::count(swept.left.len(), "assignment", "assignments");
    Err(Failure::new(
        Exit::Overdue,
        format!("{count} still there, as far as anybody knows"),
        "change what the last error says and sweep again, or remove it in the console of Elastic Cloud",
    ))
}

fn refused(error: SweepError) -> Failure {
    let advice = match &error {
        SweepError::InUse { .. } => {
            "the connector removes what is due by itself: look with `latchkey overdue`, end everything with `latchkey drain`; stop it first if you want to sweep instead"
        }
        SweepError::NoLedger | SweepError::Other(_) => "",
    };
    let exit = match &error {
        SweepError::InUse { .. } => Exit::Conflict,
        SweepError::NoLedger => Exit::Configuration,
        SweepError::Other(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string(), advice)
}

fn document(ask: &SweepAsk, report: &SweepReport) -> Swept {
    let SweepReport {
        planned,
        members,
        removed,
        left,
        looks_owed,
        looks_until,
        failures,
    } = report;
    Swept {
        dry_run: ask.dry_run,
        planned: planned
            .iter()
            .map(|one| Planned {
                integration: one.integration.to_string(),
                member: one.subject.to_string(),
                assignments: one.assignments.clone(),
                method: one.call.method.clone(),
                path: one.call.path.clone(),
                body: one.call.body.clone(),
            })
            .collect(),
        members: *members,
        removals_sent: *removed,
        left: left
            .iter()
            .map(|one| Left {
                integration: one.integration.to_string(),
                member: one.subject.to_string(),
                assignment: one.assignment.to_string(),
                due_at: one.due_at,
                attempts: one.attempts,
                blocked_code: one.blocked_code.clone(),
                last_error: one
                    .last_error
                    .as_ref()
                    .map(|error| format!("{} ({})", error.message, error.code)),
            })
            .collect(),
        second_looks_owed: *looks_owed,
        second_looks_until: *looks_until,
        unreached: failures
            .iter()
            .map(|(integration, code, remedy)| Unreached {
                integration: integration.to_string(),
                code: code.clone(),
                remedy: remedy.clone(),
            })
            .collect(),
    }
}

fn say(swept: &Swept, streams: &mut Streams) -> Result<(), Failure> {
    for one in &swept.unreached {
        let words = format!(
            "integration {} could not be reached ({}): {}",
            one.integration, one.code, one.remedy
        );
        streams.warning(&words)?;
    }
    if swept.dry_run {
        for one in &swept.planned {
            let words = format!("{} of {}", one.assignments.join(", "), one.member);
            streams.line(&text::safe(&words))?;
            let call = format!("  {} {} {}", one.method, one.path, one.body);
            streams.line(&text::safe(&call))?;
        }
        let count = text::count(swept.planned.len(), "member", "members");
        return streams.line(&format!("{count} would lose access; nothing was changed"));
    }
    for one in &swept.left {
        let mut words = format!(
            "still due: {} of {}, since {}",
            one.assignment,
            one.member,
            one.due_at.format("%Y-%m-%dT%H:%M:%SZ")
        );
        if let Some(error) = &one.last_error {
            words.push_str(&format!("; {error}"));
        }
        streams.line(&text::safe(&words))?;
    }
    streams.line(&format!(
        "{} swept: due access was removed and seen gone",
        text::count(swept.members, "member", "members")
    ))?;
    if let Some(until) = swept.second_looks_until {
        streams.note(&format!(
            "{} owed until {}: start the connector then, or sweep again",
            text::count(
                swept.second_looks_owed,
                "second look is",
                "second looks are"
            ),
            until.format("%Y-%m-%dT%H:%M:%SZ")
        ))?;
    }
    Ok(())
}
