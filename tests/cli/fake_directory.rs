//! The directory and the connector service of the fake: fixed answers.

use std::collections::HashMap;

use latchkey::api::pb;
use latchkey::api::pb::connector_service_server::ConnectorService;
use latchkey::api::pb::directory_service_server::DirectoryService;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fake::{Service, assignment, at, deployment, wire};

pub(crate) fn unknown_integration() -> Status {
    let details =
        ErrorDetails::with_error_info("INTEGRATION_UNKNOWN", "latchkey.dev", HashMap::new());
    Status::with_error_details(
        Code::NotFound,
        "no integration of that name is configured; ListIntegrations names them",
        details,
    )
}

fn not_here() -> Status {
    Status::unimplemented("not needed by these tests")
}

#[tonic::async_trait]
impl DirectoryService for Service {
    async fn list_organizations(
        &self,
        _: Request<pb::ListOrganizationsRequest>,
    ) -> Result<Response<pb::ListOrganizationsResponse>, Status> {
        Err(not_here())
    }

    /// Two pages, so that a command that reads one page is found out.
    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let member = |id: &str, email: &str, name: &str| pb::Member {
            user_id: id.to_owned(),
            email: email.to_owned(),
            name: name.to_owned(),
            member_since: wire(at("2025-01-02T03:04:05Z")),
            assignments: vec![assignment("deployment-viewer", deployment("d2"))],
        };
        let (members, next_page_token) = if request.into_inner().page_token.is_empty() {
            (
                vec![member("101", "ada@example.com", "Ada Lovelace")],
                "2".to_owned(),
            )
        } else {
            let twins = vec![
                member("102", "grace@example.com", "Grace Hopper"),
                member("103", "grace@example.org", "Grace Hopper"),
            ];
            (twins, String::new())
        };
        Ok(Response::new(pb::ListMembersResponse {
            members,
            next_page_token,
            total_size: 3,
            is_complete: true,
        }))
    }

    async fn list_invitations(
        &self,
        request: Request<pb::ListInvitationsRequest>,
    ) -> Result<Response<pb::ListInvitationsResponse>, Status> {
        if request.into_inner().integration == "nope" {
            return Err(unknown_integration());
        }
        let invitation = |email: &str, is_expired: bool| pb::Invitation {
            email: email.to_owned(),
            created_at: wire(at("2026-11-20T12:00:00Z")),
            expires_at: wire(at("2026-11-23T12:00:00Z")),
            is_expired,
        };
        Ok(Response::new(pb::ListInvitationsResponse {
            invitations: vec![
                invitation("new@example.com", false),
                invitation("old@example.com", true),
            ],
            next_page_token: String::new(),
        }))
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> Result<Response<pb::ListRolesResponse>, Status> {
        let role = |id: &str, scope: pb::RoleScope, is_grantable: bool| pb::Role {
            role_id: id.to_owned(),
            scope: scope.into(),
            short_form: "viewer".to_owned(),
            stack_role: "viewer".to_owned(),
            summary: "sees things".to_owned(),
            is_grantable,
        };
        let wanted = request.into_inner().scope;
        let roles = [
            role("organization-admin", pb::RoleScope::Organization, false),
            role("security-viewer", pb::RoleScope::SecurityProject, true),
        ];
        Ok(Response::new(pb::ListRolesResponse {
            roles: roles
                .into_iter()
                .filter(|role| wanted.is_none_or(|scope| scope == role.scope))
                .collect(),
            next_page_token: String::new(),
        }))
    }

    async fn list_deployments(
        &self,
        _: Request<pb::ListDeploymentsRequest>,
    ) -> Result<Response<pb::ListDeploymentsResponse>, Status> {
        let deployment = |id: &str, name: &str| pb::Deployment {
            deployment_id: id.to_owned(),
            name: name.to_owned(),
            alias: String::new(),
            region: "aws-eu-central-1".to_owned(),
            tags: vec![pb::Tag {
                key: "team".to_owned(),
                value: "logs".to_owned(),
            }],
        };
        Ok(Response::new(pb::ListDeploymentsResponse {
            deployments: vec![deployment("d1", "prod-logs"), deployment("d2", "staging")],
            next_page_token: String::new(),
        }))
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Result<Response<pb::ListProjectsResponse>, Status> {
        let projects = match request.into_inner().project_type() {
            pb::ProjectType::Security => vec![pb::Project {
                project_type: pb::ProjectType::Security.into(),
                project_id: "s1".to_owned(),
                name: "staging".to_owned(),
                ..pb::Project::default()
            }],
            pb::ProjectType::Unspecified
            | pb::ProjectType::Elasticsearch
            | pb::ProjectType::Observability => Vec::new(),
        };
        Ok(Response::new(pb::ListProjectsResponse {
            projects,
            next_page_token: String::new(),
        }))
    }

    async fn list_project_roles(
        &self,
        request: Request<pb::ListProjectRolesRequest>,
    ) -> Result<Response<pb::ListProjectRolesResponse>, Status> {
        let project = request.into_inner().project.unwrap_or_default();
        Ok(Response::new(pb::ListProjectRolesResponse {
            roles: vec![pb::ProjectRole {
                name: format!("reader-of-{}", project.project_id),
                description: "reads one index".to_owned(),
            }],
            next_page_token: String::new(),
        }))
    }

    /// Nothing differs.
    async fn list_drift(
        &self,
        _: Request<pb::ListDriftRequest>,
    ) -> Result<Response<pb::ListDriftResponse>, Status> {
        Ok(Response::new(pb::ListDriftResponse::default()))
    }
}

#[tonic::async_trait]
impl ConnectorService for Service {
    async fn get_version(
        &self,
        _: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::GetVersionResponse>, Status> {
        Err(not_here())
    }

    async fn list_integrations(
        &self,
        _: Request<pb::ListIntegrationsRequest>,
    ) -> Result<Response<pb::ListIntegrationsResponse>, Status> {
        let integration = |name: &str, health: pb::IntegrationHealth, code: &str| pb::Integration {
            name: name.to_owned(),
            kind: "elastic_cloud".to_owned(),
            health: health.into(),
            health_code: code.to_owned(),
            key: Some(pb::KeyStatus {
                is_loaded: true,
                fingerprint: "0a1b2c3d".to_owned(),
                expires_at: wire(at("2027-01-01T00:00:00Z")),
                sees_owners: Some(true),
                skew_ms: Some(-12),
            }),
            owners: vec!["platform@example.com".to_owned()],
            ..pb::Integration::default()
        };
        Ok(Response::new(pb::ListIntegrationsResponse {
            integrations: vec![
                integration("acme", pb::IntegrationHealth::Ok, ""),
                integration("staging", pb::IntegrationHealth::Down, "last_call_failed"),
            ],
            next_page_token: String::new(),
        }))
    }

    async fn get_limits(
        &self,
        _: Request<pb::GetLimitsRequest>,
    ) -> Result<Response<pb::GetLimitsResponse>, Status> {
        let hours = |hours: i64| {
            Some(prost_types::Duration {
                seconds: hours * 3600,
                nanos: 0,
            })
        };
        Ok(Response::new(pb::GetLimitsResponse {
            max_duration: hours(12),
            max_total: hours(24),
            max_start_delay: hours(720),
            invitation_ttl: hours(72),
            organization_roles_allowed: false,
            all_targets_allowed: true,
            invitations_allowed: true,
            allowed_roles: Vec::new(),
            max_targets: 100,
            max_message_bytes: 262_144,
            max_deadline: hours(1),
        }))
    }

    async fn get_hold(
        &self,
        request: Request<pb::GetHoldRequest>,
    ) -> Result<Response<pb::GetHoldResponse>, Status> {
        if request.into_inner().integration == "calm" {
            return Ok(Response::new(pb::GetHoldResponse::default()));
        }
        let reason = pb::HoldReason {
            code: "ledger_behind".to_owned(),
            detail: "the witness knows more: it was restored".to_owned(),
        };
        let item = pb::HoldItem {
            user_id: "u1".to_owned(),
            assignment: Some(pb::Assignment {
                role: "deployment-viewer".to_owned(),
                target: Some(pb::Target {
                    kind: Some(pb::target::Kind::Organization(pb::OrganizationTarget {})),
                }),
                application_roles: None,
            }),
            action: pb::HoldAction::Remove.into(),
            is_proven: false,
            ends_at: None,
            was_seen: Some(true),
        };
        Ok(Response::new(pb::GetHoldResponse {
            is_held: true,
            since: None,
            reasons: vec![reason],
            evidence: pb::HoldEvidence::Witness.into(),
            witness: "/w".to_owned(),
            items: vec![item],
            is_cut: false,
        }))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::ReleaseHoldResponse>, Status> {
        let request = request.into_inner();
        if request.reason.is_empty() {
            return Err(Status::invalid_argument("a reason is required"));
        }
        Ok(Response::new(pb::ReleaseHoldResponse {
            was_held: request.integration != "calm",
        }))
    }

    /// Two grants at first, nothing at the second look.
    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        let request = request.into_inner();
        if request.all_integrations != request.integration.is_empty() {
            return Err(Status::invalid_argument("exactly one of the two"));
        }
        let mut world = self.world();
        world.drains += 1;
        let is_first = world.drains == 1;
        Ok(Response::new(pb::DrainResponse {
            revoked: if is_first { 2 } else { 0 },
            grants: if is_first { 2 } else { 0 },
            owned_assignments: if is_first { 3 } else { 0 },
            blocked_removals: 0,
            second_looks: if is_first { 1 } else { 0 },
            last_second_look_at: is_first.then(|| wire(at("2026-11-21T12:30:30Z"))).flatten(),
        }))
    }

    async fn confirm_reapply(
        &self,
        _: Request<pb::ConfirmReapplyRequest>,
    ) -> Result<Response<pb::ConfirmReapplyResponse>, Status> {
        Ok(Response::new(pb::ConfirmReapplyResponse { members: 2 }))
    }
}
