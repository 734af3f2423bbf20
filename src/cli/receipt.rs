//! A grant in words: what a person is told about it.
//!
//! Owns the sentences for each state and the list of every detail. Asks nobody: time, zone and names are arguments.

use super::exit::Failure;
use super::streams::{Format, Streams};
use super::{table, text, time, view};
use crate::api::pb;
use crate::domain::Timestamp;

/// Every detail of a grant for people, as label and value.
pub(super) fn details(
    grant: &view::Grant,
    names: &view::Names,
    now: Timestamp,
    zone: time::Zone,
) -> Vec<(&'static str, String)> {
    let clock = |at| {
        format!(
            "{} ({})",
            time::clock_time(at, now, zone),
            time::relative(at, now)
        )
    };
    let mut lines = vec![
        ("Grant", grant.id.clone()),
        (
            "State",
            format!("{}, {}", grant.state, table::when(grant, now, zone)),
        ),
        (
            "Sureness",
            match grant.certainty.as_str() {
                "verified" => "verified by reading Elastic Cloud".to_owned(),
                "accepted_unverified" => "accepted by Elastic Cloud, not read back yet".to_owned(),
                _ => "unknown until the next read".to_owned(),
            },
        ),
        (
            "Member",
            match &grant.user_id {
                Some(id) if *id != grant.beneficiary => format!("{} ({id})", grant.beneficiary),
                _ => grant.beneficiary.clone(),
            },
        ),
        ("Role", grant.role.clone()),
    ];
    for granted in &grant.assignments {
        let mut on = names.show(&granted.assignment.target);
        if granted.holding == "standing" {
            on.push_str(" (standing access covers it: it stays)");
        }
        lines.push(("On", on));
    }
    if let Some(roles) = grant
        .assignments
        .first()
        .and_then(|granted| granted.assignment.application_roles.as_ref())
    {
        let shown = if roles.is_empty() {
            "no sign-in to the stack".to_owned()
        } else {
            roles.join(", ")
        };
        lines.push(("Stack roles", shown));
    }
    lines.push((
        "Duration",
        time::length(grant.duration_seconds.unsigned_abs()),
    ));
    let instants = [
        ("Asked", grant.created_at),
        ("Starts", grant.starts_at),
        ("Active since", grant.activated_at),
        ("Ends", grant.expires_at),
        ("Hard end", grant.not_after),
        ("Ended", grant.ended_at),
    ];
    lines.extend(
        instants
            .into_iter()
            .filter_map(|(label, at)| at.map(|at| (label, clock(at)))),
    );
    let texts = [
        ("Reason", grant.reason.clone()),
        ("Asked by", grant.requester.clone()),
        ("Caller", Some(grant.caller.clone())),
        ("Integration", Some(grant.integration.clone())),
        ("Request id", Some(grant.request_id.clone())),
        (
            "End comment",
            grant.end.as_ref().and_then(|end| end.comment.clone()),
        ),
    ];
    lines.extend(
        texts
            .into_iter()
            .filter_map(|(label, value)| value.map(|value| (label, value))),
    );
    if grant.externally_modified {
        lines.push((
            "Modified",
            "somebody else changed what this grant gave".to_owned(),
        ));
    }
    if grant.invited {
        lines.push(("Invited", "membership outlives this grant".to_owned()));
    }
    if let Some(error) = &grant.last_error {
        lines.push(("Last error", format!("{} ({})", error.message, error.code)));
    }
    lines.extend(
        grant
            .warnings
            .iter()
            .map(|words| ("Warning", words.clone())),
    );
    lines
}

/// Shows what became of a grant: a document, or a few lines for people.
pub(super) fn show(
    streams: &mut Streams,
    format: Format,
    grant: &pb::Grant,
    names: &view::Names,
) -> Result<(), Failure> {
    let grant = view::Grant::from(grant);
    if format != Format::Table {
        return streams.document(format, &grant);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let lines = summary(&grant, names, now, zone);
    let paint = table::paint(&grant);
    for (index, line) in lines.iter().enumerate() {
        let line = text::safe(line).into_owned();
        let line = if index == 0 {
            streams.paint(paint, &line)
        } else {
            line
        };
        streams.line(&line)?;
    }
    for words in &grant.warnings {
        streams.warning(words)?;
    }
    Ok(())
}

/// What a person wants to know about a grant, in a few lines.
pub(super) fn summary(
    grant: &view::Grant,
    names: &view::Names,
    now: Timestamp,
    zone: time::Zone,
) -> Vec<String> {
    let who = &grant.beneficiary;
    let what = format!("{} on {}", grant.role, table::targets(grant, names));
    let at = |at: Option<Timestamp>| {
        at.map_or_else(
            || "at an unknown time".to_owned(),
            |at| {
                format!(
                    "{}, {}",
                    time::clock_time(at, now, zone),
                    time::relative(at, now)
                )
            },
        )
    };
    let for_how_long = time::length(grant.duration_seconds.unsigned_abs());
    let (first, second) = match grant.state.as_str() {
        "scheduled" => (
            format!("{who} will be {what}"),
            format!("from {}, for {for_how_long}", at(grant.starts_at)),
        ),
        "awaiting_member" => (
            format!("{who} was invited and will be {what}"),
            format!(
                "for {for_how_long} from {}; the invitation lapses {}",
                grant.starts_at.map_or_else(
                    || "joining".to_owned(),
                    |start| format!(
                        "joining, but not before {}",
                        time::clock_time(start, now, zone)
                    )
                ),
                at(grant.lapses_at)
            ),
        ),
        "activating" => (
            format!("{who} is getting {what}"),
            format!("for {for_how_long} from when access is verified"),
        ),
        "active" => {
            let end = grant.expires_at.map_or_else(
                || "until an unknown time".to_owned(),
                |end| time::until(end, now, zone),
            );
            if grant.is_standing() {
                (
                    format!("{who} is {what}, through standing access"),
                    format!("{end}; nothing was added and nothing will be removed"),
                )
            } else {
                (format!("{who} is {what}"), end)
            }
        }
        "revoking" => (
            format!("{who} is losing {what}"),
            format!(
                "{}, since {}",
                table::cause(grant),
                at(grant.revoking_since)
            ),
        ),
        // What never began cannot be over.
        _ if grant.activated_at.is_none() => (
            format!("{who} did not become {what}"),
            format!("{}, {}", table::cause(grant), at(grant.ended_at)),
        ),
        _ => (
            format!("{who} is no longer {what} because of this grant"),
            format!("{}, {}", table::cause(grant), at(grant.ended_at)),
        ),
    };
    let id = &grant.id;
    let third = match grant.state.as_str() {
        "revoking" | "ended" => format!("grant {id}"),
        _ => format!(
            "grant {id}; end it early with: latchkey revoke {}",
            grant.short_id()
        ),
    };
    vec![first, second, third]
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
