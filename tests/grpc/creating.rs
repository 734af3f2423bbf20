//! Accepting grants: idempotency, look-ups, refusals, waiting.

use std::sync::atomic::Ordering;
use std::time::Duration;

use latchkey::api::pb;
use latchkey::domain::observation::Incomplete;
use latchkey::ports::Ledger;
use latchkey::ports::ledger::EventFilter;
use latchkey::ports::provider::{ReadError, Refusal};
use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::support::*;

#[tokio::test]
async fn a_repeat_answers_the_same_grant_without_asking_elastic_cloud() {
    let bed = Bed::start().await;
    let first = bed.grant("r1").await;
    assert_eq!(first.state(), pb::GrantState::Activating);
    assert_eq!(first.role, "deployment-viewer");
    assert_eq!(first.user_id, "1");
    assert_eq!(first.beneficiary, "ada@example.com");
    assert_eq!(bed.bell.0.lock().expect("not poisoned").len(), 1);

    bed.provider.script(|org| {
        org.down = Some(ReadError::Unavailable {
            code: "timeout".to_owned(),
        });
    });
    let reads = bed.provider.member_reads.load(Ordering::SeqCst);
    let again = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect("replayed")
        .into_inner();
    assert!(again.replayed);
    assert_eq!(again.grant.expect("a grant").id, first.id);
    assert_eq!(bed.provider.member_reads.load(Ordering::SeqCst), reads);
}

