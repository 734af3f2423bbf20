//! Extending, revoking, off-boarding, draining; and that ids are not capabilities.

use std::time::Duration;

use latchkey::api::pb;
use latchkey::domain::member::DueKind;
use latchkey::ports::provider::ReadError;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::*;

const UNKNOWN: &str = "0190a6d8-1b2c-7def-8123-456789abcdef";

fn reason(status: &tonic::Status) -> String {
    status
        .get_error_details()
        .error_info()
        .expect("a reason")
        .reason
        .clone()
}

#[tokio::test]
async fn a_foreign_grant_looks_exactly_like_one_that_does_not_exist() {
    let mut bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    let mut stranger = bed.stranger().await;
    let seen = |status: tonic::Status| {
        (
            status.code(),
            status.message().to_owned(),
            status.details().to_vec(),
        )
    };
    let get = |id: &str| pb::GetGrantRequest {
        grant_id: id.to_owned(),
    };
    let foreign = stranger.get_grant(get(&id)).await.expect_err("foreign");
    let unknown = stranger.get_grant(get(UNKNOWN)).await.expect_err("unknown");
    assert_eq!(foreign.code(), Code::NotFound);
    assert_eq!(seen(foreign), seen(unknown));
    let foreign = stranger
        .revoke_grant(revoke(&id))
        .await
        .expect_err("foreign");
    let unknown = stranger
        .revoke_grant(revoke(UNKNOWN))
        .await
        .expect_err("unknown");
    assert_eq!(seen(foreign), seen(unknown));
    let foreign = stranger
        .extend_grant(extend("x1", &id, 60))
        .await
        .expect_err("foreign");
    let unknown = stranger
        .extend_grant(extend("x2", UNKNOWN, 60))
        .await
        .expect_err("unknown");
    assert_eq!(seen(foreign), seen(unknown));
    let listed = stranger
        .list_grants(pb::ListGrantsRequest::default())
        .await
        .expect("listed")
        .into_inner();
    assert!(listed.grants.is_empty());
    let mine = bed
        .access()
        .get_grant(get(&id))
        .await
        .expect("mine")
        .into_inner();
    assert_eq!(mine.grant.expect("a grant").state(), pb::GrantState::Active);
    // The same request id of another caller is another request.
    stranger.create_grant(create("r1")).await.expect("accepted");
    assert_eq!(bed.count().await, 2);
}

#[tokio::test]
async fn a_revocation_is_durable_wakes_the_engine_and_keeps_its_first_cause() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    for (who, why) in [("ops", "done"), ("late", "again")] {
        let request = pb::RevokeGrantRequest {
            requester: who.to_owned(),
            reason: why.to_owned(),
            ..revoke(&id)
        };
        let grant = bed
            .access()
            .revoke_grant(request)
            .await
            .expect("revoked")
            .into_inner()
            .grant
            .expect("a grant");
        assert_eq!(grant.state(), pb::GrantState::Revoking);
        let cause = grant.end_cause.expect("a cause");
        assert_eq!((cause.by.as_str(), cause.comment.as_str()), ("ops", "done"));
    }
    let rung = bed.bell.0.lock().expect("not poisoned").last().cloned();
    assert_eq!(rung.map(|(_, due)| due.kind), Some(DueKind::Remove));
    let status = bed
        .access()
        .extend_grant(extend("x1", &id, 60))
        .await
        .expect_err("removal wins");
    assert_eq!(status.code(), Code::FailedPrecondition);
    bed.finish(&id).await;
    let again = bed
        .access()
        .revoke_grant(revoke(&id))
        .await
        .expect("harmless");
    assert_eq!(
        again.into_inner().grant.expect("a grant").state(),
        pb::GrantState::Ended
    );
}

#[tokio::test]
async fn a_revocation_that_overtakes_its_grant_closes_the_request_id() {
    let bed = Bed::start().await;
    let overtaking = pb::RevokeGrantRequest {
        which: Some(pb::revoke_grant_request::Which::GrantRequestId(
            "r1".to_owned(),
        )),
        requester: String::new(),
        reason: String::new(),
    };
    for _ in 0..2 {
        let answer = bed
            .access()
            .revoke_grant(overtaking.clone())
            .await
            .expect("closed")
            .into_inner();
        assert!(answer.tombstoned);
    }
    let status = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect_err("it was revoked before");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "REQUEST_CLOSED")
    );
    assert_eq!(bed.count().await, 0);

    let id = bed.grant("r2").await.id;
    let by_request = pb::RevokeGrantRequest {
        which: Some(pb::revoke_grant_request::Which::GrantRequestId(
            "r2".to_owned(),
        )),
        ..overtaking
    };
    let answer = bed
        .access()
        .revoke_grant(by_request)
        .await
        .expect("revoked")
        .into_inner();
    assert_eq!(answer.grant.expect("a grant").id, id);
}

