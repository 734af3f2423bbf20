//! One grant: asking for it, showing it, extending it, ending it.
//!
//! Owns the conversation about a single grant and the waiting for it. Never decides what is allowed: the connector
//! does.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::args::{ExtendArgs, GetArgs, GrantArgs, RevokeArgs, SpecArgs};
use super::connect::Connector;
use super::directory;
use super::exit::{Exit, Failure};
use super::progress::Progress;
use super::receipt::{details, show};
use super::resolve::{self, WrittenGrant};
use super::signing::VoucherArgs;
use super::streams::{Format, Paint, Streams};
use super::{signing, table, text, time, view};
use crate::api::pb;

/// First and longest pause between two looks at a grant that is waited for.
const FIRST_LOOK: Duration = Duration::from_millis(150);
const SLOWEST_LOOK: Duration = Duration::from_secs(2);

/// What a person asked for, as the connector understands it; names are resolved.
pub(super) async fn spec(
    connector: &Connector,
    args: &SpecArgs,
    streams: &Streams,
) -> Result<(pb::GrantSpec, view::Names), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let instant = |option: &str, written: Option<&String>| {
        written
            .map(|written| {
                time::parse_instant(written, now, zone)
                    .map_err(|problem| Failure::usage(format!("{option}: {problem}"), ""))
            })
            .transpose()
    };
    // Everything that can be wrong without asking anybody comes first.
    let starts = instant("--starts", args.starts.as_ref())?;
    let until = instant("--until", args.until.as_ref())?;
    if let Some(until) = until
        && until <= starts.unwrap_or(now).max(now)
    {
        return Err(Failure::usage(
            "--until is not after the start",
            "give a later end, or leave --until out: --for bounds the grant",
        ));
    }
    let application_roles = args.as_roles.as_ref().map(|written| pb::ApplicationRoles {
        names: written
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    });
    if args.invite && !args.member.contains('@') {
        return Err(Failure::usage(
            format!("cannot invite {:?}: that is no e-mail address", args.member),
            "invite people by their address",
        ));
    }
    let integration = args.integration.as_deref();
    let (mut targets, names) = directory::targets(connector, integration, &args.targets).await?;
    let role = resolve::role(&args.role, &targets)?;
    if targets.is_empty() {
        targets.push(resolve::Target::Organization);
    }
    let beneficiary = directory::beneficiary(connector, integration, &args.member).await?;
    let spec = pb::GrantSpec {
        integration: integration.unwrap_or_default().to_owned(),
        beneficiary: Some(beneficiary),
        requester: args.requester.clone(),
        justification: args.reason.clone(),
        role: role.to_owned(),
        targets: targets.iter().map(resolve::Target::to_pb).collect(),
        application_roles,
        duration: Some(wire_length(args.duration.seconds())),
        starts_at: starts.map(view::wire_instant),
        not_after: until.map(view::wire_instant),
        invite: args.invite,
    };
    Ok((spec, names))
}

fn approvals(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    files.iter().map(|file| signing::signed(file)).collect()
}

/// The texts of approvals and of an emergency token, the latter empty where there is none.
pub(super) fn vouchers(args: &VoucherArgs) -> Result<(Vec<String>, String), Failure> {
    let token = args.break_glass_token.as_deref().map(signing::signed);
    Ok((
        approvals(&args.approvals)?,
        token.transpose()?.unwrap_or_default(),
    ))
}

