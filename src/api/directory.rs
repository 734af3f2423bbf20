//! `DirectoryService`: what an organization has, over the wire.
//!
//! Owns paging of the directory. Never shows an invitation's token.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::domain::ids::{DeploymentId, Email, IntegrationName, ProjectId, UserId};
use crate::domain::observation::ObservedMember;
use crate::ports::provider::{Deployment, ObservedInvitation, Project, ProjectRole};
use crate::service::{
    GrantableRole, IntegrationOrganization, MemberDrift, Result, Service, ServiceError,
};

use super::pb::directory_service_server::DirectoryService;
use super::status::status;
use super::{convert, pb, render, token};

/// Items in a page when the caller does not say.
const DEFAULT_PAGE: usize = 100;

/// Most bytes in one page, well below what clients take by default.
const PAGE_BYTES: usize = 1024 * 1024;

/// The calls about the directory.
#[derive(Debug)]
pub(super) struct DirectoryApi {
    service: Arc<Service>,
}

impl DirectoryApi {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    fn answer<T>(&self, result: Result<T>) -> std::result::Result<Response<T>, Status> {
        result
            .map(Response::new)
            .map_err(|error| status(&error, || self.service.incident()))
    }
}

/// The cursor in a page token, read as an identifier.
fn cursor<T, E>(
    call: &str,
    filter: &str,
    page_token: &str,
    parse: impl FnOnce(String) -> std::result::Result<T, E>,
) -> Result<Option<T>> {
    token::decode("page_token", call, filter, page_token)?
        .map(|text| parse(text).map_err(|_| ServiceError::invalid("page_token", "holds no cursor")))
        .transpose()
}

fn next<C>(call: &str, filter: &str, cursor: Option<C>, text: impl FnOnce(C) -> String) -> String {
    cursor
        .map(|cursor| token::encode(call, filter, &text(cursor)))
        .unwrap_or_default()
}

/// The name of an integration as part of what a page token is bound to.
fn bound(integration: Option<&IntegrationName>) -> String {
    integration.map(ToString::to_string).unwrap_or_default()
}

#[tonic::async_trait]
impl DirectoryService for DirectoryApi {
    async fn list_organizations(
        &self,
        request: Request<pb::ListOrganizationsRequest>,
    ) -> std::result::Result<Response<pb::ListOrganizationsResponse>, Status> {
        const CALL: &str = "ListOrganizations";
        let pb::ListOrganizationsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let after = cursor(CALL, "", &page_token, IntegrationName::parse)?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self
                .service
                .list_organizations(after.as_ref(), limit)
                .await?;
            Ok(pb::ListOrganizationsResponse {
                organizations: page.items.into_iter().map(organization).collect(),
                next_page_token: next(CALL, "", page.next, Into::into),
            })
        };
        self.answer(result.await)
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> std::result::Result<Response<pb::ListMembersResponse>, Status> {
        let result = self.members(request.into_inner()).await;
        self.answer(result)
    }

