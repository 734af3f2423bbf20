//! `latchkey adopt` of one assignment: it is standing access from now on.
//!
//! Owns the words of adopting. Never decides what may be adopted: the connector does.

use clap::Args;
use serde::Serialize;

use super::connect::Connector;
use super::exit::Failure;
use super::help::ON_HELP;
use super::overdue;
use super::streams::{Format, Streams};
use super::text;
use super::view::Assignment;
use crate::api::pb;

/// Arguments of `adopt` for one assignment.
#[derive(Debug, Clone, Args)]
pub struct AdoptAccessArgs {
    /// Whose access: e-mail address, display name or user id
    #[arg(long, value_name = "MEMBER")]
    pub member: String,
    /// Role: canonical or short
    #[arg(long, value_name = "ROLE")]
    pub role: String,
    /// What it is held on
    #[arg(long = "on", alias = "target", value_name = "TARGET", long_help = ON_HELP)]
    pub target: String,
    /// Why it stays: who gave it for good
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who declares it
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true
    )]
    pub requester: String,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// What became of it, as a document.
#[derive(Debug, Clone, Serialize)]
struct Adopted {
    #[serde(flatten)]
    assignment: Assignment,
    grant_ids: Vec<String>,
}

/// `latchkey adopt --member … --role … --on …`
pub(super) async fn adopt_access(
    connector: &Connector,
    format: Format,
    args: &AdoptAccessArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let access = overdue::written(
        connector,
        args.integration.as_deref(),
        &args.member,
        &args.role,
        &args.target,
    )
    .await?;
    let request = pb::AdoptAccessRequest {
        access: Some(access),
        requester: args.requester.clone(),
        reason: args.reason.clone(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.operations();
            async move { client.adopt_access(request).await }
        })
        .await?;
    let done = Adopted {
        assignment: Assignment::from(answer.assignment.as_ref()),
        grant_ids: answer.grant_ids,
    };
    if format != Format::Table {
        return streams.document(format, &done);
    }
    let words = format!(
        "{} on {} is standing access now: it will not be removed when a grant ends",
        done.assignment.role, done.assignment.target
    );
    streams.line(&text::safe(&words))
}
