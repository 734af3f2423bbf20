//! The shipped law: what a control plane with every right of a control plane cannot get past it.

mod attempts;

use latchkey::api::pb;
use latchkey::domain::event::EventKind;
use latchkey::law::{CedarLaw, Source};
use latchkey::policy::Rules;
use latchkey::ports::ledger::{EventFilter, Ledger as _};
use pb::access_service_client::AccessServiceClient;
use pb::audit_service_client::AuditServiceClient;
use pb::connector_service_client::ConnectorServiceClient;
use pb::operations_service_client::OperationsServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::callers::{OTHER_PLANE, PLANE, Secured};
use super::support::*;

const HOUR: i64 = 3_600;

fn under(law: Source) -> Setup {
    let law = CedarLaw::open(law, "UTC", Rules::default()).expect("usable policies");
    Setup {
        law: Some(Arc::new(law)),
        ..Setup::default()
    }
}

/// An ask for a role on targets, changed a little.
fn ask(
    role: &str,
    targets: Vec<pb::Target>,
    change: impl FnOnce(&mut pb::GrantSpec),
) -> pb::GrantSpec {
    let mut spec = pb::GrantSpec {
        role: role.to_owned(),
        targets,
        ..spec()
    };
    change(&mut spec);
    spec
}

/// Who was refused what by which policies, the last of all.
async fn last_refusal(bed: &Bed) -> (usize, String, Vec<String>) {
    let events = bed
        .ledger
        .events(&EventFilter::default(), 0, 1_000)
        .await
        .expect("readable");
    let all: Vec<_> = events
        .into_iter()
        .filter_map(|stored| {
            let EventKind::RequestRefused { policies, .. } = stored.event.kind else {
                return None;
            };
            Some((stored.event.caller?.to_string(), policies))
        })
        .collect();
    let count = all.len();
    let (caller, policies) = all.into_iter().next_back().expect("a refusal");
    (count, caller, policies)
}

