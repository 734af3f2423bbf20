//! Receipts, overdue removals, forgetting and adopting, over the wire.

use std::sync::Arc;
use std::time::Duration;

use latchkey::api::pb;
use latchkey::api::pb::audit_service_client::AuditServiceClient;
use latchkey::api::pb::operations_service_client::OperationsServiceClient;
use latchkey::domain::grant::Grant;
use latchkey::domain::ids::{GrantId, IntegrationName};
use latchkey::domain::member::{
    Blocked, LastWrite, MemberKey, Owned, Phase, WriteKind, WriteOutcome,
};
use latchkey::ports::ledger::{EventFilter, MemberCommit};
use latchkey::ports::witness::Intent;
use latchkey::ports::{Ledger as _, Witness};
use latchkey::witness::MemoryWitness;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::support::*;

fn audit(bed: &Bed) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(bed.channel.clone())
}

fn operations(bed: &Bed) -> OperationsServiceClient<Channel> {
    OperationsServiceClient::new(bed.channel.clone())
}

fn reason(status: &tonic::Status) -> String {
    status
        .get_error_details()
        .error_info()
        .expect("a reason")
        .reason
        .clone()
}

async fn stored(bed: &Bed, id: &str) -> Grant {
    bed.ledger
        .grant(GrantId::parse(id).expect("valid"))
        .await
        .expect("readable")
        .expect("known")
}

/// Does what the engine does when it gave what a grant asks for.
async fn own(bed: &Bed, id: &str, blocked: bool) {
    let grant = stored(bed, id).await;
    let key = MemberKey {
        integration: grant.integration,
        subject: grant.subject,
    };
    let mut record = bed.ledger.member(&key).await.expect("readable");
    let now = latchkey::ports::Clock::now(bed.clock.as_ref());
    for held in grant.assignments {
        record.owned.push(Owned {
            assignment: held.assignment,
            phase: Phase::Live,
            since: now,
            must_end_by: None,
            last_write: LastWrite {
                kind: WriteKind::Add,
                at: now,
                outcome: WriteOutcome::Done,
            },
            seen: true,
            echo_until: None,
            removal_echo_until: None,
            must_survive: Vec::new(),
            blocked: blocked.then(|| Blocked {
                code: "root.unauthorized".to_owned(),
                since: now,
                retry_at: now,
                refusals: 3,
            }),
            isolate: false,
            attempts: 3,
        });
    }
    bed.ledger
        .commit(MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        })
        .await
        .expect("committed");
}

fn access(deployment: &str) -> Option<pb::AccessReference> {
    Some(pb::AccessReference {
        integration: "main".to_owned(),
        member: by_id("1"),
        role: "deployment-viewer".to_owned(),
        target: Some(on_deployment(deployment)),
        application_roles: None,
    })
}

fn forget(who: &str) -> pb::ForgetAccessRequest {
    pb::ForgetAccessRequest {
        access: access("a"),
        requester: who.to_owned(),
        reason: "the deployment is gone".to_owned(),
    }
}

async fn receipt(bed: &Bed, id: &str) -> pb::Receipt {
    audit(bed)
        .get_receipt(pb::GetReceiptRequest {
            grant_id: id.to_owned(),
        })
        .await
        .expect("there is one")
        .into_inner()
        .receipt
        .expect("a receipt")
}