#[tokio::test]
async fn a_scheduled_grant_waits_for_its_start_and_is_withdrawn_at_once() {
    let bed = Bed::start().await;
    let later = create_with("r1", |spec| {
        spec.starts_at = instant("2026-01-02T00:00:00Z")
    });
    let grant = bed
        .access()
        .create_grant(later)
        .await
        .expect("accepted")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(grant.state(), pb::GrantState::Scheduled);
    let due = bed.bell.0.lock().expect("not poisoned")[0].1;
    assert_eq!(due.at, at("2026-01-02T00:00:00Z"));
    let revoked = bed
        .access()
        .revoke_grant(revoke(&grant.id))
        .await
        .expect("revoked");
    let revoked = revoked.into_inner().grant.expect("a grant");
    assert_eq!(revoked.state(), pb::GrantState::Ended);
    assert_eq!(
        revoked.end_cause.expect("a cause").reason(),
        pb::EndReason::Withdrawn
    );
}

#[tokio::test]
async fn an_extension_happens_once_for_each_request_id_and_never_past_the_cap() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    let early = bed
        .access()
        .extend_grant(extend("x0", &id, 60))
        .await
        .expect_err("not active yet");
    assert_eq!(early.code(), Code::FailedPrecondition);
    bed.activate(&id).await;

    let mut racing = JoinSet::new();
    for _ in 0..20 {
        let (mut access, request) = (bed.access(), extend("x1", &id, 600));
        racing.spawn(async move {
            let answer = access.extend_grant(request).await.expect("extended");
            answer.into_inner().grant.expect("a grant").expires_at
        });
    }
    for end in racing.join_all().await {
        assert_eq!(end, instant("2026-01-01T01:10:00Z"));
    }
    let other = bed
        .access()
        .extend_grant(extend("x1", &id, 601))
        .await
        .expect_err("another body");
    assert_eq!(other.code(), Code::AlreadyExists);
    let reused = bed
        .access()
        .extend_grant(extend("r1", &id, 60))
        .await
        .expect_err("the grant's own id");
    assert_eq!(reused.code(), Code::AlreadyExists);

    let mut end = None;
    for round in 0..2 {
        let request = extend(&format!("y{round}"), &id, 12 * 3600);
        let answer = bed.access().extend_grant(request).await.expect("extended");
        end = answer.into_inner().grant.expect("a grant").expires_at;
    }
    assert_eq!(
        end,
        instant("2026-01-02T00:00:00Z"),
        "24 h from activation on"
    );
    let full = bed
        .access()
        .extend_grant(extend("z", &id, 60))
        .await
        .expect_err("nothing left");
    assert_eq!(
        (full.code(), reason(&full).as_str()),
        (Code::PermissionDenied, "TOTAL_REACHED")
    );
}

#[tokio::test]
async fn an_extension_after_the_end_is_refused_even_before_the_engine_noticed() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    bed.clock.advance(Duration::from_secs(3600));
    let status = bed
        .access()
        .extend_grant(extend("x1", &id, 60))
        .await
        .expect_err("its end has come");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "WRONG_STATE")
    );
}

fn bulk(
    request_id: &str,
    selector: pb::revoke_access_request::Selector,
) -> pb::RevokeAccessRequest {
    pb::RevokeAccessRequest {
        request_id: request_id.to_owned(),
        integration: String::new(),
        selector: Some(selector),
        requester: "ops".to_owned(),
        reason: "off-boarding".to_owned(),
        max_members: 0,
    }
}