    async fn list_invitations(
        &self,
        request: Request<pb::ListInvitationsRequest>,
    ) -> std::result::Result<Response<pb::ListInvitationsResponse>, Status> {
        const CALL: &str = "ListInvitations";
        let pb::ListInvitationsRequest {
            integration,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let bound = bound(integration.as_ref());
            let after = cursor(CALL, &bound, &page_token, Email::parse)?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self
                .service
                .list_invitations(integration.as_ref(), after.as_ref(), limit)
                .await?;
            Ok(pb::ListInvitationsResponse {
                invitations: page.items.into_iter().map(invitation).collect(),
                next_page_token: next(CALL, &bound, page.next, Into::into),
            })
        };
        self.answer(result.await)
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> std::result::Result<Response<pb::ListRolesResponse>, Status> {
        const CALL: &str = "ListRoles";
        let pb::ListRolesRequest {
            scope,
            page_size,
            page_token,
        } = request.into_inner();
        let list = || {
            let scope = scope
                .map(|scope| convert::scope("scope", scope))
                .transpose()?;
            let bound = format!("{scope:?}");
            let from = cursor(CALL, &bound, &page_token, |text| text.parse::<usize>())?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self.service.list_roles(scope, from.unwrap_or(0), limit);
            Ok(pb::ListRolesResponse {
                roles: page.items.into_iter().map(role).collect(),
                next_page_token: next(CALL, &bound, page.next, |at| at.to_string()),
            })
        };
        self.answer(list())
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> std::result::Result<Response<pb::ListDeploymentsResponse>, Status> {
        const CALL: &str = "ListDeployments";
        let pb::ListDeploymentsRequest {
            integration,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let bound = bound(integration.as_ref());
            let after = cursor(CALL, &bound, &page_token, DeploymentId::parse)?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self
                .service
                .list_deployments(integration.as_ref(), after.as_ref(), limit)
                .await?;
            Ok(pb::ListDeploymentsResponse {
                deployments: page.items.into_iter().map(deployment).collect(),
                next_page_token: next(CALL, &bound, page.next, Into::into),
            })
        };
        self.answer(result.await)
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> std::result::Result<Response<pb::ListProjectsResponse>, Status> {
        const CALL: &str = "ListProjects";
        let pb::ListProjectsRequest {
            integration,
            project_type,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let only = project_type
                .map(|kind| convert::project_type("project_type", kind))
                .transpose()?;
            let bound = format!("{}\n{only:?}", bound(integration.as_ref()));
            let after = cursor(CALL, &bound, &page_token, |text| {
                let (kind, id) = text.split_once('/').ok_or(())?;
                let kind = crate::domain::assignment::ProjectType::ALL
                    .into_iter()
                    .find(|known| known.as_str() == kind)
                    .ok_or(())?;
                Ok::<_, ()>((kind, ProjectId::parse(id).map_err(|_| ())?))
            })?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self
                .service
                .list_projects(integration.as_ref(), only, after.as_ref(), limit)
                .await?;
            Ok(pb::ListProjectsResponse {
                projects: page.items.into_iter().map(project).collect(),
                next_page_token: next(CALL, &bound, page.next, |(kind, id)| format!("{kind}/{id}")),
            })
        };
        self.answer(result.await)
    }

    async fn list_project_roles(
        &self,
        request: Request<pb::ListProjectRolesRequest>,
    ) -> std::result::Result<Response<pb::ListProjectRolesResponse>, Status> {
        const CALL: &str = "ListProjectRoles";
        let pb::ListProjectRolesRequest {
            integration,
            project,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let project = project.ok_or_else(|| ServiceError::invalid("project", "is required"))?;
            let (kind, id) = convert::project("project", project)?;
            let bound = format!("{}\n{kind}/{id}", bound(integration.as_ref()));
            let after = token::decode("page_token", CALL, &bound, &page_token)?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            let page = self
                .service
                .list_project_roles(integration.as_ref(), kind, &id, after.as_deref(), limit)
                .await?;
            Ok(pb::ListProjectRolesResponse {
                roles: page.items.into_iter().map(project_role).collect(),
                next_page_token: next(CALL, &bound, page.next, |name| name),
            })
        };
        self.answer(result.await)
    }

    async fn list_drift(
        &self,
        request: Request<pb::ListDriftRequest>,
    ) -> std::result::Result<Response<pb::ListDriftResponse>, Status> {
        let result = self.drift(request.into_inner()).await;
        self.answer(result)
    }
}

impl DirectoryApi {
    async fn drift(&self, request: pb::ListDriftRequest) -> Result<pb::ListDriftResponse> {
        const CALL: &str = "ListDrift";
        let pb::ListDriftRequest {
            integration,
            page_size,
            page_token,
        } = request;
        let integration = convert::integration("integration", integration)?;
        let bound = bound(integration.as_ref());
        let after = cursor(CALL, &bound, &page_token, UserId::parse)?;
        let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
        let page = self
            .service
            .list_drift(integration.as_ref(), after, limit)
            .await?;
        Ok(pb::ListDriftResponse {
            drift: page
                .items
                .into_iter()
                .map(|MemberDrift { user_id, drift }| render::open_drift(user_id.as_str(), drift))
                .collect(),
            next_page_token: next(CALL, &bound, page.next, Into::into),
        })
    }

    async fn members(&self, request: pb::ListMembersRequest) -> Result<pb::ListMembersResponse> {
        const CALL: &str = "ListMembers";
        let pb::ListMembersRequest {
            integration,
            page_size,
            page_token,
            member: who,
        } = request;
        let integration = convert::integration("integration", integration)?;
        let bound = bound(integration.as_ref());
        let found = if who.is_some() {
            let who = convert::principal("member", who)?;
            self.service
                .find_members(integration.as_ref(), &who)
                .await?
        } else {
            let after = cursor(CALL, &bound, &page_token, UserId::parse)?;
            let limit = convert::page_size(page_size, DEFAULT_PAGE)?;
            self.service
                .list_members(integration.as_ref(), after, limit)
                .await?
        };
        let mut cut = found.page.next;
        let mut members = Vec::with_capacity(found.page.items.len());
        let mut bytes = 0;
        let mut last = None;
        for observed in found.page.items {
            let id = observed.user_id.clone();
            let wire = member(observed);
            bytes += wire.encoded_len();
            if bytes > PAGE_BYTES && !members.is_empty() {
                // Members with many roles: the page ends early and the next one begins here.
                cut = last;
                break;
            }
            members.push(wire);
            last = Some(id);
        }
        Ok(pb::ListMembersResponse {
            members,
            next_page_token: next(CALL, &bound, cut, Into::into),
            total_size: u32::try_from(found.total).unwrap_or(u32::MAX),
            is_complete: found.is_complete,
        })
    }
}

fn organization(value: IntegrationOrganization) -> pb::Organization {
    let IntegrationOrganization {
        integration,
        organization,
    } = value;
    match organization {
        Ok(organization) => pb::Organization {
            integration: integration.into(),
            organization_id: organization.id.into(),
            name: organization.name,
            error_code: String::new(),
        },
        Err(code) => pb::Organization {
            integration: integration.into(),
            error_code: code.to_uppercase(),
            ..pb::Organization::default()
        },
    }
}

fn member(value: ObservedMember) -> pb::Member {
    let ObservedMember {
        user_id,
        member_since,
        email,
        name,
        assignments,
    } = value;
    pb::Member {
        user_id: user_id.into(),
        email: email.map(Into::into).unwrap_or_default(),
        name,
        member_since: Some(render::instant(member_since)),
        assignments: assignments.into_iter().map(render::assignment).collect(),
    }
}

fn invitation(value: ObservedInvitation) -> pb::Invitation {
    let ObservedInvitation {
        token: _,
        email,
        created_at,
        expires_at,
        expired,
    } = value;
    pb::Invitation {
        email: email.into(),
        created_at: Some(render::instant(created_at)),
        expires_at: Some(render::instant(expires_at)),
        is_expired: expired,
    }
}

fn role(value: GrantableRole) -> pb::Role {
    let GrantableRole { role, is_grantable } = value;
    pb::Role {
        role_id: role.id.to_owned(),
        scope: render::scope(role.scope).into(),
        short_form: role.short.to_owned(),
        stack_role: role.stack_role.unwrap_or_default().to_owned(),
        summary: role.summary.to_owned(),
        is_grantable,
    }
}

fn tags(tags: Vec<(String, String)>) -> Vec<pb::Tag> {
    tags.into_iter()
        .map(|(key, value)| pb::Tag { key, value })
        .collect()
}

fn deployment(value: Deployment) -> pb::Deployment {
    let Deployment {
        id,
        name,
        alias,
        tags: labels,
        region,
    } = value;
    pb::Deployment {
        deployment_id: id.into(),
        name,
        alias: alias.unwrap_or_default(),
        region,
        tags: tags(labels),
    }
}

fn project(value: Project) -> pb::Project {
    let Project {
        id,
        name,
        project_type,
        alias,
        region,
        tags: labels,
    } = value;
    pb::Project {
        project_type: render::project_type(project_type).into(),
        project_id: id.into(),
        name,
        alias,
        region,
        tags: tags(labels),
    }
}

fn project_role(value: ProjectRole) -> pb::ProjectRole {
    let ProjectRole { name, description } = value;
    pb::ProjectRole { name, description }
}
