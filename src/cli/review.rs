//! `latchkey review`: looking back at grants that an emergency token opened.
//!
//! Owns the list and the words of closing. Never decides who may close one: the connector does.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::connect::Connector;
use super::exit::{Exit, Failure};
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::view::{instant, present};
use super::{text, time};
use crate::api::pb;
use crate::domain::Timestamp;

/// Reviews of one page.
const PAGE: i32 = 500;

/// Arguments of `review`.
#[derive(Debug, Clone, Args)]
pub struct ReviewArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ReviewCommand,
}

/// What can be done about reviews.
#[derive(Debug, Clone, Subcommand)]
pub enum ReviewCommand {
    /// List the reviews that are open
    List(ReviewListArgs),
    /// Close the review of a grant, once you looked at what was done with it
    Close(ReviewCloseArgs),
}

/// Arguments of `review list`.
#[derive(Debug, Clone, Args)]
pub struct ReviewListArgs {
    /// Also those that are closed
    #[arg(short, long)]
    pub all: bool,
}

/// Arguments of `review close`.
#[derive(Debug, Clone, Args)]
pub struct ReviewCloseArgs {
    /// Id of the grant
    pub grant: String,
    /// What was found, for the audit
    #[arg(long, value_name = "TEXT")]
    pub note: String,
    /// Who looked: neither whoever used the token nor whoever received the access
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true
    )]
    pub requester: String,
}

/// A review as a document.
#[derive(Debug, Clone, Serialize)]
struct Review {
    grant_id: String,
    integration: String,
    caller: String,
    beneficiary: String,
    requester: Option<String>,
    reason: Option<String>,
    assignments: Vec<String>,
    token_key: String,
    token_id: String,
    token_reason: String,
    opened_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    closed_by: Option<String>,
    note: Option<String>,
}

impl From<pb::Review> for Review {
    fn from(wire: pb::Review) -> Self {
        let pb::Review {
            grant_id,
            integration,
            caller,
            beneficiary,
            requester,
            justification,
            assignments,
            token_key,
            token_id,
            token_reason,
            opened_at,
            closed_at,
            closed_by,
            note,
        } = wire;
        Self {
            grant_id,
            integration,
            caller,
            beneficiary,
            requester: present(&requester),
            reason: present(&justification),
            assignments,
            token_key,
            token_id,
            token_reason,
            opened_at: instant(opened_at.as_ref()),
            closed_at: instant(closed_at.as_ref()),
            closed_by: present(&closed_by),
            note: present(&note),
        }
    }
}

/// `latchkey review`
pub(super) async fn review(
    connector: &Connector,
    format: Format,
    args: &ReviewArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    match &args.command {
        ReviewCommand::List(args) => list(connector, format, args, streams).await,
        ReviewCommand::Close(args) => close(connector, format, args, streams).await,
    }
}

async fn list(
    connector: &Connector,
    format: Format,
    args: &ReviewListArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let mut reviews: Vec<Review> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListReviewsRequest {
            include_closed: args.all,
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.operations();
                async move { client.list_reviews(request).await }
            })
            .await?;
        reviews.extend(page.reviews.into_iter().map(Review::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if format != Format::Table {
        return streams.document(format, &reviews);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let mut table = Table::new(&["GRANT", "OPENED", "WHO", "WHAT", "TOKEN", "CLOSED BY"]);
    for one in &reviews {
        let opened = one
            .opened_at
            .map(|at| time::clock_time(at, now, zone))
            .unwrap_or_default();
        let paint = if one.closed_at.is_none() {
            Paint::Red
        } else {
            Paint::Plain
        };
        table.row(
            paint,
            [
                one.grant_id.as_str(),
                &opened,
                &one.beneficiary,
                &one.assignments.join(", "),
                &one.token_id,
                one.closed_by.as_deref().unwrap_or(""),
            ],
        );
    }
    table.print(streams, "no review is open")
}

async fn close(
    connector: &Connector,
    format: Format,
    args: &ReviewCloseArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let request = pb::CloseReviewRequest {
        grant_id: args.grant.clone(),
        requester: args.requester.clone(),
        note: args.note.clone(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.operations();
            async move { client.close_review(request).await }
        })
        .await?;
    let closed = answer.review.map(Review::from).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "the connector answered without a review",
            "are command line and connector of one release?",
        )
    })?;
    if format != Format::Table {
        return streams.document(format, &closed);
    }
    let by = closed.closed_by.unwrap_or_default();
    streams.line(&format!(
        "the review of {} is closed by {}",
        closed.grant_id,
        text::safe(&by)
    ))
}