#[tokio::test]
async fn off_boarding_ends_everything_of_one_member_and_a_repeat_does_nothing_more() {
    use pb::revoke_access_request::Selector;
    let mut bed = Bed::start().await;
    bed.grant("r1").await;
    let by_user = create_with("r2", |spec| spec.beneficiary = by_id("1"));
    let mut stranger = bed.stranger().await;
    stranger.create_grant(by_user).await.expect("accepted");
    let bob = create_with("r3", |spec| spec.beneficiary = by_id("2"));
    bed.access().create_grant(bob).await.expect("accepted");

    let who = email("ADA@example.com").expect("an address");
    let request = bulk("b1", Selector::Member(who));
    let answer = bed
        .access()
        .revoke_access(request.clone())
        .await
        .expect("revoked")
        .into_inner();
    assert_eq!((answer.revoked, answer.replayed), (2, false));
    bed.grant("r4").await;
    let again = bed
        .access()
        .revoke_access(request)
        .await
        .expect("replayed")
        .into_inner();
    assert_eq!((again.revoked, again.replayed), (0, true));
    let mut reused = bulk("b1", Selector::Everything(true));
    reused.reason = "other".to_owned();
    let status = bed
        .access()
        .revoke_access(reused)
        .await
        .expect_err("another body");
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn off_boarding_by_address_goes_as_far_as_the_ledger_knows_while_upstream_is_away() {
    use pb::revoke_access_request::Selector;
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.clock.advance(Duration::from_secs(3600));
    bed.provider.script(|org| {
        org.down = Some(ReadError::Unavailable {
            code: "timeout".to_owned(),
        });
    });
    let request = bulk(
        "b1",
        Selector::Member(email("ada@example.com").expect("an address")),
    );
    let status = bed
        .access()
        .revoke_access(request.clone())
        .await
        .expect_err("the address could not be resolved");
    assert_eq!(status.code(), Code::Unavailable);
    let grant = bed
        .access()
        .get_grant(pb::GetGrantRequest { grant_id: id })
        .await
        .expect("known");
    assert_eq!(
        grant.into_inner().grant.expect("a grant").state(),
        pb::GrantState::Revoking
    );
    bed.provider.script(|org| org.down = None);
    let answer = bed
        .access()
        .revoke_access(request)
        .await
        .expect("done")
        .into_inner();
    assert_eq!(
        (answer.revoked, answer.already_ending, answer.replayed),
        (0, 1, false)
    );
}

#[tokio::test]
async fn revoking_a_target_that_many_hold_asks_first_and_the_kill_switch_does_not() {
    use pb::revoke_access_request::Selector;
    let bed = Bed::start().await;
    for id in ["1", "2", "3"] {
        let request = create_with(&format!("r{id}"), |spec| spec.beneficiary = by_id(id));
        bed.access().create_grant(request).await.expect("accepted");
    }
    let other = create_with("rb", |spec| spec.targets = vec![on_deployment("b")]);
    bed.access().create_grant(other).await.expect("accepted");
    let request = bulk("b1", Selector::Target(on_deployment("a")));
    let status = bed
        .access()
        .revoke_access(request.clone())
        .await
        .expect_err("three members");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "TOO_MANY_MEMBERS")
    );
    let sure = pb::RevokeAccessRequest {
        max_members: 3,
        ..request
    };
    let answer = bed
        .access()
        .revoke_access(sure)
        .await
        .expect("revoked")
        .into_inner();
    assert_eq!(answer.revoked, 3);
    let unset = bulk("b2", Selector::Everything(false));
    let status = bed
        .access()
        .revoke_access(unset)
        .await
        .expect_err("must be said");
    assert_eq!(status.code(), Code::InvalidArgument);
    let all = bulk("b3", Selector::Everything(true));
    let answer = bed
        .access()
        .revoke_access(all)
        .await
        .expect("revoked")
        .into_inner();
    assert_eq!((answer.revoked, answer.already_ending), (1, 3));
}

#[tokio::test]
async fn draining_refuses_new_grants_and_tells_what_is_left() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    let request = pb::DrainRequest {
        integration: String::new(),
        all_integrations: true,
        requester: String::new(),
        reason: "uninstalling".to_owned(),
    };
    let first = bed
        .connector()
        .drain(request.clone())
        .await
        .expect("drains")
        .into_inner();
    assert_eq!((first.revoked, first.grants), (1, 1));
    let status = bed
        .access()
        .create_grant(create("r2"))
        .await
        .expect_err("it drains");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    let replayed = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect("a repeat is answered");
    assert!(replayed.into_inner().replayed);
    bed.finish(&id).await;
    let last = bed
        .connector()
        .drain(request)
        .await
        .expect("drains")
        .into_inner();
    assert_eq!(
        (last.revoked, last.grants, last.owned_assignments),
        (0, 0, 0)
    );
    let neither = pb::DrainRequest {
        reason: "x".to_owned(),
        ..pb::DrainRequest::default()
    };
    let status = bed.connector().drain(neither).await.expect_err("of what?");
    assert_eq!(status.code(), Code::InvalidArgument);
}
