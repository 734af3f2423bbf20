//! `DirectoryService`: what an organization has, over the wire.
//!
//! Owns paging of the directory. Never shows an invitation's token.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::domain::assignment::ProjectType;
use crate::domain::ids::{DeploymentId, Email, IntegrationName, ProjectId, UserId};
use crate::domain::observation::ObservedMember;
use crate::ports::ledger::Page;
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

/// What a caller wants to see of a listing.
#[derive(Debug)]
struct Asked<'a> {
    call: &'a str,
    /// What the tokens of this listing are bound to.
    bound: &'a str,
    page_size: i32,
    page_token: &'a str,
}

impl Asked<'_> {
    /// One page: `parse` and `write` are the two ways between a cursor and its text, `fetch` gets the items after a
    /// cursor, at most so many. Answers the items and the token of the next page.
    async fn page<C, T, E, Fetched>(
        &self,
        parse: impl FnOnce(String) -> std::result::Result<C, E>,
        write: impl FnOnce(C) -> String,
        fetch: impl FnOnce(Option<C>, usize) -> Fetched,
    ) -> Result<(Vec<T>, String)>
    where
        Fetched: Future<Output = Result<Page<T, C>>>,
    {
        let after = self.cursor(parse)?;
        let limit = convert::page_size(self.page_size, DEFAULT_PAGE)?;
        let page = fetch(after, limit).await?;
        Ok((page.items, self.next(page.next.map(write))))
    }

    /// The cursor in the page token.
    fn cursor<C, E>(
        &self,
        parse: impl FnOnce(String) -> std::result::Result<C, E>,
    ) -> Result<Option<C>> {
        token::decode("page_token", self.call, self.bound, self.page_token)?
            .map(|text| {
                parse(text).map_err(|_| ServiceError::invalid("page_token", "holds no cursor"))
            })
            .transpose()
    }

    /// The token of the page that begins after this cursor.
    fn next(&self, cursor: Option<String>) -> String {
        cursor
            .map(|cursor| token::encode(self.call, self.bound, &cursor))
            .unwrap_or_default()
    }
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
        let pb::ListOrganizationsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let asked = Asked {
            call: "ListOrganizations",
            bound: "",
            page_size,
            page_token: &page_token,
        };
        let page =
            asked.page(
                IntegrationName::parse,
                Into::into,
                |after, limit| async move {
                    self.service.list_organizations(after.as_ref(), limit).await
                },
            );
        self.answer(page.await.map(|(items, next_page_token)| {
            let organizations = items.into_iter().map(organization).collect();
            pb::ListOrganizationsResponse {
                organizations,
                next_page_token,
            }
        }))
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
        let pb::ListInvitationsRequest {
            integration,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let (name, bound) = (integration.as_ref(), bound(integration.as_ref()));
            let asked = Asked {
                call: "ListInvitations",
                bound: &bound,
                page_size,
                page_token: &page_token,
            };
            let page = asked.page(Email::parse, Into::into, |after, limit| async move {
                self.service
                    .list_invitations(name, after.as_ref(), limit)
                    .await
            });
            let (items, next_page_token) = page.await?;
            Ok(pb::ListInvitationsResponse {
                invitations: items.into_iter().map(invitation).collect(),
                next_page_token,
            })
        };
        self.answer(result.await)
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> std::result::Result<Response<pb::ListRolesResponse>, Status> {
        let pb::ListRolesRequest {
            scope,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let scope = scope
                .map(|scope| convert::scope("scope", scope))
                .transpose()?;
            let bound = format!("{scope:?}");
            let asked = Asked {
                call: "ListRoles",
                bound: &bound,
                page_size,
                page_token: &page_token,
            };
            let page = asked.page(
                |text| text.parse::<usize>(),
                |at| at.to_string(),
                |from, limit| async move {
                    Ok(self.service.list_roles(scope, from.unwrap_or(0), limit))
                },
            );
            let (items, next_page_token) = page.await?;
            Ok(pb::ListRolesResponse {
                roles: items.into_iter().map(role).collect(),
                next_page_token,
            })
        };
        self.answer(result.await)
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> std::result::Result<Response<pb::ListDeploymentsResponse>, Status> {
        let pb::ListDeploymentsRequest {
            integration,
            page_size,
            page_token,
        } = request.into_inner();
        let result = async {
            let integration = convert::integration("integration", integration)?;
            let (name, bound) = (integration.as_ref(), bound(integration.as_ref()));
            let asked = Asked {
                call: "ListDeployments",
                bound: &bound,
                page_size,
                page_token: &page_token,
            };
            let page = asked.page(DeploymentId::parse, Into::into, |after, limit| async move {
                self.service
                    .list_deployments(name, after.as_ref(), limit)
                    .await
            });
            let (items, next_page_token) = page.await?;
            Ok(pb::ListDeploymentsResponse {
                deployments: items.into_iter().map(deployment).collect(),
                next_page_token,
            })
        };
        self.answer(result.await)
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> std::result::Result<Response<pb::ListProjectsResponse>, Status> {
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
            let name = integration.as_ref();
            let bound = format!("{}\n{only:?}", bound(name));
            let asked = Asked {
                call: "ListProjects",
                bound: &bound,
                page_size,
                page_token: &page_token,
            };
            let page = asked.page(
                |text| project_cursor(&text).ok_or(()),
                |(kind, id)| format!("{kind}/{id}"),
                |after, limit| async move {
                    self.service
                        .list_projects(name, only, after.as_ref(), limit)
                        .await
                },
            );
            let (items, next_page_token) = page.await?;
            Ok(pb::ListProjectsResponse {
                projects: items.into_iter().map(project).collect(),
                next_page_token,
            })
        };
        self.answer(result.await)
    }

    async fn list_project_roles(
        &self,
        request: Request<pb::ListProjectRolesRequest>,
    ) -> std::result::Result<Response<pb::ListProjectRolesResponse>, Status> {
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
            let (name, id) = (integration.as_ref(), &id);
            let bound = format!("{}\n{kind}/{id}", bound(name));
            let asked = Asked {
                call: "ListProjectRoles",
                bound: &bound,
                page_size,
                page_token: &page_token,
            };
            let page = asked.page(
                Ok::<_, ()>,
                |name| name,
                |after, limit| async move {
                    self.service
                        .list_project_roles(name, kind, id, after.as_deref(), limit)
                        .await
                },
            );
            let (items, next_page_token) = page.await?;
            Ok(pb::ListProjectRolesResponse {
                roles: items.into_iter().map(project_role).collect(),
                next_page_token,
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

/// Where a listing of projects goes on.
fn project_cursor(text: &str) -> Option<(ProjectType, ProjectId)> {
    let (kind, id) = text.split_once('/')?;
    let kind = ProjectType::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)?;
    Some((kind, ProjectId::parse(id).ok()?))
}

impl DirectoryApi {
    async fn drift(&self, request: pb::ListDriftRequest) -> Result<pb::ListDriftResponse> {
        let pb::ListDriftRequest {
            integration,
            page_size,
            page_token,
        } = request;
        let integration = convert::integration("integration", integration)?;
        let bound = bound(integration.as_ref());
        let asked = Asked {
            call: "ListDrift",
            bound: &bound,
            page_size,
            page_token: &page_token,
        };
        let (items, next_page_token) = asked
            .page(UserId::parse, Into::into, |after, limit| {
                self.service.list_drift(integration.as_ref(), after, limit)
            })
            .await?;
        Ok(pb::ListDriftResponse {
            drift: items
                .into_iter()
                .map(|MemberDrift { user_id, drift }| render::open_drift(user_id.as_str(), drift))
                .collect(),
            next_page_token,
        })
    }

    async fn members(&self, request: pb::ListMembersRequest) -> Result<pb::ListMembersResponse> {
        let pb::ListMembersRequest {
            integration,
            page_size,
            page_token,
            member: who,
        } = request;
        let integration = convert::integration("integration", integration)?;
        let bound = bound(integration.as_ref());
        let asked = Asked {
            call: "ListMembers",
            bound: &bound,
            page_size,
            page_token: &page_token,
        };
        let found = if who.is_some() {
            let who = convert::principal("member", who)?;
            self.service
                .find_members(integration.as_ref(), &who)
                .await?
        } else {
            let after = asked.cursor(UserId::parse)?;
            let limit = convert::page_size(asked.page_size, DEFAULT_PAGE)?;
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
            next_page_token: asked.next(cut.map(Into::into)),
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
