//! `latchkey hold`: why the connector grants nothing, and ending it.
//!
//! Owns how a hold and its plan are shown. Never decides that it may end: whoever types the reason does.

use serde::Serialize;

use super::args::{HoldArgs, HoldCommand};
use super::connect::Connector;
use super::exit::Failure;
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{text, time, view};
use crate::api::pb;
use crate::domain::Timestamp;

#[derive(Debug, Serialize)]
struct Reason {
    code: String,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Item {
    user_id: String,
    assignment: view::Assignment,
    action: &'static str,
    is_proven: bool,
    ends_at: Option<Timestamp>,
    was_seen: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Hold {
    is_held: bool,
    since: Option<Timestamp>,
    reasons: Vec<Reason>,
    evidence: Option<&'static str>,
    witness: Option<String>,
    items: Vec<Item>,
    is_cut: bool,
}

impl From<pb::GetHoldResponse> for Hold {
    fn from(wire: pb::GetHoldResponse) -> Self {
        let evidence = match wire.evidence() {
            pb::HoldEvidence::Witness => Some("witness"),
            pb::HoldEvidence::Ledger => Some("ledger"),
            pb::HoldEvidence::Nothing => Some("nothing"),
            pb::HoldEvidence::Unspecified => None,
        };
        let pb::GetHoldResponse {
            is_held,
            since,
            reasons,
            evidence: _,
            witness,
            items,
            is_cut,
        } = wire;
        Self {
            is_held,
            since: view::instant(since.as_ref()),
            reasons: reasons
                .into_iter()
                .map(|pb::HoldReason { code, detail }| Reason { code, detail })
                .collect(),
            evidence,
            witness: (!witness.is_empty()).then_some(witness),
            items: items.into_iter().map(Item::from).collect(),
            is_cut,
        }
    }
}

impl From<pb::HoldItem> for Item {
    fn from(wire: pb::HoldItem) -> Self {
        let action = match wire.action() {
            pb::HoldAction::Remove => "remove",
            pb::HoldAction::RemoveLater => "remove_later",
            pb::HoldAction::Add => "add",
            pb::HoldAction::Leave => "leave",
            pb::HoldAction::Unspecified => "unknown",
        };
        let pb::HoldItem {
            user_id,
            assignment,
            action: _,
            is_proven,
            ends_at,
            was_seen,
        } = wire;
        Self {
            user_id,
            assignment: view::Assignment::from(assignment.as_ref()),
            action,
            is_proven,
            ends_at: view::instant(ends_at.as_ref()),
            was_seen,
        }
    }
}

/// `latchkey hold` and `latchkey hold release`
pub(super) async fn hold(
    connector: &Connector,
    format: Format,
    args: &HoldArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let integration = args.integration.clone().unwrap_or_default();
    if let Some(HoldCommand::Release(args)) = &args.command {
        let request = pb::ReleaseHoldRequest {
            integration,
            requester: args.requester.clone(),
            reason: args.reason.clone(),
        };
        let answer = connector
            .call(request, |request| {
                let mut client = connector.connector();
                async move { client.release_hold(request).await }
            })
            .await?;
        let pb::ReleaseHoldResponse { was_held } = answer;
        if format != Format::Table {
            return streams.document(format, &serde_json::json!({ "was_held": was_held }));
        }
        return streams.line(if was_held {
            "released: the ledger is taken at its word, and what it says is due is removed now"
        } else {
            "there is no hold"
        });
    }
    let answer = connector
        .call(pb::GetHoldRequest { integration }, |request| {
            let mut client = connector.connector();
            async move { client.get_hold(request).await }
        })
        .await?;
    let hold = Hold::from(answer);
    if format != Format::Table {
        return streams.document(format, &hold);
    }
    show(&hold, streams)
}

fn show(hold: &Hold, streams: &mut Streams) -> Result<(), Failure> {
    if !hold.is_held {
        return streams.line("there is no hold");
    }
    let (now, zone) = (streams.now(), streams.zone);
    let since = hold.since.map_or_else(
        || "an unknown time".to_owned(),
        |at| time::clock_time(at, now, zone),
    );
    let heading = format!("In hold since {since}: nothing is granted or extended");
    let heading = streams.paint(Paint::Red, &heading);
    streams.line(&heading)?;
    for reason in &hold.reasons {
        streams.line(&format!("  {}", text::safe(&reason.detail)))?;
    }
    let proof = match hold.evidence {
        Some("witness") => "what is due and the witness holds open is removed meanwhile",
        Some("ledger") => {
            "what the ledger says is due is removed meanwhile: no witness contradicts it"
        }
        _ => "only what somebody asks to revoke is removed meanwhile",
    };
    streams.line(&format!("  {proof}"))?;
    let mut table = Table::new(&["MEMBER", "ROLE", "ON", "SEEN", "WHAT"]);
    for item in &hold.items {
        let until = item
            .ends_at
            .map(|at| format!(" until {}", time::clock_time(at, now, zone)))
            .unwrap_or_default();
        let (paint, what) = match (item.action, item.is_proven) {
            ("remove", true) => (Paint::Green, "proven: removed during the hold".to_owned()),
            ("remove", false) => (
                Paint::Yellow,
                "not proven: removed when the hold is released".to_owned(),
            ),
            ("remove_later", _) => (
                Paint::Yellow,
                format!("wanted{until}; not proven to be ours"),
            ),
            ("add", _) => (
                Paint::Yellow,
                "not given; to be asked for again after the release".to_owned(),
            ),
            ("leave", _) => (
                Paint::Plain,
                "left alone: the witness saw its end".to_owned(),
            ),
            (other, _) => (Paint::Plain, other.to_owned()),
        };
        let seen = match item.was_seen {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not read",
        };
        table.row(
            paint,
            [
                item.user_id.as_str(),
                &item.assignment.role,
                &item.assignment.target,
                seen,
                &what,
            ],
        );
    }
    table.print(streams, "nothing is due and nothing waits to be added")?;
    if hold.is_cut {
        streams.warning("there is more than is shown")?;
    }
    streams.note("take the ledger at its word with: latchkey hold release --reason …")
}