/// Compares one refusal with what it should be, on the wire and in the audit.
async fn expect(what: &str, bed: &Bed, seen: &mut usize, status: Status, code: Code, policy: &str) {
    assert_eq!(status.code(), code, "{what}: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    let told = info.metadata.get("policies").map(String::as_str);
    assert!(
        told.is_some_and(|names| names.split(", ").any(|name| name == policy)),
        "{what}: {told:?} should name {policy}"
    );
    let (count, caller, policies) = last_refusal(bed).await;
    *seen += 1;
    assert_eq!(count, *seen, "{what}: each leaves one event");
    assert_eq!(caller, "plane", "{what}");
    assert!(
        policies.iter().any(|name| name == policy),
        "{what}: {policies:?}"
    );
}

#[tokio::test]
async fn forty_attempts_of_a_control_plane_end_at_the_shipped_law_and_in_the_audit() {
    let secured = Secured::with(under(Source::Shipped)).await;
    let bed = &secured.bed;
    let channel = secured.caller(PLANE);
    let mut plane = AccessServiceClient::new(channel.clone());
    let mut other = AccessServiceClient::new(secured.caller(OTHER_PLANE));
    let mut seen = 0;

    for (number, (what, spec, code, policy)) in attempts::refused_asks().into_iter().enumerate() {
        let request = pb::CreateGrantRequest {
            request_id: format!("try-{number}"),
            spec: Some(spec.clone()),
            ..create("x")
        };
        let status = plane.create_grant(request).await.expect_err(what);
        expect(what, bed, &mut seen, status, code, policy).await;
        // Asking what would happen tells no more.
        let planned = plane
            .plan_grant(pb::PlanGrantRequest { spec: Some(spec) })
            .await
            .expect_err(what);
        assert_eq!(planned.code(), code, "{what}");
    }
    assert_eq!(bed.count().await, 0, "nothing was granted");

    // Longer, by extending.
    let half_a_day = ask("viewer", vec![on_deployment("a")], |spec| {
        spec.duration = seconds(12 * HOUR);
    });
    let created = plane
        .create_grant(pb::CreateGrantRequest {
            spec: Some(half_a_day),
            ..create("own")
        })
        .await
        .expect("lawful");
    let own = created.into_inner().grant.expect("a grant").id;
    bed.activate(&own).await;
    let too_much = plane
        .extend_grant(extend("e1", &own, 12 * HOUR + 1))
        .await
        .expect_err("too much at once");
    expect(
        "an extension by too much",
        bed,
        &mut seen,
        too_much,
        Code::PermissionDenied,
        "capped-duration",
    )
    .await;
    plane
        .extend_grant(extend("e2", &own, 12 * HOUR))
        .await
        .expect("up to the cap");
    let beyond = plane
        .extend_grant(extend("e3", &own, 1))
        .await
        .expect_err("past the cap");
    expect(
        "an extension past the cap",
        bed,
        &mut seen,
        beyond,
        Code::PermissionDenied,
        "capped-total",
    )
    .await;

    // Another caller's grant.
    let foreign = other.create_grant(create("theirs")).await.expect("lawful");
    let foreign = foreign.into_inner().grant.expect("a grant").id;
    bed.activate(&foreign).await;
    const OWN: &str = "latchkey.own-rows-only";
    let status = plane
        .revoke_grant(revoke(&foreign))
        .await
        .expect_err("not theirs");
    expect(
        "ending another's grant",
        bed,
        &mut seen,
        status,
        Code::NotFound,
        OWN,
    )
    .await;
    let status = plane
        .extend_grant(extend("e4", &foreign, 60))
        .await
        .expect_err("not theirs");
    expect(
        "extending another's grant",
        bed,
        &mut seen,
        status,
        Code::NotFound,
        OWN,
    )
    .await;
    let get = pb::GetGrantRequest {
        grant_id: foreign.clone(),
    };
    let status = plane.get_grant(get).await.expect_err("not theirs");
    assert_eq!(status.code(), Code::NotFound);
    let receipt = pb::GetReceiptRequest { grant_id: foreign };
    let status = AuditServiceClient::new(channel.clone())
        .get_receipt(receipt)
        .await
        .expect_err("not theirs");
    assert_eq!(status.code(), Code::NotFound);

    // What is for operators.
    const ROLES: &str = "latchkey.roles-of-callers";
    let mut operations = OperationsServiceClient::new(channel.clone());
    let mut connector = ConnectorServiceClient::new(channel);
    let mut refused = Vec::new();
    refused.push(
        operations
            .forget_access(pb::ForgetAccessRequest::default())
            .await
            .map(drop),
    );
    refused.push(
        operations
            .adopt_access(pb::AdoptAccessRequest::default())
            .await
            .map(drop),
    );
    refused.push(
        operations
            .list_overdue(pb::ListOverdueRequest::default())
            .await
            .map(drop),
    );
    refused.push(connector.drain(pb::DrainRequest::default()).await.map(drop));
    refused.push(
        connector
            .confirm_reapply(pb::ConfirmReapplyRequest::default())
            .await
            .map(drop),
    );
    refused.push(
        connector
            .get_hold(pb::GetHoldRequest::default())
            .await
            .map(drop),
    );
    refused.push(
        connector
            .release_hold(pb::ReleaseHoldRequest::default())
            .await
            .map(drop),
    );
    for result in refused {
        let status = result.expect_err("for operators");
        assert_eq!(status.code(), Code::PermissionDenied);
        seen += 1;
    }
    let (count, _, policies) = last_refusal(bed).await;
    assert_eq!((count, policies), (seen, vec![ROLES.to_owned()]));
    assert!(seen >= 40, "{seen} attempts");
}

#[tokio::test]
async fn a_permitted_grant_says_in_the_audit_which_policies_permitted_it() {
    let bed = Bed::with(under(Source::Shipped)).await;
    bed.grant("r1").await;
    let events = bed
        .ledger
        .events(&EventFilter::default(), 0, 10)
        .await
        .expect("readable");
    let permitted = events.into_iter().find_map(|stored| {
        if let EventKind::GrantAccepted { policies, .. } = stored.event.kind {
            Some(policies)
        } else {
            None
        }
    });
    assert_eq!(permitted, Some(vec!["control-planes-may-ask".to_owned()]));
}

#[tokio::test]
async fn a_law_of_the_customers_sees_tags_and_what_the_member_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("production-by-day") forbid (principal, action == Latchkey::Action::"create", resource)
        when { context.any_tags.contains("env=prod") && context.local.hour < 8 };
        @id("two-at-once") forbid (principal, action == Latchkey::Action::"create", resource)
        when { context.current.grants >= 2 };
        @id("no-looks-at-access") forbid (principal, action == Latchkey::Action::"read", resource)
        when { context.what == "access" };
        @id("nobody-ends-early") forbid (principal, action == Latchkey::Action::"revoke", resource);
    "#;
    std::fs::write(folder.path().join("law.cedar"), text).expect("written");
    let bed = Bed::with(under(Source::Directory(folder.path().to_owned()))).await;
    bed.provider.script(|org| {
        org.deployments[1].tags = vec![("env".to_owned(), "prod".to_owned())];
    });
    let refused = |status: Status| {
        let details = status.get_error_details();
        let info = details.error_info().expect("a reason");
        (
            status.code(),
            info.reason.clone(),
            info.metadata.get("policies").cloned().unwrap_or_default(),
        )
    };
    let by = |policy: &str| {
        (
            Code::PermissionDenied,
            "LAW_REFUSED".to_owned(),
            policy.to_owned(),
        )
    };
    let production = |id: &str| pb::CreateGrantRequest {
        spec: Some(ask("viewer", vec![on_deployment("b")], |_| {})),
        ..create(id)
    };
    let night = bed.access().create_grant(production("r1")).await;
    assert_eq!(
        refused(night.expect_err("at night")),
        by("production-by-day")
    );
    bed.clock.advance(Duration::from_secs(9 * 3_600));
    bed.access()
        .create_grant(production("r2"))
        .await
        .expect("by day");
    let second = bed.grant("r3").await.id;
    let third = bed.access().create_grant(create("r4")).await;
    assert_eq!(refused(third.expect_err("a third")), by("two-at-once"));
    let look = pb::ExplainAccessRequest {
        integration: "main".to_owned(),
        member: email("ada@example.com"),
    };
    let look = bed.access().explain_access(look).await;
    assert_eq!(refused(look.expect_err("a look")), by("no-looks-at-access"));
    let end = bed.access().revoke_grant(revoke(&second)).await;
    assert_eq!(refused(end.expect_err("an end")), by("nobody-ends-early"));
}