fn wire_length(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// `latchkey grant`
pub(super) async fn grant(
    connector: &Connector,
    format: Format,
    args: &GrantArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (spec, names) = spec(connector, &args.spec, streams).await?;
    let request_id = args
        .request_id
        .clone()
        .unwrap_or_else(|| streams.new_request_id());
    let (approvals, break_glass_token) = vouchers(&args.vouchers)?;
    let request = pb::CreateGrantRequest {
        request_id: request_id.clone(),
        spec: Some(spec),
        wait: pb::GrantWait::Accepted.into(),
        approvals,
        break_glass_token,
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.create_grant(request).await }
        })
        .await
        .map_err(|failure| maybe_sent(failure, &request_id))?;
    let accepted = required(answer.grant)?;
    let settled = if args.no_wait {
        accepted
    } else {
        settle(connector, accepted, Goal::Active, streams).await?
    };
    show(streams, format, &settled, &names)?;
    warn_of_lateness(streams, answer.predicted_lateness)?;
    for words in &answer.warnings {
        streams.warning(words)?;
    }
    let grant = view::Grant::from(&settled);
    match settled.state() {
        pb::GrantState::Revoking | pb::GrantState::Ended => {
            let what = format!("the grant did not become active: {}", table::cause(&grant));
            let advice = grant.last_error.map_or_else(
                || {
                    if answer.replayed {
                        "this request id was used before; leave --request-id out to ask anew"
                            .to_owned()
                    } else {
                        "nothing of it stays; ask again, or see why with `latchkey get`".to_owned()
                    }
                },
                |error| error.message,
            );
            Err(Failure::new(
                if answer.replayed {
                    Exit::Conflict
                } else {
                    Exit::Failed
                },
                what,
                advice,
            ))
        }
        pb::GrantState::Unspecified
        | pb::GrantState::Scheduled
        | pb::GrantState::AwaitingMember
        | pb::GrantState::Activating
        | pb::GrantState::Active => Ok(()),
    }
}

/// Too much ends at the same time: whoever asked should know that the end may slip.
fn warn_of_lateness(
    streams: &mut Streams,
    predicted: Option<prost_types::Duration>,
) -> Result<(), Failure> {
    predicted.map_or(Ok(()), |late| {
        streams.warning(&format!(
            "so much access ends at that time that this may be taken away up to {} s late; another end avoids it",
            late.seconds
        ))
    })
}

/// A request that may have arrived although no answer came: say how to find out.
fn maybe_sent(failure: Failure, request_id: &str) -> Failure {
    match failure.exit {
        Exit::Interrupted => Failure::new(
            Exit::Interrupted,
            "interrupted; the request may have arrived",
            format!(
                "make sure that nothing comes of it: latchkey revoke --request-id {request_id}"
            ),
        ),
        Exit::TimedOut | Exit::Unavailable => Failure {
            advice: format!(
                "{}; repeating with --request-id {request_id} cannot grant twice",
                failure.advice
            ),
            ..failure
        },
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::Refused
        | Exit::NotFound
        | Exit::Conflict
        | Exit::Overdue
        | Exit::Configuration => failure,
    }
}

/// What a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Active,
    Gone,
}

impl Goal {
    fn is_reached(self, state: pb::GrantState) -> bool {
        match self {
            Self::Active => state != pb::GrantState::Activating,
            Self::Gone => state == pb::GrantState::Ended,
        }
    }
}

/// Looks at a grant until the goal is reached.
async fn settle(
    connector: &Connector,
    grant: pb::Grant,
    goal: Goal,
    streams: &mut Streams,
) -> Result<pb::Grant, Failure> {
    if goal.is_reached(grant.state()) {
        return Ok(grant);
    }
    let (id, mut pause) = (grant.id.clone(), FIRST_LOOK);
    let mut progress = Progress::new(streams);
    let mut last = view::Grant::from(&grant);
    progress.say(streams, &waiting(&last, goal))?;
    loop {
        let look = async {
            connector.pause(pause).await?;
            get(connector, &id).await
        };
        match look.await {
            Ok(grant) if goal.is_reached(grant.state()) => return Ok(grant),
            Ok(grant) => {
                last = view::Grant::from(&grant);
                progress.say(streams, &waiting(&last, goal))?;
            }
            // The connector restarts: the grant does not care, and neither does this command.
            Err(failure) if failure.exit == Exit::Unavailable => {
                progress.say(streams, &format!("{}; trying again", failure.what))?;
            }
            Err(failure) => {
                drop(progress);
                return Err(still_going(failure, &last, goal));
            }
        }
        pause = (pause * 3 / 2).min(SLOWEST_LOOK);
    }
}

