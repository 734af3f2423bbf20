//! The directory and the connector service of the fake: fixed answers.

use latchkey::api::pb;
use latchkey::api::pb::connector_service_server::ConnectorService;
use latchkey::api::pb::directory_service_server::DirectoryService;
use tonic::{Request, Response, Status};

use crate::fake::{Service, assignment, at, deployment, wire};

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
        _: Request<pb::ListInvitationsRequest>,
    ) -> Result<Response<pb::ListInvitationsResponse>, Status> {
        Err(not_here())
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
        _: Request<pb::ListProjectRolesRequest>,
    ) -> Result<Response<pb::ListProjectRolesResponse>, Status> {
        Err(not_here())
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
        Err(not_here())
    }

    async fn get_limits(
        &self,
        _: Request<pb::GetLimitsRequest>,
    ) -> Result<Response<pb::GetLimitsResponse>, Status> {
        Err(not_here())
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
        }))
    }
}
