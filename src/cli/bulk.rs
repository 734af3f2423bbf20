//! Everything at once: off-boarding, the kill switch, draining.
//!
//! Owns the question "are you sure" and the waiting until nothing is left. Never touches standing access: the
//! connector does not either.

use std::time::Duration;

use super::args::{DrainArgs, RevokeAllArgs};
use super::connect::Connector;
use super::directory;
use super::exit::{Exit, Failure};
use super::progress::Progress;
use super::streams::{Format, Streams};
use super::{text, time, view};
use crate::api::pb;

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_secs(1);

fn confirmed(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::usage(
        format!("this would end {what}"),
        "add --yes to do it; `latchkey list` shows the grants of this caller",
    ))
}

/// `latchkey revoke-all`
pub(super) async fn revoke_all(
    connector: &Connector,
    format: Format,
    args: &RevokeAllArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    use pb::revoke_access_request::Selector;
    let what = match (&args.member, &args.target, &args.integration) {
        (Some(member), _, _) => format!("every grant of {member}"),
        (None, Some(target), _) => format!("every grant on {target}"),
        (None, None, Some(integration)) => format!("every grant of integration {integration}"),
        (None, None, None) => {
            return Err(Failure::usage(
                "everything of what?",
                "give --member, --on or --integration",
            ));
        }
    };
    confirmed(args.yes, &what)?;
    let integration = args.integration.as_deref();
    let selector = match (&args.member, &args.target) {
        (Some(member), _) => {
            Selector::Member(directory::principal(connector, integration, member).await?)
        }
        (None, Some(target)) => {
            let written = [target.clone()];
            let (targets, _) = directory::targets(connector, integration, &written).await?;
            let target = targets.first().expect("one target was given");
            Selector::Target(target.to_pb())
        }
        (None, None) => Selector::Everything(true),
    };
    let request_id = args
        .request_id
        .clone()
        .unwrap_or_else(|| streams.new_request_id());
    let request = pb::RevokeAccessRequest {
        request_id: request_id.clone(),
        integration: integration.unwrap_or_default().to_owned(),
        requester: args.by.requester.clone(),
        reason: args.reason.clone(),
        selector: Some(selector),
        max_members: args.max_members.unwrap_or_default(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.revoke_access(request).await }
        })
        .await
        .map_err(|failure| match failure.exit {
            Exit::TimedOut | Exit::Unavailable | Exit::Interrupted => Failure::new(
                failure.exit,
                if failure.what.is_empty() {
                    "interrupted".to_owned()
                } else {
                    failure.what
                },
                format!("go on with the same command and --request-id {request_id}"),
            ),
            Exit::Done
            | Exit::Failed
            | Exit::Usage
            | Exit::Refused
            | Exit::NotFound
            | Exit::Conflict
            | Exit::Overdue
            | Exit::Configuration => failure,
        })?;
    let done = view::Revoked {
        request_id,
        revoked: answer.revoked,
        already_ending: answer.already_ending,
        replayed: answer.replayed,
    };
    if format != Format::Table {
        return streams.document(format, &done);
    }
    let count = |number: u32| text::count(number, "grant", "grants");
    streams.line(&format!(
        "{} on the way out now, {} before",
        count(done.revoked),
        count(done.already_ending)
    ))?;
    if done.replayed {
        streams.note("this request id was completed before; nothing more was done")?;
    } else if done.revoked > 0 {
        streams.note("follow the removals with: latchkey list --state revoking")?;
    }
    Ok(())
}

/// `latchkey drain`
pub(super) async fn drain(
    connector: &Connector,
    format: Format,
    args: &DrainArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let what = args.integration.as_ref().map_or_else(
        || "every grant of every integration, and refuse new ones".to_owned(),
        |name| format!("every grant of integration {name}, and refuse new ones"),
    );
    confirmed(args.yes, &what)?;
    let request = pb::DrainRequest {
        integration: args.integration.clone().unwrap_or_default(),
        all_integrations: args.integration.is_none(),
        requester: args.by.requester.clone(),
        reason: args.reason.clone(),
    };
    let mut progress = Progress::new(streams);
    let mut revoked = 0_u64;
    let mut last: Option<pb::DrainResponse> = None;
    let left = loop {
        let answer = connector
            .call(request.clone(), |request| {
                let mut client = connector.connector();
                async move { client.drain(request).await }
            })
            .await;
        let pause = match answer {
            Ok(left) => {
                revoked += u64::from(left.revoked);
                if left.grants == 0 && left.owned_assignments == 0 {
                    break left;
                }
                let words = remaining(&left, streams);
                progress.say(streams, &words)?;
                last = Some(left);
                connector.pause(LOOK).await
            }
            // Once draining began, a restart in between only means beginning again.
            Err(failure) if failure.exit == Exit::Unavailable && last.is_some() => {
                progress.say(streams, &format!("{}; trying again", failure.what))?;
                connector.pause(LOOK).await
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = pause {
            drop(progress);
            return Err(stopped(failure, last.as_ref(), streams));
        }
    };
    drop(progress);
    let done = view::Drained {
        revoked,
        grants: left.grants,
        owned_assignments: left.owned_assignments,
        blocked_removals: left.blocked_removals,
    };
    if format != Format::Table {
        return streams.document(format, &done);
    }
    let count = text::count(revoked, "grant", "grants");
    streams.line(&format!("drained: {count} revoked, nothing is left"))
}

fn remaining(left: &pb::DrainResponse, streams: &Streams) -> String {
    let mut words = format!(
        "Draining: {} and {} left",
        text::count(left.grants, "grant", "grants"),
        text::count(left.owned_assignments, "assignment", "assignments"),
    );
    if left.blocked_removals > 0 {
        words.push_str(&format!(
            ", of these {} refused by Elastic Cloud and tried again",
            text::count(left.blocked_removals, "removal", "removals")
        ));
    }
    if left.second_looks > 0 {
        let until =
            view::instant(left.last_second_look_at.as_ref()).map_or_else(String::new, |at| {
                let (now, zone) = (streams.now(), streams.zone);
                format!(" until {}", time::clock_time(at, now, zone))
            });
        words.push_str(&format!(
            "; {} gone and looked at once more{until}: a call without an answer could still land",
            text::count(left.second_looks, "assignment", "assignments")
        ));
    }
    words
}

fn stopped(failure: Failure, last: Option<&pb::DrainResponse>, streams: &Streams) -> Failure {
    let Some(left) = last else { return failure };
    match failure.exit {
        Exit::Interrupted | Exit::TimedOut => Failure::new(
            failure.exit,
            format!(
                "stopped waiting; draining goes on. {}",
                remaining(left, streams)
            ),
            "wait for the rest with the same command",
        ),
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::Refused
        | Exit::NotFound
        | Exit::Conflict
        | Exit::Overdue
        | Exit::Unavailable
        | Exit::Configuration => failure,
    }
}