#[tokio::test]
async fn the_same_request_id_with_another_body_is_refused_without_effect_and_audited() {
    let bed = Bed::start().await;
    bed.grant("r1").await;
    let other = create_with("r1", |spec| spec.duration = seconds(60));
    let status = bed
        .access()
        .create_grant(other)
        .await
        .expect_err("the id is taken");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(bed.count().await, 1);
    let refusals = bed
        .ledger
        .events(
            &EventFilter {
                kinds: vec!["request_refused".to_owned()],
                ..EventFilter::default()
            },
            0,
            10,
        )
        .await
        .expect("readable");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

#[tokio::test]
async fn racing_repeats_become_one_grant() {
    let bed = Bed::start().await;
    let mut racing = JoinSet::new();
    for _ in 0..40 {
        let mut access = bed.access();
        racing.spawn(async move {
            access
                .create_grant(create("r1"))
                .await
                .expect("accepted")
                .into_inner()
                .grant
                .expect("a grant")
                .id
        });
    }
    let mut ids = racing.join_all().await;
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(bed.count().await, 1);
    assert!(
        bed.provider.member_reads.load(Ordering::SeqCst) < 40,
        "reads were shared"
    );
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_with_its_code_and_reason() {
    type Change = fn(&mut pb::GrantSpec);
    let bed = Bed::start().await;
    bed.provider.script(|org| {
        for id in ["5", "6"] {
            org.members.insert(user(id), member(id, "twin@example.com"));
        }
    });
    let rows: &[(Change, Code, &str)] = &[
        (
            |s| s.integration = "other".to_owned(),
            Code::NotFound,
            "INTEGRATION_UNKNOWN",
        ),
        (
            |s| s.beneficiary = by_id("77"),
            Code::NotFound,
            "NOT_A_MEMBER",
        ),
        (
            |s| s.beneficiary = email("no@example.com"),
            Code::NotFound,
            "NOT_A_MEMBER",
        ),
        (
            |s| s.beneficiary = email("twin@example.com"),
            Code::FailedPrecondition,
            "MEMBER_AMBIGUOUS",
        ),
        (
            |s| s.beneficiary = by_id("9"),
            Code::PermissionDenied,
            "OWN_IDENTITY",
        ),
        (
            |s| s.beneficiary = email("KEY@example.com"),
            Code::PermissionDenied,
            "OWN_IDENTITY",
        ),
        (
            |s| s.targets = vec![on_deployment("a"), on_deployment("zz")],
            Code::NotFound,
            "RESOURCE_UNKNOWN",
        ),
        (
            |s| s.role = "owner".to_owned(),
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| s.role = "elasticsearch-admin".to_owned(),
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| {
                s.targets.push(pb::Target {
                    kind: Some(pb::target::Kind::Organization(pb::OrganizationTarget {})),
                });
            },
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| s.targets.clear(),
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| {
                s.role = "organization-admin".to_owned();
                s.targets = vec![pb::Target {
                    kind: Some(pb::target::Kind::Organization(pb::OrganizationTarget {})),
                }];
            },
            Code::PermissionDenied,
            "ORGANIZATION_ROLES_DISABLED",
        ),
        (
            |s| {
                s.targets = vec![pb::Target {
                    kind: Some(pb::target::Kind::AllDeployments(
                        pb::AllDeploymentsTarget {},
                    )),
                }];
            },
            Code::PermissionDenied,
            "ALL_TARGETS_DISABLED",
        ),
        (
            |s| s.duration = seconds(13 * 3600),
            Code::PermissionDenied,
            "DURATION_TOO_LONG",
        ),
        (
            |s| s.duration = seconds(0),
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| s.duration = None,
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
        (
            |s| s.not_after = instant(START),
            Code::InvalidArgument,
            "NOT_AFTER_PAST",
        ),
        (
            |s| s.starts_at = instant("2027-01-01T00:00:00Z"),
            Code::PermissionDenied,
            "START_TOO_LATE",
        ),
        (
            |s| {
                s.beneficiary = by_id("77");
                s.invite = true;
            },
            Code::InvalidArgument,
            "FIELD_INVALID",
        ),
    ];
    for (index, (change, code, reason)) in rows.iter().enumerate() {
        let request = create_with(&format!("r{index}"), change);
        let status = bed
            .access()
            .create_grant(request)
            .await
            .expect_err("refused");
        let details = status.get_error_details();
        let info = details.error_info().expect("a reason");
        assert_eq!(
            (status.code(), info.reason.as_str(), info.domain.as_str()),
            (*code, *reason, "latchkey.dev"),
            "row {index}: {status:?}"
        );
        // A plan is refused for the same reasons.
        let plan = pb::PlanGrantRequest {
            spec: create_with("p", change).spec,
            ..pb::PlanGrantRequest::default()
        };
        let planned = bed.access().plan_grant(plan).await.expect_err("refused");
        assert_eq!(planned.code(), *code, "row {index}: {planned:?}");
    }
    assert_eq!(bed.count().await, 0);
}

#[tokio::test]
async fn a_filtered_list_never_proves_that_somebody_is_not_a_member() {
    let bed = Bed::start().await;
    bed.provider
        .script(|org| org.incomplete = Some(Incomplete::KeyIsNotOwner));
    let nobody = create_with("r1", |spec| {
        spec.beneficiary = email("no@example.com");
        spec.invite = true;
    });
    let status = bed
        .access()
        .create_grant(nobody)
        .await
        .expect_err("nobody can tell");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status
            .get_error_details()
            .error_info()
            .expect("a reason")
            .reason,
        "MEMBER_NOT_SHOWN"
    );
    // Presence is proven by any read.
    bed.grant("r2").await;
}

#[tokio::test]
async fn upstream_failures_are_told_apart_and_their_text_stays_inside() {
    let bed = Bed::start().await;
    let canary = || "canary-inner-text".to_owned();
    let rows = [
        (ReadError::Unavailable { code: canary() }, Code::Unavailable),
        (
            ReadError::Refused(Refusal::Unauthenticated { code: canary() }),
            Code::Unavailable,
        ),
        (
            ReadError::Refused(Refusal::Forbidden { code: canary() }),
            Code::FailedPrecondition,
        ),
        (
            ReadError::Refused(Refusal::Throttled {
                retry_after: Some(Duration::from_secs(7)),
            }),
            Code::Unavailable,
        ),
    ];
    for (error, code) in rows {
        bed.provider.script(|org| org.down = Some(error.clone()));
        let status = bed
            .access()
            .create_grant(create("r1"))
            .await
            .expect_err("upstream is away");
        assert_eq!(status.code(), code, "{status:?}");
        assert!(!format!("{status:?}").contains("canary"), "{status:?}");
        if matches!(error, ReadError::Refused(Refusal::Throttled { .. })) {
            let delay = status
                .get_error_details()
                .retry_info()
                .and_then(|info| info.retry_delay);
            assert_eq!(delay, Some(Duration::from_secs(7)));
        }
    }
    assert_eq!(bed.count().await, 0);
}

#[tokio::test]
async fn no_grant_outlives_the_key_that_has_to_take_it_away() {
    let bed = Bed::start().await;
    bed.provider
        .script(|org| org.key.expires_at = Some(at("2026-01-01T01:00:00Z")));
    let status = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect_err("it would outlive the key");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("2026-01-01T01:00:00Z"),
        "{status:?}"
    );
    let shorter = create_with("r2", |spec| spec.duration = seconds(1800));
    bed.access().create_grant(shorter).await.expect("accepted");
    let hard_end = create_with("r3", |spec| {
        spec.not_after = instant("2026-01-01T00:30:00Z")
    });
    bed.access().create_grant(hard_end).await.expect("accepted");
}

#[tokio::test]
async fn a_deployment_that_was_made_a_moment_ago_is_found_by_one_more_look() {
    let bed = Bed::start().await;
    bed.grant("r1").await;
    assert_eq!(bed.provider.deployment_reads.load(Ordering::SeqCst), 1);
    bed.provider
        .script(|org| org.deployments.push(deployment("new")));
    bed.clock.advance(Duration::from_secs(1));
    let request = create_with("r2", |spec| spec.targets = vec![on_deployment("new")]);
    bed.access().create_grant(request).await.expect("accepted");
    assert_eq!(bed.provider.deployment_reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn someone_who_is_not_a_member_is_waited_for_when_asked_to() {
    let bed = Bed::start().await;
    let request = create_with("r1", |spec| {
        spec.beneficiary = email("New@Example.com");
        spec.invite = true;
    });
    let grant = bed
        .access()
        .create_grant(request)
        .await
        .expect("accepted")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(grant.state(), pb::GrantState::AwaitingMember);
    assert_eq!(grant.lapses_at, instant("2026-01-04T00:00:00Z"));
    assert_eq!(grant.user_id, "");
    let revoked = bed
        .access()
        .revoke_grant(revoke(&grant.id))
        .await
        .expect("revoked")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(revoked.state(), pb::GrantState::Ended);
    assert_eq!(
        revoked.end_cause.expect("a cause").reason(),
        pb::EndReason::Withdrawn
    );
}

#[tokio::test]
async fn repeated_targets_count_once_and_at_most_a_hundred_are_taken() {
    let bed = Bed::start().await;
    let twice = create_with("r1", |spec| {
        spec.targets = vec![on_deployment("b"), on_deployment("a"), on_deployment("b")];
    });
    let grant = bed.access().create_grant(twice).await.expect("accepted");
    let grant = grant.into_inner().grant.expect("a grant");
    assert_eq!(grant.assignments.len(), 2);
    let many = create_with("r2", |spec| spec.targets = vec![on_deployment("a"); 101]);
    let status = bed.access().create_grant(many).await.expect_err("too many");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn hostile_text_is_refused_in_every_field() {
    type Put = fn(&mut pb::CreateGrantRequest, String);
    fn spec_of(request: &mut pb::CreateGrantRequest) -> &mut pb::GrantSpec {
        request.spec.as_mut().expect("a spec")
    }
    let fields: &[(&str, Put)] = &[
        ("request_id", |r, text| r.request_id = text),
        ("spec.integration", |r, text| spec_of(r).integration = text),
        ("spec.requester", |r, text| spec_of(r).requester = text),
        ("spec.justification", |r, text| {
            spec_of(r).justification = text
        }),
        ("spec.role", |r, text| spec_of(r).role = text),
        ("spec.beneficiary.user_id", |r, text| {
            spec_of(r).beneficiary = by_id(&text)
        }),
        ("spec.beneficiary.email", |r, text| {
            spec_of(r).beneficiary = email(&text)
        }),
        ("spec.targets[0].deployment.deployment_id", |r, text| {
            spec_of(r).targets = vec![on_deployment(&text)];
        }),
        ("spec.targets[0].project.project_id", |r, text| {
            spec_of(r).targets = vec![pb::Target {
                kind: Some(pb::target::Kind::Project(pb::ProjectTarget {
                    project_type: pb::ProjectType::Security.into(),
                    project_id: text,
                })),
            }];
        }),
        ("spec.application_roles.names[0]", |r, text| {
            spec_of(r).application_roles = Some(pb::ApplicationRoles { names: vec![text] });
        }),
    ];
    let texts = [
        "a\0b".to_owned(),
        "a\nb".to_owned(),
        "\u{1b}[31mred".to_owned(),
        "a\u{202e}b".to_owned(),
        "x".repeat(2000),
    ];
    let bed = Bed::start().await;
    for (field, put) in fields {
        for text in &texts {
            let mut request = create("hostile");
            put(&mut request, text.clone());
            let status = bed
                .access()
                .create_grant(request)
                .await
                .expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
            let details = status.get_error_details();
            let violations = &details
                .bad_request()
                .expect("a bad request")
                .field_violations;
            assert_eq!(violations[0].field, *field, "{text:?}");
            assert!(!status.message().contains('\u{1b}'), "{status:?}");
            assert!(status.message().len() < 500, "{status:?}");
        }
    }
    assert_eq!(bed.count().await, 0);
}

#[tokio::test]
async fn waiting_for_access_answers_when_it_was_verified() {
    let bed = Bed::start().await;
    let mut access = bed.access();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let mut request = create("r1");
        request.wait = pb::GrantWait::Active.into();
        access.create_grant(request).await
    });
    let mut changes = bed.ledger.changes();
    changes
        .wait_for(|sequence| *sequence > 1)
        .await
        .expect("accepted");
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    let answered = waiting
        .join_next()
        .await
        .expect("one call")
        .expect("no panic")
        .expect("answered")
        .into_inner();
    let grant = answered.grant.expect("a grant");
    assert_eq!(grant.id, id);
    assert_eq!(grant.state(), pb::GrantState::Active);
    assert_eq!(grant.expires_at, instant("2026-01-01T01:00:00Z"));
}

#[tokio::test]
async fn a_deadline_answers_the_grant_as_it_stands_before_it_passes() {
    let bed = Bed::start().await;
    let mut request = Request::new(pb::CreateGrantRequest {
        wait: pb::GrantWait::Active.into(),
        ..create("r1")
    });
    request.set_timeout(Duration::from_millis(600));
    let grant = bed
        .access()
        .create_grant(request)
        .await
        .expect("answered in time")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(grant.state(), pb::GrantState::Activating);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_lose_the_accepted_grant() {
    let bed = Bed::start().await;
    let mut changes = bed.ledger.changes();
    {
        let mut access = bed.access();
        let mut request = create("r1");
        request.wait = pb::GrantWait::Active.into();
        let call = access.create_grant(request);
        tokio::select! {
            answered = call => panic!("nobody activates it: {answered:?}"),
            accepted = changes.wait_for(|sequence| *sequence > 1) => { accepted.expect("accepted"); }
        }
    }
    let again = bed
        .access()
        .create_grant(create("r1"))
        .await
        .expect("replayed")
        .into_inner();
    assert!(again.replayed);
    assert_eq!(bed.count().await, 1);
}

#[tokio::test]
async fn a_plan_shows_the_calls_and_their_inverse_and_changes_nothing() {
    let bed = Bed::start().await;
    bed.provider.script(|org| {
        let ada = org.members.get_mut(&user("1")).expect("Ada");
        ada.assignments.insert(assignment("deployment-viewer", "b"));
    });
    let mut spec = spec();
    spec.targets = vec![on_deployment("a"), on_deployment("b")];
    let plan = bed
        .access()
        .plan_grant(pb::PlanGrantRequest {
            spec: Some(spec),
            ..pb::PlanGrantRequest::default()
        })
        .await
        .expect("planned")
        .into_inner();
    let methods: Vec<&str> = plan
        .calls
        .iter()
        .chain(&plan.inverse_calls)
        .map(|call| call.method.as_str())
        .collect();
    assert_eq!(methods, ["POST", "DELETE"]);
    assert_eq!(plan.calls[0].body, "deployment-viewer on deployment/a");
    let standing: Vec<bool> = plan.assignments.iter().map(|one| one.is_standing).collect();
    assert_eq!(standing, [false, true]);
    assert_eq!(bed.count().await, 0);
}
