//! The life cycle, with time moved by hand.

use std::collections::BTreeSet;

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::ids::{DeploymentId, UserId};

fn at(text: &str) -> Timestamp {
    chrono::DateTime::parse_from_rfc3339(text)
        .expect("a valid instant")
        .to_utc()
}

fn grant(state: GrantState) -> Grant {
    let assignment = Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse("a").expect("valid"),
        },
        application_roles: ApplicationRoles::Exactly(BTreeSet::new()),
    };
    Grant {
        id: GrantId::new(at("2026-01-01T00:00:00Z"), [0; 10]),
        integration: IntegrationName::parse("main").expect("valid"),
        subject: Subject::Member(UserId::parse("1").expect("valid")),
        caller: CallerName::parse("local").expect("valid"),
        request_id: RequestId::parse("r").expect("valid"),
        beneficiary: "1".to_owned(),
        requester: String::new(),
        justification: String::new(),
        assignments: vec![GrantedAssignment {
            assignment,
            holding: Holding::Undecided,
        }],
        duration: Ttl::from_seconds(3600).expect("valid"),
        starts_at: None,
        not_after: None,
        created_at: at("2026-01-01T00:00:00Z"),
        state,
        version: 1,
        certainty: Certainty::Unknown,
        externally_modified: false,
        invited: false,
        attempts: 0,
        last_error: None,
        verified_at: None,
        removal_sent_at: None,
        authority: None,
    }
}

fn activating() -> Grant {
    grant(GrantState::Activating {
        since: at("2026-01-01T00:00:00Z"),
        must_end_by: None,
    })
}

fn active() -> Grant {
    grant(GrantState::Active {
        activated_at: at("2026-01-01T00:00:00Z"),
        expires_at: at("2026-01-01T01:00:00Z"),
    })
}

#[test]
fn the_clock_starts_when_access_was_verified() {
    let mut grant = activating();
    grant.bound_before_send(at("2026-01-01T00:00:10Z"));
    assert!(grant.activate(at("2026-01-01T00:00:20Z")));
    assert_eq!(grant.ends_at(), Some(at("2026-01-01T01:00:20Z")));
}

#[test]
fn verification_never_moves_the_end_past_the_bound_set_before_the_first_byte() {
    let mut grant = activating();
    grant.bound_before_send(at("2026-01-01T00:00:00Z"));
    grant.bound_before_send(at("2026-01-01T00:30:00Z"));
    assert!(grant.activate(at("2026-01-01T00:50:00Z")));
    assert_eq!(grant.ends_at(), Some(at("2026-01-01T01:02:00Z")));
}

#[test]
fn a_grant_not_verified_by_its_bound_goes_to_revoking() {
    let mut grant = activating();
    grant.bound_before_send(at("2026-01-01T00:00:00Z"));
    assert!(!grant.advance(at("2026-01-01T01:01:59Z")));
    assert!(grant.advance(at("2026-01-01T01:02:00Z")));
    assert_eq!(grant.state.name(), "revoking");
}

#[test]
fn a_grant_is_expired_at_its_deadline() {
    let mut grant = active();
    assert!(grant.expects_access(at("2026-01-01T00:59:59Z")));
    assert!(!grant.expects_access(at("2026-01-01T01:00:00Z")));
    assert!(grant.advance(at("2026-01-01T01:00:03Z")));
    assert_eq!(
        grant.state,
        GrantState::Revoking {
            since: at("2026-01-01T01:00:00Z"),
            cause: EndCause::Expired
        },
        "lateness counts from the deadline, not from when it was noticed"
    );
}

#[test]
fn the_hard_end_wins_over_the_duration_and_over_extension() {
    let mut grant = activating();
    grant.not_after = Some(at("2026-01-01T00:10:00Z"));
    assert!(grant.activate(at("2026-01-01T00:00:00Z")) || grant.ends_at().is_some());
    assert_eq!(grant.ends_at(), Some(at("2026-01-01T00:10:00Z")));
    let ttl = Ttl::from_seconds(7200).expect("valid");
    assert_eq!(
        grant.extend(ttl, at("2026-01-01T00:05:00Z")),
        Ok(at("2026-01-01T00:10:00Z"))
    );
}

#[test]
fn extension_is_refused_once_removal_is_due() {
    let ttl = Ttl::from_seconds(60).expect("valid");
    let mut grant = active();
    assert!(grant.extend(ttl, at("2026-01-01T01:00:00Z")).is_err());
    assert!(grant.begin_revoke(EndCause::Expired, at("2026-01-01T01:00:00Z")));
    let error = grant
        .extend(ttl, at("2026-01-01T01:00:00Z"))
        .expect_err("revoking");
    assert_eq!(error.to_string(), "cannot extend a grant that is revoking");
}

#[test]
fn the_first_cause_stays() {
    let mut grant = active();
    let revoked = EndCause::Revoked {
        by: "ada".to_owned(),
        reason: String::new(),
    };
    assert!(grant.begin_revoke(revoked.clone(), at("2026-01-01T00:30:00Z")));
    assert!(!grant.begin_revoke(EndCause::Expired, at("2026-01-01T01:30:00Z")));
    assert!(grant.finish(at("2026-01-01T01:31:00Z")));
    assert_eq!(
        grant.state,
        GrantState::Ended {
            at: at("2026-01-01T01:31:00Z"),
            cause: revoked
        }
    );
}