#[tokio::test]
async fn a_receipt_is_there_with_the_end_and_for_its_caller_only() {
    let mut bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    let get = || pb::GetReceiptRequest {
        grant_id: id.clone(),
    };
    let early = audit(&bed).get_receipt(get()).await.expect_err("not ended");
    assert_eq!(early.code(), Code::FailedPrecondition);
    // A grant that begins later ends at once, since nothing was given.
    let mut later = create("r2");
    later.spec.as_mut().expect("a body").starts_at = instant("2026-01-01T05:00:00Z");
    let later = bed
        .access()
        .create_grant(later)
        .await
        .expect("accepted")
        .into_inner()
        .grant
        .expect("a grant")
        .id;
    bed.access()
        .revoke_grant(revoke(&later))
        .await
        .expect("revoked");
    let found = receipt(&bed, &later).await;
    assert_eq!(found.assurance(), pb::ReceiptAssurance::NothingToRemove);
    assert_eq!(found.request_id, "r2");
    assert_eq!(
        found.end_cause.expect("a cause").reason(),
        pb::EndReason::Withdrawn
    );
    assert_eq!(found.lines.len(), 1);
    assert_eq!(found.lines[0].fate(), pb::ReceiptFate::NotGiven);
    assert!(found.due_to_gone.is_none() && found.due_at.is_none());
    let stranger = bed.stranger_channel().await;
    let foreign = AuditServiceClient::new(stranger.clone())
        .get_receipt(pb::GetReceiptRequest { grant_id: later })
        .await
        .expect_err("foreign");
    assert_eq!(foreign.code(), Code::NotFound);
    let listed = AuditServiceClient::new(stranger)
        .list_receipts(pb::ListReceiptsRequest::default())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(listed.receipts, []);
    let listed = audit(&bed)
        .list_receipts(pb::ListReceiptsRequest::default())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(listed.receipts.len(), 1);
}