fn waiting(grant: &view::Grant, goal: Goal) -> String {
    let mut words = match goal {
        Goal::Active => format!(
            "Accepted as {}; waiting until Elastic Cloud shows the access",
            grant.id
        ),
        Goal::Gone => format!(
            "Revoking {}; waiting until Elastic Cloud shows no access",
            grant.id
        ),
    };
    if let Some(error) = &grant.last_error {
        write!(words, " ({})", error.message).expect("writing to a string cannot fail");
    }
    words
}

fn still_going(failure: Failure, grant: &view::Grant, goal: Goal) -> Failure {
    let id = &grant.id;
    let (what, advice) = match goal {
        Goal::Active => (
            format!("grant {id} goes on"),
            format!("look with `latchkey get {id}`, end it with `latchkey revoke {id}`"),
        ),
        Goal::Gone => (
            format!("the removal of grant {id} goes on"),
            format!("look with `latchkey get {id}`"),
        ),
    };
    match failure.exit {
        Exit::Interrupted => {
            Failure::new(Exit::Interrupted, format!("interrupted; {what}"), advice)
        }
        Exit::TimedOut => {
            let mut words = format!("stopped waiting; {what}");
            if let Some(error) = &grant.last_error {
                write!(words, " ({})", error.message).expect("writing to a string cannot fail");
            }
            Failure::new(Exit::TimedOut, words, advice)
        }
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

fn required(grant: Option<pb::Grant>) -> Result<pb::Grant, Failure> {
    grant.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "the connector's answer holds no grant",
            "command line and connector may be of different versions",
        )
    })
}

async fn get(connector: &Connector, id: &str) -> Result<pb::Grant, Failure> {
    let request = pb::GetGrantRequest {
        grant_id: id.to_owned(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.get_grant(request).await }
        })
        .await?;
    required(answer.grant)
}

/// The id of the grant that a person means.
pub(super) async fn grant_id(connector: &Connector, written: &str) -> Result<String, Failure> {
    let prefix = match resolve::written_grant(written)? {
        WrittenGrant::Id(id) => return Ok(id),
        WrittenGrant::Prefix(prefix) => prefix,
    };
    let (mut matching, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListGrantsRequest {
            filter: None,
            page_size: 500,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.access();
                async move { client.list_grants(request).await }
            })
            .await?;
        // Newest first, and ids begin with their time: past the prefix there is nothing more to find.
        let is_past = page
            .grants
            .last()
            .is_none_or(|oldest| oldest.id.as_str() < prefix.as_str());
        matching.extend(
            page.grants
                .into_iter()
                .filter(|one| one.id.starts_with(&prefix)),
        );
        if page.next_page_token.is_empty() || is_past {
            break;
        }
        page_token = page.next_page_token;
    }
    Ok(resolve::by_prefix(&prefix, &matching)?.id.clone())
}

/// `latchkey get`
pub(super) async fn get_command(
    connector: &Connector,
    format: Format,
    args: &GetArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let id = grant_id(connector, &args.grant).await?;
    let grant = get(connector, &id).await?;
    if format != Format::Table {
        return streams.document(format, &view::Grant::from(&grant));
    }
    let grant = view::Grant::from(&grant);
    let names = names_for(connector, std::slice::from_ref(&grant)).await;
    let (now, zone) = (streams.now(), streams.zone);
    for (label, value) in details(&grant, &names, now, zone) {
        let label = streams.paint(Paint::Bold, &format!("{label:<12}"));
        streams.line(&format!("{label} {}", text::safe(&value)))?;
    }
    Ok(())
}

