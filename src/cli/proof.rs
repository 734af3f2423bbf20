//! `latchkey receipt` and `latchkey receipts`: the proof of how grants ended.
//!
//! Owns the two commands. Never judges: how sure a receipt is, the connector says.

use clap::Args;

use super::connect::Connector;
use super::directory;
use super::exit::Failure;
use super::grants::grant_id;
use super::proof_text;
use super::proof_view::Receipt;
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{text, time, view};
use crate::api::pb;

/// Rows asked for at once.
const PAGE: usize = 200;

/// Arguments of `receipt`.
#[derive(Debug, Clone, Args)]
pub struct ReceiptArgs {
    /// Grant id, or the beginning of one
    #[arg(value_name = "GRANT")]
    pub grant: String,
}

/// Arguments of `receipts`.
#[derive(Debug, Clone, Args)]
pub struct ReceiptsArgs {
    /// Only of this member
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<String>,
    /// Only of this integration
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Only of grants that ended at this time or later: 14:00, "2026-11-21 14:00" (local) or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only of grants that ended before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only those that still owe a second look
    #[arg(long)]
    pub open: bool,
    /// At most this many, the latest ends first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// `latchkey receipt`
pub(super) async fn receipt(
    connector: &Connector,
    format: Format,
    args: &ReceiptArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let request = pb::GetReceiptRequest {
        grant_id: grant_id(connector, &args.grant).await?,
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.audit();
            async move { client.get_receipt(request).await }
        })
        .await?;
    let found = Receipt::from(&answer.receipt.unwrap_or_default());
    if format != Format::Table {
        return streams.document(format, &found);
    }
    let shown = found
        .lines
        .iter()
        .map(|line| line.assignment.target.as_str());
    let names = directory::names(connector, Some(&found.integration), shown).await;
    for (label, value) in proof_text::lines(&found, &names, streams.zone) {
        let label = streams.paint(Paint::Bold, &format!("{label:<9}"));
        streams.line(&format!("{label} {}", text::safe(&value)))?;
    }
    Ok(())
}

/// `latchkey receipts`
pub(super) async fn receipts(
    connector: &Connector,
    format: Format,
    args: &ReceiptsArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let bound = |option: &str, written: Option<&String>| {
        written
            .map(|written| {
                time::parse_past(written, now, zone)
                    .map_err(|problem| Failure::usage(format!("{option}: {problem}"), ""))
            })
            .transpose()
    };
    let filter = pb::ReceiptFilter {
        ended_since: bound("--since", args.since.as_ref())?.map(view::wire_instant),
        ended_until: bound("--until", args.until.as_ref())?.map(view::wire_instant),
        integration: args.integration.clone().unwrap_or_default(),
        beneficiary: match &args.member {
            None => None,
            Some(member) => {
                Some(directory::principal(connector, args.integration.as_deref(), member).await?)
            }
        },
        open_only: args.open,
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (mut found, mut page_token) = (Vec::new(), String::new());
    let more = loop {
        let request = pb::ListReceiptsRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from((limit - found.len()).min(PAGE)).unwrap_or(i32::MAX),
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.audit();
                async move { client.list_receipts(request).await }
            })
            .await?;
        found.extend(page.receipts.iter().map(Receipt::from));
        if page.next_page_token.is_empty() || found.len() >= limit {
            break !page.next_page_token.is_empty();
        }
        page_token = page.next_page_token;
    };
    if format == Format::Table {
        table(&found, streams)?;
    } else {
        streams.document(format, &found)?;
    }
    if more {
        streams.note(&format!(
            "only the latest {limit} are shown; --limit shows more"
        ))?;
    }
    Ok(())
}

fn table(found: &[Receipt], streams: &mut Streams) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let mut table = Table::new(&["GRANT", "MEMBER", "ENDED", "WHY", "DUE TO GONE", "SURE"]);
    for receipt in found {
        let paint = match receipt.assurance.as_str() {
            "reopened" | "given_up" => Paint::Red,
            "seen_gone_once" => Paint::Yellow,
            _ => Paint::Plain,
        };
        let ended = receipt
            .ended_at
            .map_or_else(String::new, |at| time::clock_time(at, now, zone));
        let late = receipt
            .due_to_gone_milliseconds
            .map_or_else(String::new, |millis| {
                format!("{}.{} s", millis / 1000, millis % 1000 / 100)
            });
        let why = receipt
            .end
            .as_ref()
            .map_or_else(String::new, |end| end.reason.replace('_', " "));
        table.row(
            paint,
            [
                receipt.grant_id.clone(),
                receipt.beneficiary.clone(),
                ended,
                why,
                late,
                receipt.assurance.replace('_', " "),
            ],
        );
    }
    table.print(streams, "no receipt matches")
}