#[tokio::test]
async fn overdue_access_is_listed_with_its_grants_and_what_went_wrong() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, false).await;
    let list = || pb::ListOverdueRequest::default();
    let answer = operations(&bed).list_overdue(list()).await.expect("listed");
    assert_eq!(answer.into_inner().overdue, []);
    bed.clock.advance(Duration::from_secs(3600 + 59));
    let answer = operations(&bed).list_overdue(list()).await.expect("listed");
    assert_eq!(answer.into_inner().overdue, [], "a minute is no lateness");
    bed.clock.advance(Duration::from_secs(1));
    let found = operations(&bed)
        .list_overdue(list())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(found.next_page_token, "");
    let [one] = found.overdue.as_slice() else {
        panic!("one is overdue: {found:?}");
    };
    assert_eq!((one.user_id.as_str(), one.power.as_str()), ("1", "low"));
    assert_eq!(one.grant_ids, [id]);
    assert_eq!(one.due_at, instant("2026-01-01T01:00:00Z"));
    assert_eq!(one.attempts, 3);
    let none = operations(&bed)
        .list_overdue(pb::ListOverdueRequest {
            grace: seconds(3600),
            ..list()
        })
        .await
        .expect("listed");
    assert_eq!(none.into_inner().overdue, []);
    let unknown = operations(&bed)
        .list_overdue(pb::ListOverdueRequest {
            integration: "nobody".to_owned(),
            ..list()
        })
        .await
        .expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn forgetting_takes_two_people_and_leaves_a_receipt_that_says_so() {
    let bed = Bed::start().await;
    bed.provider.script(|org| {
        let ada = org.members.get_mut(&user("1")).expect("Ada");
        ada.assignments.insert(assignment("deployment-viewer", "a"));
    });
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, false).await;
    let early = operations(&bed)
        .forget_access(forget("ada"))
        .await
        .expect_err("it is not overdue");
    assert_eq!(
        (early.code(), reason(&early).as_str()),
        (Code::FailedPrecondition, "NOT_OVERDUE")
    );
    bed.access()
        .revoke_grant(revoke(&id))
        .await
        .expect("revoked");
    bed.clock.advance(Duration::from_secs(61));
    for who in ["ada@example.com", " Ada@Example.com "] {
        let proposed = operations(&bed)
            .forget_access(forget(who))
            .await
            .expect("proposed")
            .into_inner();
        assert_eq!(proposed.state(), pb::ForgetState::Proposed, "{who}");
        assert_eq!(proposed.proposed_by, "ada@example.com");
        assert!(proposed.expires_at.is_some());
    }
    let listed = operations(&bed)
        .list_overdue(pb::ListOverdueRequest::default())
        .await
        .expect("listed")
        .into_inner();
    let proposal = listed.overdue[0].proposal.as_ref().expect("shown");
    assert_eq!(proposal.by, "ada@example.com");
    // An hour later the proposal counts no more: this is a new one.
    bed.clock.advance(Duration::from_secs(3600));
    let again = operations(&bed)
        .forget_access(forget("grace"))
        .await
        .expect("proposed")
        .into_inner();
    assert_eq!(
        (again.state(), again.proposed_by.as_str()),
        (pb::ForgetState::Proposed, "grace")
    );
    let done = operations(&bed)
        .forget_access(forget("ada@example.com"))
        .await
        .expect("confirmed")
        .into_inner();
    assert_eq!(done.state(), pb::ForgetState::Forgotten);
    assert_eq!(
        (done.proposed_by.as_str(), done.confirmed_by.as_str()),
        ("grace", "ada@example.com")
    );
    assert_eq!(done.ended_grant_ids, std::slice::from_ref(&id));
    // Repeating it has no further effect.
    let repeated = operations(&bed)
        .forget_access(forget("ada@example.com"))
        .await
        .expect("known")
        .into_inner();
    assert_eq!(repeated.state(), pb::ForgetState::Forgotten);

    let grant = stored(&bed, &id).await;
    assert!(grant.state.is_ended());
    assert_eq!(
        grant.certainty,
        latchkey::domain::grant::Certainty::Unknown,
        "nobody saw it gone"
    );
    let found = receipt(&bed, &id).await;
    assert_eq!(found.assurance(), pb::ReceiptAssurance::GivenUp);
    assert_eq!(found.lines[0].fate(), pb::ReceiptFate::Forgotten);
    let given_up = found.lines[0].given_up.as_ref().expect("named");
    assert_eq!(
        (given_up.by.as_str(), given_up.confirmed_by.as_str()),
        ("grace", "ada@example.com")
    );
    assert_eq!(found.warnings[0].code, "forgotten");
    assert_eq!(
        found.end_cause.expect("a cause").reason(),
        pb::EndReason::Revoked,
        "the first cause stays"
    );
    let record = bed
        .ledger
        .member(&MemberKey {
            integration: grant.integration,
            subject: grant.subject,
        })
        .await
        .expect("readable");
    assert!(record.owned.is_empty());
    assert_eq!(record.evidence.forgotten.len(), 1, "it is watched for");
    let why = pb::ExplainAccessRequest {
        integration: String::new(),
        member: by_id("1"),
    };
    let why = bed.access().explain_access(why).await.expect("explained");
    let kinds: Vec<_> = why
        .into_inner()
        .access
        .iter()
        .map(|one| one.kind())
        .collect();
    assert_eq!(kinds, [pb::AccessKind::Forgotten]);
    let kinds: Vec<String> = bed
        .ledger
        .events(&EventFilter::default(), 0, 100)
        .await
        .expect("readable")
        .iter()
        .map(|stored| stored.event.kind.name().to_owned())
        .collect();
    for kind in ["forget_proposed", "access_forgotten", "request_refused"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn blocked_access_may_be_forgotten_before_it_is_overdue() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, true).await;
    bed.access()
        .revoke_grant(revoke(&id))
        .await
        .expect("revoked");
    let proposed = operations(&bed)
        .forget_access(forget("ada"))
        .await
        .expect("proposed")
        .into_inner();
    assert_eq!(proposed.state(), pb::ForgetState::Proposed);
}

#[tokio::test]
async fn giving_up_needs_a_person_a_reason_and_something_that_is_ours() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, false).await;
    type Change = fn(&mut pb::ForgetAccessRequest);
    let cases: [(Change, &str); 4] = [
        (|request| request.requester.clear(), "requester"),
        (|request| request.reason = "  ".to_owned(), "reason"),
        (|request| request.access = None, "access"),
        (
            |request| request.access.as_mut().expect("given").target = None,
            "access.target",
        ),
    ];
    for (change, field) in cases {
        let mut request = forget("ada");
        change(&mut request);
        let refused = operations(&bed)
            .forget_access(request)
            .await
            .expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        let details = refused.get_error_details();
        let violations = &details.bad_request().expect("a field").field_violations;
        assert_eq!(violations[0].field, field);
    }
    let mut foreign = forget("ada");
    foreign.access = access("b");
    let refused = operations(&bed)
        .forget_access(foreign)
        .await
        .expect_err("not ours");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "ACCESS_NOT_OWNED")
    );
}