/// Names for the targets of these grants.
pub(super) async fn names_for(connector: &Connector, grants: &[view::Grant]) -> view::Names {
    let mut integrations: Vec<&str> = grants.iter().map(|one| one.integration.as_str()).collect();
    integrations.sort_unstable();
    integrations.dedup();
    // Targets of several organizations are shown by id: ids are always right.
    let [integration] = integrations.as_slice() else {
        return view::Names::default();
    };
    let targets = grants
        .iter()
        .flat_map(|grant| &grant.assignments)
        .map(|granted| granted.assignment.target.as_str());
    directory::names(connector, Some(integration), targets).await
}

/// `latchkey extend`
pub(super) async fn extend(
    connector: &Connector,
    format: Format,
    args: &ExtendArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let request = pb::ExtendGrantRequest {
        request_id: args
            .request_id
            .clone()
            .unwrap_or_else(|| streams.new_request_id()),
        grant_id: grant_id(connector, &args.grant).await?,
        duration: Some(wire_length(args.duration.seconds())),
        requester: args.by.requester.clone(),
        reason: args.reason.clone(),
        approvals: approvals(&args.approvals)?,
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.extend_grant(request).await }
        })
        .await?;
    show_named(connector, streams, format, &required(answer.grant)?).await?;
    warn_of_lateness(streams, answer.predicted_lateness)
}

/// `latchkey revoke`
pub(super) async fn revoke(
    connector: &Connector,
    format: Format,
    args: &RevokeArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    use pb::revoke_grant_request::Which;
    let which = match (&args.grant, &args.request_id) {
        (Some(written), _) => Which::GrantId(grant_id(connector, written).await?),
        (None, Some(id)) => Which::GrantRequestId(id.clone()),
        (None, None) => {
            return Err(Failure::usage(
                "which grant?",
                "give its id, or --request-id",
            ));
        }
    };
    let request = pb::RevokeGrantRequest {
        requester: args.by.requester.clone(),
        reason: args.reason.clone(),
        which: Some(which),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.revoke_grant(request).await }
        })
        .await?;
    let Some(grant) = answer.grant else {
        let tombstone = view::Tombstone {
            request_id: args.request_id.clone().unwrap_or_default(),
            tombstoned: answer.tombstoned,
        };
        if format != Format::Table {
            return streams.document(format, &tombstone);
        }
        let id = text::safe(&tombstone.request_id).into_owned();
        return streams.line(&format!(
            "no grant yet; one that comes with request id {id} will be refused"
        ));
    };
    let settled = if args.no_wait {
        grant
    } else {
        settle(connector, grant, Goal::Gone, streams).await?
    };
    show_named(connector, streams, format, &settled).await
}

/// Shows a grant whose targets were not named in this command.
async fn show_named(
    connector: &Connector,
    streams: &mut Streams,
    format: Format,
    grant: &pb::Grant,
) -> Result<(), Failure> {
    let names = if format == Format::Table {
        names_for(connector, &[view::Grant::from(grant)]).await
    } else {
        view::Names::default()
    };
    show(streams, format, grant, &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_a_broken_wait_says_how_to_go_on() {
        let grant = view::Grant::from(&pb::Grant {
            id: "0199f7a0".to_owned(),
            ..pb::Grant::default()
        });
        let failure = still_going(super::super::connect::interrupted(), &grant, Goal::Active);
        assert_eq!(failure.exit, Exit::Interrupted);
        assert!(failure.what.contains("goes on"), "{failure:?}");
        assert!(
            failure.advice.contains("latchkey revoke 0199f7a0"),
            "{failure:?}"
        );

        let timed_out = Failure::new(Exit::TimedOut, "", "");
        assert_eq!(
            still_going(timed_out, &grant, Goal::Gone).exit,
            Exit::TimedOut
        );

        let lost = maybe_sent(Failure::new(Exit::Unavailable, "away", "check"), "r-9");
        assert!(lost.advice.contains("--request-id r-9"), "{lost:?}");
    }
}
