//! `latchkey overdue` and `latchkey forget`: access that should be gone and is not.
//!
//! Owns the list and the words of giving up. Never decides what may be given up: the connector does.

use clap::Args;
use serde::Serialize;

use super::connect::Connector;
use super::exit::{Exit, Failure};
use super::help::{FORGET_WARNING, ON_HELP};
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::view::{self, Assignment, GrantError, instant, present};
use super::{directory, resolve, text, time};
use crate::api::pb;
use crate::domain::Timestamp;

/// Members looked at for one page.
const PAGE: i32 = 500;

/// Arguments of `overdue`.
#[derive(Debug, Clone, Args)]
pub struct OverdueArgs {
    /// Only of this integration
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// How late a removal must be to be listed [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    pub grace: Option<std::time::Duration>,
}

/// Arguments of `forget`.
#[derive(Debug, Clone, Args)]
pub struct ForgetArgs {
    /// Whose access: user id or address, as `latchkey overdue` shows it
    #[arg(long, value_name = "MEMBER")]
    pub member: String,
    /// Role, as `latchkey overdue` shows it
    #[arg(long, value_name = "ROLE")]
    pub role: String,
    /// What it is held on
    #[arg(long = "on", alias = "target", value_name = "TARGET", long_help = ON_HELP)]
    pub target: String,
    /// Why it is given up: what was tried, who takes care of it now
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asks: a person, since a second one has to confirm
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
    /// Yes, stop trying to remove it
    #[arg(long)]
    pub yes: bool,
}

/// A proposal to give up.
#[derive(Debug, Clone, Serialize)]
struct Proposal {
    by: String,
    reason: String,
    expires_at: Option<Timestamp>,
}

/// Access that should be gone, as a document.
#[derive(Debug, Clone, Serialize)]
struct Overdue {
    integration: String,
    user_id: String,
    beneficiary: Option<String>,
    #[serde(flatten)]
    assignment: Assignment,
    power: String,
    grant_ids: Vec<String>,
    due_at: Option<Timestamp>,
    attempts: u32,
    blocked_code: Option<String>,
    next_try_at: Option<Timestamp>,
    last_error: Option<GrantError>,
    proposal: Option<Proposal>,
}

impl From<&pb::OverdueAccess> for Overdue {
    fn from(wire: &pb::OverdueAccess) -> Self {
        let pb::OverdueAccess {
            integration,
            user_id,
            beneficiary,
            assignment,
            grant_ids,
            due_at,
            attempts,
            last_error,
            blocked_code,
            next_try_at,
            power,
            proposal,
        } = wire;
        Self {
            integration: integration.clone(),
            user_id: user_id.clone(),
            beneficiary: present(beneficiary),
            assignment: Assignment::from(assignment.as_ref()),
            power: power.clone(),
            grant_ids: grant_ids.clone(),
            due_at: instant(due_at.as_ref()),
            attempts: *attempts,
            blocked_code: present(blocked_code),
            next_try_at: instant(next_try_at.as_ref()),
            last_error: last_error.as_ref().map(|error| GrantError {
                code: error.code.clone(),
                message: error.message.clone(),
                at: instant(error.at.as_ref()),
            }),
            proposal: proposal.as_ref().map(|proposal| Proposal {
                by: proposal.by.clone(),
                reason: proposal.reason.clone(),
                expires_at: instant(proposal.expires_at.as_ref()),
            }),
        }
    }
}

async fn all(
    connector: &Connector,
    integration: Option<&str>,
    grace: Option<std::time::Duration>,
) -> Result<Vec<pb::OverdueAccess>, Failure> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListOverdueRequest {
            integration: integration.unwrap_or_default().to_owned(),
            grace: grace.map(|length| prost_types::Duration {
                seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.operations();
                async move { client.list_overdue(request).await }
            })
            .await?;
        found.extend(page.overdue);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

/// `latchkey overdue`
pub(super) async fn overdue(
    connector: &Connector,
    format: Format,
    args: &OverdueArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let found = all(connector, args.integration.as_deref(), args.grace).await?;
    let found: Vec<Overdue> = found.iter().map(Overdue::from).collect();
    if format == Format::Table {
        table(&found, streams)?;
    } else {
        streams.document(format, &found)?;
    }
    if found.is_empty() {
        return Ok(());
    }
    let count = text::count(found.len(), "assignment", "assignments");
    Err(Failure::new(
        Exit::Overdue,
        format!("{count} should be gone and, as far as anybody knows, still there"),
        "removals are tried without end; change what the last error says, or look with `latchkey doctor`",
    ))
}

fn table(found: &[Overdue], streams: &mut Streams) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let mut table = Table::new(&[
        "MEMBER",
        "ROLE",
        "ON",
        "POWER",
        "DUE",
        "TRIED",
        "NEXT",
        "LAST ERROR",
    ]);
    let clock =
        |at: Option<Timestamp>| at.map_or_else(String::new, |at| time::clock_time(at, now, zone));
    for one in found {
        let paint = if one.blocked_code.is_some() {
            Paint::Red
        } else {
            Paint::Yellow
        };
        let who = match &one.beneficiary {
            Some(name) if *name != one.user_id => format!("{} ({name})", one.user_id),
            _ => one.user_id.clone(),
        };
        let error = one.last_error.as_ref();
        let trouble = match (&one.blocked_code, error) {
            (Some(code), Some(error)) => format!("blocked: {} ({code})", error.message),
            (Some(code), None) => format!("blocked ({code})"),
            (None, Some(error)) => format!("{} ({})", error.message, error.code),
            (None, None) => String::new(),
        };
        table.row(
            paint,
            [
                who,
                one.assignment.role.clone(),
                one.assignment.target.clone(),
                one.power.clone(),
                one.due_at.map_or_else(String::new, |at| {
                    format!(
                        "{} ({} ago)",
                        time::clock_time(at, now, zone),
                        time::short_length((now - at).num_seconds().unsigned_abs())
                    )
                }),
                text::count(one.attempts, "time", "times"),
                clock(one.next_try_at),
                trouble,
            ],
        );
    }
    table.print(streams, "nothing is overdue")?;
    for one in found {
        if let Some(proposal) = &one.proposal {
            let words = format!(
                "{} proposes to forget {} on {} of {}, until {}: {}",
                proposal.by,
                one.assignment.role,
                one.assignment.target,
                one.user_id,
                clock(proposal.expires_at),
                proposal.reason
            );
            streams.note(&text::safe(&words))?;
        }
    }
    Ok(())
}

