//! The pure parts of receipts: sums of calls, fates, assurance, and that evidence does not outlive its use.

use chrono::TimeDelta;

use super::*;
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::drift::DriftAction;
use crate::domain::event::{CallEvidence, NOT_SENT};
use crate::domain::evidence::Proposal;
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::domain::member::{MemberKey, Subject, Survivor};
use crate::domain::receipt::{Fate, GivenUp, REQUEST_IDS};
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