#[tokio::test]
async fn the_witness_hears_of_what_is_given_up() {
    let witness = Arc::new(MemoryWitness::new());
    let name = IntegrationName::parse("main").expect("valid");
    let bed = Bed::held(Arc::clone(&witness) as Arc<dyn Witness>, &name).await;
    bed.connector()
        .release_hold(pb::ReleaseHoldRequest {
            integration: String::new(),
            requester: "ada".to_owned(),
            reason: "looked".to_owned(),
        })
        .await
        .expect("released");
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, false).await;
    let grant = stored(&bed, &id).await;
    let at = latchkey::ports::Clock::now(bed.clock.as_ref());
    let intents = |grant: &Grant| {
        let of = |held: &latchkey::domain::grant::GrantedAssignment| Intent {
            integration: grant.integration.clone(),
            subject: grant.subject.clone(),
            assignment: held.assignment.clone(),
            must_end_by: None,
            at,
        };
        grant.assignments.iter().map(of).collect::<Vec<_>>()
    };
    witness.intend(intents(&grant), 0).await.expect("noted");
    assert_eq!(witness.open_intents().await.expect("readable").len(), 1);
    let adopt = || pb::AdoptAccessRequest {
        access: access("a"),
        requester: "grace".to_owned(),
        reason: "stays".to_owned(),
    };
    operations(&bed)
        .adopt_access(adopt())
        .await
        .expect("adopted");
    assert_eq!(witness.open_intents().await.expect("readable"), []);
    // A crash before the witness was told is made good by asking once more.
    witness.intend(intents(&grant), 0).await.expect("noted");
    operations(&bed).adopt_access(adopt()).await.expect("known");
    assert_eq!(witness.open_intents().await.expect("readable"), []);

    let id = bed.grant("r2").await.id;
    bed.activate(&id).await;
    own(&bed, &id, true).await;
    witness.intend(intents(&grant), 0).await.expect("noted");
    for who in ["ada", "grace"] {
        operations(&bed)
            .forget_access(forget(who))
            .await
            .expect("two people");
    }
    assert_eq!(witness.open_intents().await.expect("readable"), []);
}

#[tokio::test]
async fn adopted_access_is_standing_from_then_on_and_the_receipt_names_who_said_so() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    own(&bed, &id, false).await;
    let adopt = || pb::AdoptAccessRequest {
        access: access("a"),
        requester: "grace".to_owned(),
        reason: "joins the on-call team".to_owned(),
    };
    let adopted = operations(&bed)
        .adopt_access(adopt())
        .await
        .expect("adopted")
        .into_inner();
    assert_eq!(adopted.grant_ids, std::slice::from_ref(&id));
    let again = operations(&bed).adopt_access(adopt()).await;
    assert_eq!(again.expect("known").into_inner(), adopted);
    let grant = stored(&bed, &id).await;
    assert!(grant.is_all_standing());
    let key = MemberKey {
        integration: grant.integration,
        subject: grant.subject,
    };
    let mut record = bed.ledger.member(&key).await.expect("readable");
    assert!(record.owned.is_empty(), "nothing will be removed");
    // What the engine does at the end.
    bed.access()
        .revoke_grant(revoke(&id))
        .await
        .expect("revoked");
    record = bed.ledger.member(&key).await.expect("readable");
    let mut draft = latchkey::reconcile::settle::Draft::new(record);
    draft.finish(latchkey::ports::Clock::now(bed.clock.as_ref()));
    let latchkey::reconcile::settle::Draft {
        mut record, audit, ..
    } = draft;
    latchkey::reconcile::receipt::keep(&mut record, &audit);
    bed.ledger
        .commit(MemberCommit {
            record,
            audit,
            request: None,
        })
        .await
        .expect("committed");
    let found = receipt(&bed, &id).await;
    assert_eq!(found.lines[0].fate(), pb::ReceiptFate::Adopted);
    assert_eq!(found.lines[0].given_up.as_ref().expect("named").by, "grace");
    let gone = operations(&bed)
        .adopt_access(adopt())
        .await
        .expect_err("not ours any more");
    assert_eq!(gone.code(), Code::NotFound);
}
