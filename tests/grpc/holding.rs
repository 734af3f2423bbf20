//! What is refused while the connector cannot be sure: in a hold, and with a wrong clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use latchkey::api::pb;
use latchkey::domain::ids::IntegrationName;
use latchkey::domain::member::{
    LastWrite, MemberKey, Owned, Phase, Subject, WriteKind, WriteOutcome,
};
use latchkey::ports::ledger::MemberCommit;
use latchkey::ports::{Clock, Ledger, Witness};
use latchkey::reconcile::hold::settle_at_start;
use latchkey::witness::MemoryWitness;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::*;

fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("a reason").reason.clone()
}

#[tokio::test]
async fn a_clock_that_is_wrong_refuses_grants_and_extensions_and_no_revocation() {
    let bed = Bed::start().await;
    let active = bed.grant("r1").await;
    bed.activate(&active.id).await;
    for skew in [30_001, -30_001] {
        bed.provider.script(|org| org.key.skew_ms = Some(skew));
        let status = bed
            .access()
            .create_grant(create("r2"))
            .await
            .expect_err("skewed");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason(&status), "CLOCK_SKEW");
        assert!(status.message().contains("30 s"), "{status:?}");
        let extend = pb::ExtendGrantRequest {
            request_id: "e1".to_owned(),
            grant_id: active.id.clone(),
            duration: seconds(60),
            ..pb::ExtendGrantRequest::default()
        };
        let status = bed.access().extend_grant(extend).await.expect_err("skewed");
        assert_eq!(reason(&status), "CLOCK_SKEW");
    }
    // What was accepted before is answered, and access can be taken away.
    bed.access()
        .create_grant(create("r1"))
        .await
        .expect("replayed");
    let revoke = pb::RevokeGrantRequest {
        which: Some(pb::revoke_grant_request::Which::GrantId(active.id)),
        ..pb::RevokeGrantRequest::default()
    };
    bed.access().revoke_grant(revoke).await.expect("revoked");
    bed.provider.script(|org| org.key.skew_ms = Some(-30_000));
    bed.access()
        .create_grant(create("r2"))
        .await
        .expect("within the limit");
}

#[tokio::test]
async fn a_hold_refuses_grants_until_it_is_released_and_says_what_to_do() {
    let witness: Arc<dyn Witness> = Arc::new(MemoryWitness::new());
    let name = IntegrationName::parse("main").expect("valid");
    let bed = Bed::held(witness, &name).await;
    let status = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect_err("in hold");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(reason(&status), "HOLD");
    assert!(status.message().contains("latchkey hold"), "{status:?}");
    let shown = bed
        .connector()
        .get_hold(pb::GetHoldRequest::default())
        .await
        .expect("shown")
        .into_inner();
    assert!(shown.is_held);
    assert_eq!(shown.reasons[0].code, "other_ledger");
    let listed = bed
        .connector()
        .list_integrations(pb::ListIntegrationsRequest::default())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(listed.integrations[0].health_code, "hold");
    let release = |reason: &str| pb::ReleaseHoldRequest {
        integration: String::new(),
        requester: "ada".to_owned(),
        reason: reason.to_owned(),
    };
    let status = bed
        .connector()
        .release_hold(release(""))
        .await
        .expect_err("a reason is required");
    assert_eq!(status.code(), Code::InvalidArgument);
    for was_held in [true, false] {
        let released = bed.connector().release_hold(release("looked")).await;
        assert_eq!(released.expect("released").into_inner().was_held, was_held);
    }
    bed.grant("r1").await;
    let gone = bed
        .connector()
        .get_hold(pb::GetHoldRequest::default())
        .await;
    assert!(!gone.expect("shown").into_inner().is_held);
}

#[tokio::test]
async fn the_witness_is_told_of_the_later_end_of_an_extended_grant() {
    let witness: Arc<dyn Witness> = Arc::new(MemoryWitness::new());
    let name = IntegrationName::parse("main").expect("valid");
    let bed = Bed::held(Arc::clone(&witness), &name).await;
    let request = pb::ReleaseHoldRequest {
        reason: "looked".to_owned(),
        ..pb::ReleaseHoldRequest::default()
    };
    bed.connector()
        .release_hold(request)
        .await
        .expect("released");
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    // What the engine leaves when it has given the access.
    let key = MemberKey {
        integration: name,
        subject: Subject::Member(user("1")),
    };
    let mut record = bed.ledger.member(&key).await.expect("readable");
    let now = bed.clock.now();
    let given = record.grants[0].assignments[0].assignment.clone();
    let ends = record.grants[0].ends_at().expect("active");
    record.owned = vec![Owned {
        assignment: given.clone(),
        phase: Phase::Live,
        since: now,
        must_end_by: Some(ends),
        last_write: LastWrite {
            kind: WriteKind::Add,
            at: now,
            outcome: WriteOutcome::Done,
        },
        seen: true,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }];
    let (audit, request) = (Vec::new(), None);
    let commit = MemberCommit {
        record,
        audit,
        request,
    };
    bed.ledger.commit(commit).await.expect("nobody in between");
    assert_eq!(witness.open_intents().await.expect("readable"), []);

    let extended = bed.access().extend_grant(extend("x1", &id, 60)).await;
    extended.expect("extended");
    let open = witness.open_intents().await.expect("readable");
    let told: Vec<_> = open
        .iter()
        .map(|intent| (intent.key(), &intent.assignment, intent.must_end_by))
        .collect();
    let later = ends + TimeDelta::seconds(60);
    assert_eq!(told, [(key, &given, Some(later))]);
}

/// A ledger that the witness does not know.
pub(crate) async fn holds(
    witness: Arc<dyn Witness>,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    name: &IntegrationName,
) -> BTreeMap<IntegrationName, Arc<latchkey::reconcile::Hold>> {
    let binding = latchkey::ports::witness::Binding {
        ledger: "another".to_owned(),
        generation: 1,
    };
    witness.begin(binding, 5, Vec::new()).await.expect("made");
    settle_at_start(
        Arc::clone(ledger),
        Some(witness),
        std::slice::from_ref(name),
        Arc::clone(clock),
    )
    .await
    .expect("the ledger works")
}
