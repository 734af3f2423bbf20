//! The pure parts of receipts: sums of calls, fates, assurance, and that evidence does not outlive its use.

use chrono::TimeDelta;

use super::*;
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::event::{CallEvidence, NOT_SENT};
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::domain::member::{MemberKey, Subject};
use crate::domain::receipt::{Fate, GivenUp, REQUEST_IDS};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn viewer() -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse("a").expect("well formed"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
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
