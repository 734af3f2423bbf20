//! `latchkey adopt` of one assignment: it is standing access from now on.
//!
//! Owns the words of adopting. Never decides what may be adopted: the connector does.

use clap::Args;
use serde::Serialize;

use super::adopt::AdoptLedgerArgs;
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
    #[arg(long, value_name = "MEMBER", required_unless_present = "from")]
    pub member: Option<String>,
    /// Role: canonical or short
    #[arg(long, value_name = "ROLE", required_unless_present = "from")]
    pub role: Option<String>,
    /// What it is held on
    #[arg(long = "on", alias = "target", value_name = "TARGET", long_help = ON_HELP, required_unless_present = "from")]
    pub target: Option<String>,
    /// Why it stays: who gave it for good
    #[arg(long, value_name = "TEXT", required_unless_present = "from")]
    pub reason: Option<String>,
    /// Who declares it
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true,
        required_unless_present = "from"
    )]
    pub requester: Option<String>,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// A lost ledger instead of one assignment.
    #[command(flatten)]
    pub ledger: AdoptLedgerArgs,
}

/// What became of it, as a document.
#[derive(Debug, Clone, Serialize)]
struct Adopted {
    #[serde(flatten)]
    assignment: Assignment,
    grant_ids: Vec<String>,
}

/// What clap has made sure of where no ledger is adopted.
fn written(argument: &Option<String>) -> &str {
    argument.as_deref().unwrap_or_default()
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
        written(&args.member),
        written(&args.role),
        written(&args.target),
    )
    .await?;
    let request = pb::AdoptAccessRequest {
        access: Some(access),
        requester: written(&args.requester).to_owned(),
        reason: written(&args.reason).to_owned(),
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