/// Reads names of members, roles and targets against what is overdue, which needs nothing of Elastic Cloud; else through
/// the directory.
async fn reference(
    connector: &Connector,
    args: &ForgetArgs,
) -> Result<pb::AccessReference, Failure> {
    let integration = args.integration.as_deref();
    let listed = all(connector, integration, Some(std::time::Duration::ZERO)).await?;
    let meant = listed.iter().find(|one| {
        let shown = Assignment::from(one.assignment.as_ref());
        let role = shown.role == args.role || shown.role.ends_with(&format!("-{}", args.role));
        let who = one.user_id == args.member || one.beneficiary.eq_ignore_ascii_case(&args.member);
        who && role && shown.target == args.target
    });
    if let Some(one) = meant {
        let assignment = one.assignment.clone().unwrap_or_default();
        return Ok(pb::AccessReference {
            integration: one.integration.clone(),
            member: Some(pb::Principal {
                kind: Some(pb::principal::Kind::UserId(one.user_id.clone())),
            }),
            role: assignment.role,
            target: assignment.target,
            application_roles: assignment.application_roles,
        });
    }
    written(
        connector,
        integration,
        &args.member,
        &args.role,
        &args.target,
    )
    .await
}

/// Which access a person means by names.
pub(super) async fn written(
    connector: &Connector,
    integration: Option<&str>,
    member: &str,
    role: &str,
    target: &str,
) -> Result<pb::AccessReference, Failure> {
    let (targets, _) = directory::targets(connector, integration, &[target.to_owned()]).await?;
    let role = resolve::role(role, &targets)?;
    Ok(pb::AccessReference {
        integration: integration.unwrap_or_default().to_owned(),
        member: Some(directory::principal(connector, integration, member).await?),
        role: role.to_owned(),
        target: targets.first().map(resolve::Target::to_pb),
        application_roles: None,
    })
}

/// What became of giving up, as a document.
#[derive(Debug, Clone, Serialize)]
struct Forgotten {
    /// `proposed` or `forgotten`.
    state: String,
    #[serde(flatten)]
    assignment: Assignment,
    proposed_by: String,
    expires_at: Option<Timestamp>,
    confirmed_by: Option<String>,
    ended_grant_ids: Vec<String>,
}

/// `latchkey forget`
pub(super) async fn forget(
    connector: &Connector,
    format: Format,
    args: &ForgetArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    if !args.yes {
        return Err(Failure::usage(FORGET_WARNING, "add --yes to go on"));
    }
    let request = pb::ForgetAccessRequest {
        access: Some(reference(connector, args).await?),
        requester: args.requester.clone(),
        reason: args.reason.clone(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.operations();
            async move { client.forget_access(request).await }
        })
        .await?;
    let done = Forgotten {
        state: view::word(answer.state().as_str_name(), "FORGET_STATE_"),
        assignment: Assignment::from(answer.assignment.as_ref()),
        proposed_by: answer.proposed_by,
        expires_at: instant(answer.expires_at.as_ref()),
        confirmed_by: present(&answer.confirmed_by),
        ended_grant_ids: answer.ended_grant_ids,
    };
    if format != Format::Table {
        return streams.document(format, &done);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let what = format!("{} on {}", done.assignment.role, done.assignment.target);
    if done.state == "proposed" {
        let until = done
            .expires_at
            .map_or_else(String::new, |at| time::until(at, now, zone));
        let words = format!(
            "proposed by {}: give up {what}. Nothing has changed yet: removal goes on.",
            done.proposed_by
        );
        streams.line(&text::safe(&words))?;
        return streams.line(&format!(
            "somebody else has to confirm it {until}, with the same command and their own --requester"
        ));
    }
    let words = format!(
        "given up: {what}, proposed by {}, confirmed by {}. Nobody knows that it is gone.",
        done.proposed_by,
        done.confirmed_by.as_deref().unwrap_or("somebody else")
    );
    streams.line(&text::safe(&words))?;
    streams.line(
        "it is watched for: while Elastic Cloud shows it, drift is reported. Remove it there.",
    )?;
    for id in &done.ended_grant_ids {
        streams.line(&format!(
            "grant {} ended with it; see: latchkey receipt {}",
            text::safe(id),
            text::safe(id.get(..13).unwrap_or(id))
        ))?;
    }
    Ok(())
}
