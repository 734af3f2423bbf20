//! Where Elastic Cloud differs from the ledger.
//!
//! Owns the command `drift`. Changes nothing without `--confirm`, which only lets repairs go on that wait.

use super::args::DriftArgs;
use super::connect::Connector;
use super::directory;
use super::exit::Failure;
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{explain_view, text, time};
use crate::api::pb;

/// `latchkey drift`
pub(super) async fn drift(
    connector: &Connector,
    format: Format,
    args: &DriftArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    if args.confirm {
        let request = pb::ConfirmReapplyRequest {
            integration: args.integration.clone().unwrap_or_default(),
            requester: args.by.requester.clone(),
            reason: args.reason.clone().unwrap_or_default(),
        };
        let answer = connector
            .call(request, |request| {
                let mut client = connector.connector();
                async move { client.confirm_reapply(request).await }
            })
            .await?;
        let members = text::count(answer.members, "member", "members");
        return streams.line(&format!("repairs go on for {members}"));
    }
    let mut open = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListDriftRequest {
            integration: args.integration.clone().unwrap_or_default(),
            page_size: 0,
            page_token: std::mem::take(&mut page_token),
        };
        let answer = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_drift(request).await }
            })
            .await?;
        open.extend(answer.drift.iter().map(explain_view::OpenDrift::from));
        if answer.next_page_token.is_empty() {
            break;
        }
        page_token = answer.next_page_token;
    }
    if format != Format::Table {
        return streams.document(format, &open);
    }
    let targets = open.iter().map(|one| one.assignment.target.as_str());
    let names = directory::names(connector, args.integration.as_deref(), targets).await;
    let (now, zone) = (streams.now(), streams.zone);
    let mut table = Table::new(&["MEMBER", "ROLE", "ON", "WHAT", "SINCE", "DONE ABOUT IT"]);
    for one in &open {
        let since = one
            .first_seen_at
            .map(|at| time::clock_time(at, now, zone))
            .unwrap_or_default();
        table.row(
            if one.is_held {
                Paint::Red
            } else {
                Paint::Yellow
            },
            [
                one.user_id.clone(),
                one.assignment.role.clone(),
                names.show(&one.assignment.target),
                one.kind.replace('_', " "),
                since,
                one.action.clone(),
            ],
        );
    }
    table.print(streams, "Elastic Cloud is as the ledger expects")?;
    if open.iter().any(|one| one.is_held) {
        streams.note("let held repairs go on with: latchkey drift --confirm --reason WHY")?;
    }
    Ok(())
}