#[test]
fn ending_a_scheduled_grant_withdraws_it_without_any_call() {
    let mut grant = grant(GrantState::Scheduled {
        starts_at: at("2026-01-02T00:00:00Z"),
    });
    assert!(grant.begin_revoke(
        EndCause::Revoked {
            by: "ada".to_owned(),
            reason: String::new()
        },
        at("2026-01-01T00:00:00Z")
    ));
    assert!(matches!(
        grant.state,
        GrantState::Ended {
            cause: EndCause::Withdrawn { .. },
            ..
        }
    ));
}

#[test]
fn a_start_and_an_end_that_are_both_due_give_nothing() {
    let mut grant = grant(GrantState::Scheduled {
        starts_at: at("2026-01-01T00:00:00Z"),
    });
    grant.not_after = Some(at("2026-01-01T00:10:00Z"));
    assert!(grant.advance(at("2026-01-01T00:10:00Z")));
    assert!(grant.state.is_ended());
}

#[test]
fn revoking_leaves_only_to_ended() {
    let revoking = grant(GrantState::Revoking {
        since: at("2026-01-01T00:00:00Z"),
        cause: EndCause::Expired,
    });
    let mut same = revoking.clone();
    let later = at("2030-01-01T00:00:00Z");
    assert!(!same.advance(later) && !same.activate(later) && !same.member_joined(later));
    assert!(!same.begin_revoke(EndCause::Lapsed, later));
    assert_eq!(same, revoking);
    assert!(same.finish(later) && same.state.is_ended());
}

#[test]
fn waiting_for_a_member_lapses_and_joining_starts_activation() {
    let state = GrantState::AwaitingMember {
        invited_at: at("2026-01-01T00:00:00Z"),
        lapses_at: at("2026-01-04T00:00:00Z"),
    };
    let mut lapsing = grant(state.clone());
    assert!(lapsing.advance(at("2026-01-04T00:00:00Z")));
    assert!(matches!(
        lapsing.state,
        GrantState::Ended {
            cause: EndCause::Lapsed,
            ..
        }
    ));
    let mut joining = grant(state);
    assert!(joining.member_joined(at("2026-01-03T00:00:00Z")));
    assert_eq!(joining.state.name(), "activating");
}

#[test]
fn a_removal_is_expected_at_the_end_and_from_the_start_where_the_clock_has_not_begun() {
    let start = at("2026-01-01T08:00:00Z");
    let hour_later = at("2026-01-01T09:00:00Z");
    let due = |state: GrantState| grant(state).removal_due();
    let scheduled = GrantState::Scheduled { starts_at: start };
    assert_eq!(due(scheduled.clone()), Some(hour_later));
    let (since, must_end_by) = (start, Some(at("2026-01-01T12:00:00Z")));
    assert_eq!(
        due(GrantState::Activating { since, must_end_by }),
        Some(hour_later)
    );
    assert_eq!(active().removal_due(), Some(at("2026-01-01T01:00:00Z")));
    for state in [
        scheduled,
        GrantState::Activating { since, must_end_by },
        active().state,
    ] {
        let mut bounded = grant(state);
        bounded.not_after = Some(at("2026-01-01T00:30:00Z"));
        assert_eq!(bounded.removal_due(), bounded.not_after);
        bounded.assignments[0].holding = Holding::Standing;
        assert_eq!(bounded.removal_due(), None, "nothing will be removed");
    }
}

#[test]
fn a_removal_is_expected_at_once_until_it_was_sent() {
    let mut revoking = active();
    assert!(revoking.begin_revoke(EndCause::Lapsed, at("2026-01-01T00:10:00Z")));
    assert_eq!(revoking.removal_due(), Some(at("2026-01-01T00:10:00Z")));
    revoking.removal_sent_at = Some(at("2026-01-01T00:10:01Z"));
    assert_eq!(revoking.removal_due(), None);
}

#[test]
fn whoever_joins_gets_access_now_or_at_the_start_that_was_asked_for() {
    let now = at("2026-01-01T00:10:00Z");
    let waiting = || {
        grant(GrantState::AwaitingMember {
            invited_at: at("2026-01-01T00:00:00Z"),
            lapses_at: at("2026-01-02T00:00:00Z"),
        })
    };
    let now_on = GrantState::Activating {
        since: now,
        must_end_by: None,
    };
    let later = at("2026-01-01T00:10:01Z");
    let scheduled = GrantState::Scheduled { starts_at: later };
    for (starts_at, state) in [
        (None, &now_on),
        (Some(at("2026-01-01T00:09:59Z")), &now_on),
        (Some(now), &now_on),
        (Some(later), &scheduled),
    ] {
        let mut grant = waiting();
        grant.starts_at = starts_at;
        assert!(grant.member_joined(now));
        assert_eq!(grant.state, *state, "{starts_at:?}");
        assert!(!grant.member_joined(now), "only once");
    }
}

#[test]
fn causes_have_names_that_do_not_change() {
    let by = || "ada".to_owned();
    let causes = [
        (EndCause::Expired, "expired"),
        (
            EndCause::Revoked {
                by: by(),
                reason: String::new(),
            },
            "revoked",
        ),
        (EndCause::Withdrawn { by: by() }, "withdrawn"),
        (EndCause::Lapsed, "lapsed"),
        (
            EndCause::ActivationFailed { code: by() },
            "activation_failed",
        ),
        (EndCause::MemberLeft, "member_left"),
        (EndCause::Superseded, "superseded"),
    ];
    for (cause, name) in causes {
        assert_eq!(cause.code(), name);
    }
}
