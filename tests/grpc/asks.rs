//! Requests as tests send them.

use latchkey::api::pb;

use super::support::at;

pub(crate) fn email(address: &str) -> Option<pb::Principal> {
    Some(pb::Principal {
        kind: Some(pb::principal::Kind::Email(address.to_owned())),
    })
}

pub(crate) fn by_id(id: &str) -> Option<pb::Principal> {
    Some(pb::Principal {
        kind: Some(pb::principal::Kind::UserId(id.to_owned())),
    })
}

pub(crate) fn on_deployment(id: &str) -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::Deployment(pb::DeploymentTarget {
            deployment_id: id.to_owned(),
        })),
    }
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn instant(text: &str) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: at(text).timestamp(),
        nanos: 0,
    })
}

/// An hour of deployment-viewer on deployment `a` for Ada.
pub(crate) fn spec() -> pb::GrantSpec {
    pb::GrantSpec {
        integration: "main".to_owned(),
        beneficiary: email("Ada@Example.com"),
        requester: "ada".to_owned(),
        justification: "look at a slow query".to_owned(),
        role: "viewer".to_owned(),
        targets: vec![on_deployment("a")],
        application_roles: None,
        duration: seconds(3600),
        starts_at: None,
        not_after: None,
        invite: false,
    }
}

pub(crate) fn create(request_id: &str) -> pb::CreateGrantRequest {
    pb::CreateGrantRequest {
        request_id: request_id.to_owned(),
        spec: Some(spec()),
        wait: pb::GrantWait::Accepted.into(),
        ..pb::CreateGrantRequest::default()
    }
}

pub(crate) fn create_with(
    request_id: &str,
    change: impl FnOnce(&mut pb::GrantSpec),
) -> pb::CreateGrantRequest {
    let mut spec = spec();
    change(&mut spec);
    pb::CreateGrantRequest {
        spec: Some(spec),
        ..create(request_id)
    }
}

pub(crate) fn revoke(id: &str) -> pb::RevokeGrantRequest {
    pb::RevokeGrantRequest {
        which: Some(pb::revoke_grant_request::Which::GrantId(id.to_owned())),
        requester: "ops".to_owned(),
        reason: "done".to_owned(),
    }
}

pub(crate) fn extend(request_id: &str, id: &str, by: i64) -> pb::ExtendGrantRequest {
    pb::ExtendGrantRequest {
        request_id: request_id.to_owned(),
        grant_id: id.to_owned(),
        duration: seconds(by),
        requester: String::new(),
        reason: String::new(),
        ..pb::ExtendGrantRequest::default()
    }
}
