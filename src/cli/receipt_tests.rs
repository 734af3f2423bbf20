//! What is shown of grants: for people, and as documents.

use std::collections::BTreeMap;

use super::*;
use crate::cli::args::ResourceKind;
use crate::cli::resolve::{self, Resource};

const ZONE: time::Zone = time::Zone::Named(chrono_tz::Europe::Berlin);

fn at(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

fn wire(text: &str) -> Option<prost_types::Timestamp> {
    Some(view::wire_instant(at(text)))
}

fn now() -> Timestamp {
    at("2026-11-21T12:20:30Z")
}

fn deployment(id: &str, holding: pb::Holding) -> pb::GrantedAssignment {
    let target = resolve::Target::One(ResourceKind::Deployment, id.to_owned());
    pb::GrantedAssignment {
        assignment: Some(pb::Assignment {
            role: "deployment-viewer".to_owned(),
            target: Some(target.to_pb()),
            application_roles: None,
        }),
        holding: holding.into(),
    }
}

fn active() -> pb::Grant {
    pb::Grant {
        id: "0199f7a0-1b2c-7000-8000-000000000001".to_owned(),
        integration: "acme".to_owned(),
        state: pb::GrantState::Active.into(),
        caller: "ops".to_owned(),
        request_id: "r-1".to_owned(),
        beneficiary: "ada@example.com".to_owned(),
        user_id: "101".to_owned(),
        justification: "INC-123".to_owned(),
        role: "deployment-viewer".to_owned(),
        assignments: vec![deployment("d1", pb::Holding::Owned)],
        duration: Some(prost_types::Duration {
            seconds: 2_700,
            nanos: 0,
        }),
        created_at: wire("2026-11-21T12:19:58Z"),
        activated_at: wire("2026-11-21T12:20:00Z"),
        expires_at: wire("2026-11-21T13:05:00Z"),
        certainty: pb::Certainty::Verified.into(),
        version: 3,
        ..pb::Grant::default()
    }
}

/// One grant in each state, with what that state carries.
fn every_state() -> Vec<pb::Grant> {
    let base = || pb::Grant {
        activated_at: None,
        expires_at: None,
        certainty: pb::Certainty::Unknown.into(),
        ..active()
    };
    let numbered = |number: u8, grant: pb::Grant| pb::Grant {
        id: format!("0199f7a0-1b2{number:x}-7000-8000-000000000001"),
        ..grant
    };
    vec![
        numbered(
            1,
            pb::Grant {
                state: pb::GrantState::Scheduled.into(),
                starts_at: wire("2026-11-22T08:00:00Z"),
                ..base()
            },
        ),
        numbered(
            2,
            pb::Grant {
                state: pb::GrantState::AwaitingMember.into(),
                invited_at: wire("2026-11-21T12:00:00Z"),
                lapses_at: wire("2026-11-24T12:00:00Z"),
                ..base()
            },
        ),
        numbered(
            3,
            pb::Grant {
                state: pb::GrantState::Activating.into(),
                activating_since: wire("2026-11-21T12:20:00Z"),
                ..base()
            },
        ),
        numbered(4, active()),
        numbered(
            5,
            pb::Grant {
                assignments: vec![
                    deployment("d1", pb::Holding::Standing),
                    deployment("d2", pb::Holding::Standing),
                ],
                ..active()
            },
        ),
        numbered(
            6,
            pb::Grant {
                state: pb::GrantState::Revoking.into(),
                revoking_since: wire("2026-11-21T12:15:00Z"),
                end_cause: Some(pb::EndCause {
                    reason: pb::EndReason::Revoked.into(),
                    by: "grace@example.com".to_owned(),
                    comment: "done".to_owned(),
                    code: String::new(),
                }),
                last_error: Some(pb::GrantError {
                    code: "rate_limited".to_owned(),
                    message: "Elastic Cloud asks to slow down".to_owned(),
                    at: wire("2026-11-21T12:20:00Z"),
                }),
                ..base()
            },
        ),
        numbered(
            7,
            pb::Grant {
                state: pb::GrantState::Ended.into(),
                ended_at: wire("2026-11-20T12:20:00Z"),
                end_cause: Some(pb::EndCause {
                    reason: pb::EndReason::ActivationFailed.into(),
                    code: "role_unknown".to_owned(),
                    ..pb::EndCause::default()
                }),
                ..base()
            },
        ),
    ]
}

fn names() -> view::Names {
    let resource = |id: &str, name: &str| Resource {
        kind: ResourceKind::Deployment,
        id: id.to_owned(),
        name: name.to_owned(),
        alias: String::new(),
        region: String::new(),
        tags: Vec::new(),
    };
    view::Names::of(&[
        resource("d1", "prod-logs"),
        resource("d2", "twin"),
        resource("d3", "twin"),
    ])
}

#[test]
fn an_active_grant_says_until_when_in_both_ways() {
    let lines = summary(&view::Grant::from(&active()), &names(), now(), ZONE);
    assert_eq!(
        lines,
        [
            "ada@example.com is deployment-viewer on deployment/prod-logs",
            "until 14:05 CET, in 44 minutes",
            "grant 0199f7a0-1b2c-7000-8000-000000000001; end it early with: latchkey revoke 0199f7a0-1b2c",
        ]
    );
}

#[test]
fn every_state_has_its_words() {
    let text: Vec<String> = every_state()
        .iter()
        .map(|grant| summary(&view::Grant::from(grant), &names(), now(), ZONE).join("\n"))
        .collect();
    insta::assert_snapshot!("summaries", text.join("\n\n"));
}

#[test]
fn every_state_has_its_row() {
    let grants: Vec<view::Grant> = every_state().iter().map(view::Grant::from).collect();
    let table = table::grants(&grants, &names(), now(), ZONE);
    let text = |width| {
        let lines: Vec<String> = table
            .lines(width)
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        lines.join("\n")
    };
    insta::assert_snapshot!("table", text(None));
    insta::assert_snapshot!("table_narrow", text(Some(80)));
    assert!(
        text(Some(80))
            .lines()
            .all(|line| line.chars().count() <= 80)
    );
}

#[test]
fn documents_have_stable_fields() {
    let grant = view::Grant::from(&active());
    insta::assert_snapshot!(
        "json",
        serde_json::to_string_pretty(&grant).expect("serialises")
    );
    insta::assert_snapshot!("yaml", serde_yaml::to_string(&grant).expect("serialises"));
}

#[test]
fn details_name_everything_that_is_known() {
    let grant = view::Grant {
        warnings: vec!["roles of this organization look mapped by SSO".to_owned()],
        externally_modified: true,
        ..view::Grant::from(&every_state()[5])
    };
    let lines: Vec<String> = details(&grant, &names(), now(), ZONE)
        .into_iter()
        .map(|(label, value)| format!("{label:<12} {value}"))
        .collect();
    insta::assert_snapshot!("details", lines.join("\n"));
}

#[test]
fn names_that_two_resources_share_are_shown_with_their_id() {
    assert_eq!(names().show("deployment/d1"), "deployment/prod-logs");
    assert_eq!(names().show("deployment/d2"), "deployment/d2 (twin)");
    assert_eq!(names().show("deployment/gone"), "deployment/gone");
    assert_eq!(names().show("a\u{1b}[2J"), "a\\u{1b}[2J");
}

#[test]
fn short_ids_tell_grants_apart() {
    let grant = |id: &str| view::Grant {
        id: id.to_owned(),
        ..view::Grant::from(&active())
    };
    let grants = [
        grant("0199f7a0-1b2c-7000-8000-000000000001"),
        grant("0199f7a0-1b2c-7000-8000-000000000002"),
        grant("0199f7a0-1b2d-7000-8000-000000000003"),
    ];
    let short: BTreeMap<String, ()> = table::short_ids(&grants)
        .into_iter()
        .map(|id| (id, ()))
        .collect();
    assert_eq!(short.len(), 3);
    assert!(short.contains_key("0199f7a0-1b2d"));
}

#[test]
fn hostile_text_cannot_leave_its_cell() {
    let mut hostile = active();
    hostile.beneficiary = "eve\n\u{1b}[1A\u{1b}[2Kada".to_owned();
    let grants = [view::Grant::from(&hostile)];
    for (_, line) in table::grants(&grants, &names(), now(), ZONE).lines(None) {
        assert!(!line.chars().any(text::is_unsafe), "{line:?}");
    }
}

#[test]
fn an_invitation_with_a_start_tells_both() {
    let grant = pb::Grant {
        state: pb::GrantState::AwaitingMember.into(),
        starts_at: wire("2026-11-22T08:00:00Z"),
        lapses_at: wire("2026-11-24T12:00:00Z"),
        activated_at: None,
        expires_at: None,
        ..active()
    };
    let lines = summary(
        &view::Grant::from(&grant),
        &view::Names::default(),
        now(),
        ZONE,
    );
    assert!(
        lines[1].starts_with(
            "for 45 minutes from joining, but not before Sun 22 Nov 09:00 CET; the invitation"
        ),
        "{lines:?}"
    );
}
