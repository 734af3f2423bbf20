//! The pure parts of receipts: sums of calls, fates, assurance, and that evidence does not outlive its use.

use chrono::TimeDelta;

use super::*;
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::drift::DriftAction;
use crate::domain::event::{CallEvidence, NOT_SENT};
use crate::domain::evidence::Proposal;
use crate::domain::grant::{Certainty, GrantedAssignment};
use crate::domain::ids::{CallerName, DeploymentId, GrantId, IntegrationName, RequestId, UserId};
use crate::domain::member::{MemberKey, Subject, Survivor};
use crate::domain::receipt::{Fate, GivenUp, REQUEST_IDS};
use crate::domain::ttl::Ttl;
use crate::reconcile::Settings;
use crate::reconcile::settle::Draft;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn viewer() -> Assignment {
    viewer_of("a")
}

fn viewer_of(deployment: &str) -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(deployment).expect("well formed"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

/// A member of whom these are ours since second 0.
fn owning(deployments: &[&str]) -> MemberRecord {
    let mut draft = Draft::new(MemberRecord::new(MemberKey {
        integration: IntegrationName::parse("main").expect("well formed"),
        subject: Subject::Member(UserId::parse("1").expect("well formed")),
    }));
    let ours: Vec<Assignment> = deployments.iter().map(|id| viewer_of(id)).collect();
    draft.intend(WriteKind::Add, &ours, at(0), &Settings::default());
    draft.record
}

fn drift(record: &MemberRecord, kind: &str, deployment: &str, action: &str) -> AuditEvent {
    let kind = EventKind::Drift {
        kind: kind.to_owned(),
        assignment: viewer_of(deployment).to_string(),
        action: action.to_owned(),
    };
    AuditEvent::member(at(9), &record.key, kind)
}

#[test]
fn calls_are_summed_up_however_many_there_are() {
    let mut calls = Calls::default();
    for n in 0..1_000 {
        calls.intend(at(n * 60));
        let evidence = CallEvidence {
            attempts: 1,
            code: Some("bad_gateway".to_owned()),
            request_id: Some(format!("r{n}")),
            elapsed_ms: 500,
            ..CallEvidence::default()
        };
        calls.end("unknown", &evidence, at(n * 60 + 1));
    }
    let done = CallEvidence {
        attempts: 2,
        request_id: Some("last".to_owned()),
        ..CallEvidence::default()
    };
    calls.end("done", &done, at(90_000));
    assert_eq!(calls.intended_at, Some(at(0)));
    assert_eq!(
        calls.sent_at,
        Some(at(1) - TimeDelta::milliseconds(500)),
        "the first byte left before the answer came"
    );
    assert_eq!(calls.done_at, Some(at(90_000)));
    assert_eq!((calls.intents, calls.sent), (1_000, 1_002));
    assert_eq!((calls.unanswered, calls.refused), (1_000, 0));
    assert_eq!(calls.request_ids.len(), REQUEST_IDS);
    assert_eq!(calls.request_ids.last().map(String::as_str), Some("last"));
}

#[test]
fn a_call_that_never_left_has_no_time_of_sending() {
    let mut calls = Calls::default();
    calls.intend(at(0));
    calls.end("refused", &CallEvidence::default(), at(1));
    assert_eq!((calls.sent_at, calls.sent, calls.refused), (None, 0, 1));
    // One that was taken back tells nothing of upstream.
    let mut calls = Calls::default();
    calls.end(NOT_SENT, &CallEvidence::default(), at(1));
    assert!(calls.is_none());
}

#[test]
fn the_fate_follows_from_evidence_and_claims_nothing_that_was_not_ours() {
    let gone = Gone {
        at: at(9),
        read_started_at: at(8),
    };
    let mut removed = Trail::new(viewer());
    removed.gone = Some(gone);
    removed.removed.intend(at(5));
    let mut taken = Trail::new(viewer());
    taken.gone = Some(gone);
    let mut adopted = removed.clone();
    adopted.given_up = Some(GivenUp::Adopted {
        at: at(3),
        by: "grace".to_owned(),
        reason: "on call".to_owned(),
    });
    let expired = EndCause::Expired;
    let owned = Holding::Owned;
    assert_eq!(fate(owned, Some(&removed), false, &expired), Fate::Removed);
    assert_eq!(fate(owned, Some(&taken), false, &expired), Fate::TakenAway);
    assert_eq!(
        fate(owned, Some(&taken), false, &EndCause::MemberLeft),
        Fate::MemberLeft
    );
    assert_eq!(fate(owned, Some(&adopted), false, &expired), Fate::Adopted);
    assert_eq!(fate(owned, None, true, &expired), Fate::Kept);
    assert_eq!(
        fate(Holding::Standing, None, true, &expired),
        Fate::Standing
    );
    assert_eq!(
        fate(Holding::Undecided, None, false, &expired),
        Fate::NotGiven
    );
}

#[test]
fn a_commit_without_news_leaves_no_evidence_behind() {
    let key = MemberKey {
        integration: IntegrationName::parse("main").expect("well formed"),
        subject: Subject::Member(UserId::parse("1").expect("well formed")),
    };
    let mut record = MemberRecord::new(key.clone());
    record.evidence.trail_mut(&viewer());
    let left = EventKind::MemberLeft {
        read_started_at: at(0),
    };
    keep(&mut record, &[AuditEvent::member(at(1), &key, left)]);
    assert!(record.evidence.is_empty(), "{:?}", record.evidence);
}

#[test]
fn what_came_back_stands_on_its_own_trail_and_on_no_other() {
    let mut record = owning(&["a", "b"]);
    for deployment in ["a", "b"] {
        record.evidence.trail_mut(&viewer_of(deployment));
    }
    let again = DriftAction::RemovedAgain.words();
    let event = drift(&record, "resurrected", "b", again);
    keep(&mut record, &[event]);
    let told = |deployment| {
        let trail = record.evidence.trail(&viewer_of(deployment));
        let trail = trail.expect("it is ours");
        (trail.resurrections, trail.resurrected_at, trail.look)
    };
    assert_eq!(told("a"), (0, None, Look::NotOwed));
    let reopened = Look::Reopened { at: at(9) };
    assert_eq!(told("b"), (1, Some(at(9)), reopened));
}

#[test]
fn a_neighbour_counts_as_put_back_once_it_is_put_back_and_where_the_removal_took_it_along() {
    let put_back = DriftAction::PutBack.words();
    let rows = [
        // Somebody has to give it back by hand.
        ("n", DriftAction::GivenUp.words(), &[][..]),
        // It was another removal that took this one along.
        ("m", put_back, &[]),
        ("n", put_back, &[viewer_of("n")]),
    ];
    for (lost, action, restored) in rows {
        let mut record = owning(&["a"]);
        record.owned[0].must_survive = vec![Survivor {
            assignment: viewer_of("n"),
            restored_at: None,
            restores: 0,
        }];
        record.evidence.trail_mut(&viewer());
        // Told again and again, it is one neighbour.
        let event = drift(&record, "survivor_missing", lost, action);
        keep(&mut record, &[event.clone(), event]);
        let trail = record.evidence.trail(&viewer()).expect("it is ours");
        assert_eq!(trail.restored, restored, "{lost}: {action}");
    }
}

#[test]
fn a_proposal_to_give_something_up_stands_as_long_as_it_is_held() {
    let closing = Phase::Closing {
        gone_at: at(5),
        look_at: at(9),
    };
    for (phase, stands) in [(Some(Phase::Live), 1), (Some(closing), 0), (None, 0)] {
        let mut record = owning(&["a"]);
        record.evidence.proposals.push(Proposal {
            assignment: viewer(),
            by: "ada".to_owned(),
            identity: None,
            reason: "the deployment is gone".to_owned(),
            at: at(1),
            expires_at: at(1_000),
        });
        match phase {
            Some(phase) => record.owned[0].phase = phase,
            None => record.owned.clear(),
        }
        keep(&mut record, &[]);
        assert_eq!(record.evidence.proposals.len(), stands, "{phase:?}");
    }
}

fn call(record: &MemberRecord, write: WriteKind, deployment: &str, second: i64) -> AuditEvent {
    let kind = EventKind::CallIntended {
        write,
        assignments: vec![viewer_of(deployment).to_string()],
        must_survive: Vec::new(),
        put_back: false,
    };
    AuditEvent::member(at(second), &record.key, kind)
}

#[test]
fn a_trail_sums_up_every_call_until_what_was_removed_is_added_again() {
    let mut record = owning(&["a", "b"]);
    let (add, remove) = (WriteKind::Add, WriteKind::Remove);
    let told = |record: &MemberRecord| {
        let trail = record.evidence.trail(&viewer()).expect("it is ours");
        (trail.added.intents, trail.removed.intents)
    };
    let rows = [
        (add, "a", (1, 0)),
        (add, "a", (2, 0)),
        (add, "b", (2, 0)),
        (remove, "a", (2, 1)),
        (remove, "b", (2, 1)),
        (remove, "a", (2, 2)),
        (add, "a", (1, 0)),
    ];
    for (second, (write, deployment, expected)) in (1..).zip(rows) {
        let event = call(&record, write, deployment, second);
        keep(&mut record, &[event]);
        assert_eq!(told(&record), expected, "{write:?} {deployment}");
    }
}

#[test]
fn an_answer_and_a_refusal_are_told_of_what_they_were_about() {
    let mut record = owning(&["a", "b"]);
    for deployment in ["a", "b"] {
        record.evidence.trail_mut(&viewer_of(deployment));
    }
    let of_b = || viewer_of("b").to_string();
    let evidence = CallEvidence {
        attempts: 1,
        ..CallEvidence::default()
    };
    let events = [
        EventKind::CallEnded {
            write: WriteKind::Remove,
            assignments: vec![of_b()],
            outcome: "refused".to_owned(),
            evidence,
        },
        EventKind::RemovalBlocked {
            assignment: of_b(),
            code: "last_owner".to_owned(),
            retry_at: at(600),
        },
        EventKind::SecondLook { assignment: of_b() },
    ];
    let key = record.key.clone();
    keep(
        &mut record,
        &events.map(|kind| AuditEvent::member(at(9), &key, kind)),
    );
    assert_eq!(
        record.evidence.trail(&viewer()),
        Some(&Trail::new(viewer()))
    );
    let told = record.evidence.trail(&viewer_of("b")).expect("it is ours");
    assert_eq!(told.removed.refused, 1);
    assert_eq!(told.blocked.as_ref().map(|blocked| blocked.times), Some(1));
    assert_eq!(told.look, Look::Done { at: at(9) });
}

#[test]
fn whoever_left_held_nothing_any_more_from_then_on_unless_it_was_gone_before() {
    let earlier = Gone {
        at: at(3),
        read_started_at: at(2),
    };
    let with_the_member = Gone {
        at: at(9),
        read_started_at: at(8),
    };
    let closing = Phase::Closing {
        gone_at: at(9),
        look_at: at(39),
    };
    let rows = [
        (Phase::Live, None, None),
        (closing, None, Some(with_the_member)),
        (closing, Some(earlier), Some(earlier)),
    ];
    for (phase, known, expected) in rows {
        let mut record = owning(&["a"]);
        record.owned[0].phase = phase;
        record.evidence.trail_mut(&viewer()).gone = known;
        let left = EventKind::MemberLeft {
            read_started_at: at(8),
        };
        let event = AuditEvent::member(at(9), &record.key, left);
        keep(&mut record, &[event]);
        let trail = record.evidence.trail(&viewer()).expect("it is ours");
        assert_eq!(trail.gone, expected, "{phase:?}");
    }
}

/// A grant of `a` that ended in second 100.
fn ended_grant(subject: &Subject, cause: EndCause) -> Grant {
    Grant {
        id: GrantId::new(at(0), [7; 10]),
        integration: IntegrationName::parse("main").expect("well formed"),
        subject: subject.clone(),
        caller: CallerName::parse("plane").expect("well formed"),
        request_id: RequestId::parse("r1").expect("well formed"),
        beneficiary: "1".to_owned(),
        requester: String::new(),
        justification: String::new(),
        assignments: vec![GrantedAssignment {
            assignment: viewer(),
            holding: Holding::Owned,
        }],
        duration: Ttl::from_seconds(60).expect("in range"),
        starts_at: None,
        not_after: Some(at(80)),
        created_at: at(0),
        state: GrantState::Ended { at: at(100), cause },
        version: 1,
        certainty: Certainty::Verified,
        externally_modified: false,
        invited: false,
        attempts: 0,
        last_error: None,
        verified_at: None,
        removal_sent_at: None,
        authority: None,
    }
}

#[test]
fn a_removal_was_due_when_it_was_promised_or_when_it_was_asked_for_and_only_of_what_was_given() {
    let revoked = || EndCause::Revoked {
        by: "ada".to_owned(),
        reason: String::new(),
    };
    let rows = [
        (EndCause::Expired, Some(90), None, true, Some(90)),
        (EndCause::Expired, Some(120), None, true, Some(100)),
        (EndCause::Expired, None, None, true, Some(80)),
        (EndCause::Expired, Some(90), Some(70), true, Some(70)),
        (revoked(), Some(90), None, true, Some(100)),
        (revoked(), Some(90), Some(70), true, Some(70)),
        (EndCause::Expired, Some(90), Some(70), false, None),
    ];
    for (cause, promised, due, given, expected) in rows {
        let record = owning(&[]);
        let grant = ended_grant(&record.key.subject, cause.clone());
        let mut evidence = Evidence::default();
        let known = evidence.grant_mut(grant.id);
        known.expires_at = promised.map(at);
        known.due_at = due.map(at);
        if given {
            evidence.trail_mut(&viewer()).added.intend(at(1));
        }
        let receipt = seal(&evidence, &record, &grant).expect("it has ended");
        let what = format!("{cause:?}, promised {promised:?}, due {due:?}, given {given}");
        assert_eq!(receipt.due_at, expected.map(at), "{what}");
    }
}

#[test]
fn a_membership_outlives_the_grant_of_whoever_was_invited_and_joined_and_stayed() {
    let member = Subject::parse("user:1").expect("well formed");
    let invitee = Subject::parse("email:ada@example.com").expect("well formed");
    let rows = [
        (true, &member, EndCause::Expired, true),
        (false, &member, EndCause::Expired, false),
        (true, &invitee, EndCause::Lapsed, false),
        (true, &member, EndCause::MemberLeft, false),
        (false, &invitee, EndCause::Lapsed, false),
    ];
    for (invited, subject, cause, outlives) in rows {
        let mut record = owning(&[]);
        record.key.subject = subject.clone();
        let mut grant = ended_grant(subject, cause.clone());
        grant.invited = invited;
        let receipt = seal(&Evidence::default(), &record, &grant).expect("it has ended");
        let what = format!("invited {invited}, {subject}, {cause:?}");
        assert_eq!(receipt.membership_outlives, outlives, "{what}");
    }
}
