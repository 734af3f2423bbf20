//! The port's operations as calls of the Elastic Cloud API.
//!
//! Owns which call serves which operation, and what of its answer reaches the domain. Never names an assignment in
//! a body that it was not given.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Serialize;

use super::assignments;
use super::client::{Elastic, Limits};
use super::listings::{deployment, open_invitation, project};
use super::path::Path;
use super::transport::Call;
use super::wire::{self, Text};
use crate::domain::assignment::{Assignment, ProjectType, total_weight};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{DeploymentId, Email, InvitationToken, OrganizationId, ProjectId, UserId};
use crate::domain::member::WriteKind;
use crate::domain::observation::{Interest, MembersRead};
use crate::ports::AccessProvider;
use crate::ports::provider::{
    Claim, Deployment, KeyPin, KeyStatus, ObservedInvitation, ObservedKey, Organization, Outcome,
    PlannedCall, Priority, Project, ProjectRole, Rate, ReadError, ReadResult, Refusal, Turn,
};

/// Deployments asked for per page: each carries the description of all its resources.
const DEPLOYMENTS_PER_PAGE: u32 = 50;
/// Shown in a preview when the organization is not known yet.
const UNKNOWN_ORGANIZATION: &str = "{organization_id}";

#[async_trait]
impl AccessProvider for Elastic {
    fn pin(&self) -> KeyPin {
        self.keys.pin()
    }

    fn key_status(&self) -> KeyStatus {
        self.keys.status()
    }

    fn request_lifetime(&self) -> Duration {
        self.options.mutation_budget
    }

    async fn organization(&self, priority: Priority) -> ReadResult<Organization> {
        self.learn_own_record(priority).await;
        let call = call(
            "organization",
            "GET /organizations",
            Method::GET,
            Path::new("/organizations"),
        );
        let (list, evidence): (wire::Organizations, _) = self
            .read(call, priority, self.read_limits(), self.options.max_body)
            .await?;
        match self.choose(list) {
            Ok(organization) => {
                // The first that is seen stays: the ledger of this process belongs to it.
                let id = organization.id.clone();
                if *self.organization.get_or_init(|| id) == organization.id {
                    Ok((organization, evidence))
                } else {
                    Err((unavailable("organization_not_visible"), evidence))
                }
            }
            Err(code) => Err((unavailable(code), evidence)),
        }
    }

    async fn read_members(
        &self,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<MembersRead> {
        let organization = self.organization_id(priority).await?;
        self.learn_own_record(priority).await;
        let call = call(
            "members",
            "GET /organizations/{organization_id}/members",
            Method::GET,
            organization_path(&organization).then("/members"),
        );
        let ((shown, started_at, pin), evidence) = self
            .stream_members(call, &organization, interest, priority)
            .await?;
        let super::members::Shown {
            members,
            total,
            owners,
            incomplete,
            recognized,
        } = shown;
        self.keys.sees_owners(pin, owners > 0);
        let read = MembersRead {
            started_at,
            finished_at: self.clock.now(),
            incomplete,
            members,
            total,
            owners,
            recognized,
        };
        Ok((read, evidence))
    }

    async fn add(&self, pin: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()> {
        self.write(
            WriteKind::Add,
            (None, self.mutation_limits()),
            pin,
            user,
            assignments,
            Priority::Grant,
        )
        .await
    }

    async fn remove(&self, pin: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()> {
        self.write(
            WriteKind::Remove,
            (None, self.mutation_limits()),
            pin,
            user,
            assignments,
            Priority::Revoke,
        )
        .await
    }

    fn preview(&self, kind: WriteKind, user: &UserId, assignments: &[Assignment]) -> PlannedCall {
        let organization = self
            .organization
            .get()
            .map_or(UNKNOWN_ORGANIZATION, OrganizationId::as_str);
        let base = self.options.base_url.path().trim_end_matches('/');
        PlannedCall {
            method: write_method(kind).to_string(),
            path: format!("{base}{}", write_path(user).as_str()),
            body: String::from_utf8(json(&assignments::write(assignments, organization)))
                .expect("JSON is UTF-8"),
        }
    }

    async fn invitations(&self, priority: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        let organization = self.organization_id(priority).await?;
        let call = call(
            "invitations",
            "GET /organizations/{organization_id}/invitations",
            Method::GET,
            organization_path(&organization).then("/invitations"),
        );
        let (list, evidence): (wire::Invitations, _) = self.read_list(call, priority).await?;
        let wire::Invitations {
            invitations,
            next_page,
        } = list;
        // Nobody has written down how to ask for a second page, and half a list would invite people twice.
        if next_page != Text::Absent {
            return Err((unavailable("more_pages"), evidence));
        }
        let open = invitations
            .into_iter()
            .filter_map(|invitation| open_invitation(invitation, &organization))
            .collect();
        Ok((open, evidence))
    }

    async fn owner_keys(&self, priority: Priority) -> ReadResult<Vec<ObservedKey>> {
        self.list_owner_keys(priority).await
    }

    async fn invite(
        &self,
        pin: KeyPin,
        email: &Email,
        expires_in: Duration,
    ) -> Outcome<ObservedInvitation> {
        const CALL: &str = "POST /organizations/{organization_id}/invitations";
        let organization = match self.organization_id(Priority::Grant).await {
            Ok(organization) => organization,
            Err(error) => return not_sent(CALL, error),
        };
        let body = wire::Invite {
            emails: [email.as_str()],
            expires_in: format!("{}h", expires_in.as_secs().div_ceil(3600).max(1)),
        };
        let call = Call {
            body: Some(json(&body)),
            ..call(
                "invite",
                CALL,
                Method::POST,
                organization_path(&organization).then("/invitations"),
            )
        };
        self.mutate(call, pin, (Claim::of(Priority::Grant), None), |bytes| {
            let wire::Invitations { invitations, .. } = serde_json::from_slice(bytes).ok()?;
            invitations
                .into_iter()
                .filter_map(|invitation| open_invitation(invitation, &organization))
                .find(|invitation| invitation.email == *email)
        })
        .await
    }

    async fn cancel_invitation(&self, pin: KeyPin, token: &InvitationToken) -> Outcome<()> {
        const CALL: &str = "DELETE /organizations/{organization_id}/invitations/{invitation_token}";
        let organization = match self.organization_id(Priority::Revoke).await {
            Ok(organization) => organization,
            Err(error) => return not_sent(CALL, error),
        };
        let Some(path) = organization_path(&organization)
            .then("/invitations")
            .id(token.as_str())
        else {
            return Outcome::Refused(
                Refusal::NotSent {
                    code: "path".to_owned(),
                },
                evidence(CALL),
            );
        };
        let call = call("cancel_invitation", CALL, Method::DELETE, path);
        self.mutate(call, pin, (Claim::of(Priority::Revoke), None), |_| Some(()))
            .await
    }

    async fn deployments(&self, priority: Priority) -> ReadResult<Vec<Deployment>> {
        let mut found: BTreeMap<DeploymentId, Deployment> = BTreeMap::new();
        let mut cursor: Option<String> = None;
        for _ in 0..self.options.max_pages {
            let body = wire::Search {
                size: cursor.is_none().then_some(DEPLOYMENTS_PER_PAGE),
                cursor: cursor.as_deref(),
            };
            let call = Call {
                body: Some(json(&body)),
                ..call(
                    "deployments",
                    "POST /deployments/_search",
                    Method::POST,
                    Path::new("/deployments/_search"),
                )
            };
            let (page, evidence): (wire::Deployments, _) = self.read_list(call, priority).await?;
            let wire::Deployments {
                deployments,
                cursor: next,
            } = page;
            let next = next.into_string().filter(|next| !next.is_empty());
            if deployments.is_empty() || next.is_none() || next == cursor {
                found.extend(deployments.into_iter().filter_map(deployment));
                return Ok((found.into_values().collect(), evidence));
            }
            found.extend(deployments.into_iter().filter_map(deployment));
            cursor = next;
        }
        Err((
            unavailable("too_many_pages"),
            evidence("POST /deployments/_search"),
        ))
    }

    async fn projects(
        &self,
        project_type: ProjectType,
        priority: Priority,
    ) -> ReadResult<Vec<Project>> {
        let call = call(
            "projects",
            "GET /serverless/projects/{project_type}",
            Method::GET,
            projects_path(project_type),
        );
        let (list, evidence): (wire::Projects, _) = self.read_list(call, priority).await?;
        let wire::Projects { items } = list;
        let projects = items
            .into_iter()
            .filter_map(|item| project(item, project_type))
            .collect();
        Ok((projects, evidence))
    }

    async fn project_roles(
        &self,
        project_type: ProjectType,
        id: &ProjectId,
        priority: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        let path = projects_path(project_type)
            .id(id.as_str())
            .expect("a project id is never empty nor dots")
            .then("/roles");
        let call = call(
            "project_roles",
            "GET /serverless/projects/{project_type}/{id}/roles",
            Method::GET,
            path,
        );
        let (mut by_project, evidence): (wire::ProjectRolesById, _) = self
            .read(call, priority, self.read_limits(), self.options.max_body)
            .await?;
        let roles = by_project
            .remove(id.as_str())
            .map(|wire::ProjectRoles { roles }| roles)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|wire::ProjectRole { name, description }| {
                Some(ProjectRole {
                    name: name.into_string()?,
                    description: description.into_string().unwrap_or_default(),
                })
            })
            .collect();
        Ok((roles, evidence))
    }

    async fn remove_again(
        &self,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(
            WriteKind::Remove,
            (None, self.mutation_limits()),
            pin,
            user,
            assignments,
            Priority::Retry,
        )
        .await
    }

    async fn remove_before(
        &self,
        before: Duration,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(
            WriteKind::Remove,
            (None, self.limits_before(before)),
            pin,
            user,
            assignments,
            Priority::Revoke,
        )
        .await
    }

    async fn turn(&self, claim: Claim) -> Option<Turn> {
        self.early_turn(claim).await
    }

    async fn add_in_turn(
        &self,
        turn: Turn,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(
            WriteKind::Add,
            (Some(turn), self.mutation_limits()),
            pin,
            user,
            assignments,
            Priority::Grant,
        )
        .await
    }

    async fn remove_in_turn(
        &self,
        turn: Turn,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(
            WriteKind::Remove,
            (Some(turn), self.mutation_limits()),
            pin,
            user,
            assignments,
            Priority::Revoke,
        )
        .await
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.rate_in_force())
    }
}

impl Elastic {
    async fn write(
        &self,
        kind: WriteKind,
        (turn, limits): (Option<Turn>, Limits),
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
        removal: Priority,
    ) -> Outcome<()> {
        let (operation, template, priority) = match kind {
            WriteKind::Add => (
                "add",
                "POST /users/{user_id}/role_assignments",
                Priority::Grant,
            ),
            WriteKind::Remove => (
                "remove",
                "DELETE /users/{user_id}/role_assignments",
                removal,
            ),
        };
        let organization = match self.organization_id(priority).await {
            Ok(organization) => organization,
            Err(error) => return not_sent(template, error),
        };
        // An empty body has no defined meaning upstream, so it is never sent.
        if assignments.is_empty() {
            return Outcome::Done((), evidence(template));
        }
        let body = assignments::write(assignments, organization.as_str());
        let call = Call {
            body: Some(json(&body)),
            ..call(operation, template, write_method(kind), write_path(user))
        };
        let claim = match kind {
            WriteKind::Add => Claim::of(priority),
            WriteKind::Remove => Claim {
                priority,
                ..Claim::removal(total_weight(assignments), None)
            },
        };
        self.mutate_within(call, pin, (claim, turn), limits, |_| Some(()))
            .await
    }

    /// The organization in use, asked for when nobody has yet.
    pub(super) async fn organization_id(
        &self,
        priority: Priority,
    ) -> Result<OrganizationId, (ReadError, CallEvidence)> {
        match self.organization.get() {
            Some(known) => Ok(known.clone()),
            None => self
                .organization(priority)
                .await
                .map(|(organization, _)| organization.id),
        }
    }

    fn choose(&self, list: wire::Organizations) -> Result<Organization, &'static str> {
        let wire::Organizations {
            organizations,
            next_page,
        } = list;
        let mut visible: Vec<Organization> = organizations
            .into_iter()
            .filter_map(|wire::Organization { id, name }| {
                Some(Organization {
                    id: OrganizationId::parse(id.into_string()?).ok()?,
                    name: name.into_string().unwrap_or_default(),
                })
            })
            .collect();
        match (self.organization.get(), visible.len()) {
            (Some(pinned), _) => visible
                .into_iter()
                .find(|organization| organization.id == *pinned)
                .ok_or("organization_not_visible"),
            (None, 1) if next_page == Text::Absent => Ok(visible.remove(0)),
            (None, 0) => Err("organization_not_visible"),
            (None, _) => Err("several_organizations"),
        }
    }
}

pub(super) fn call(
    operation: &'static str,
    template: &'static str,
    method: Method,
    path: Path,
) -> Call {
    Call {
        operation,
        template,
        method,
        path,
        body: None,
    }
}

pub(super) fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("these types always serialise")
}

pub(super) fn evidence(template: &str) -> CallEvidence {
    CallEvidence {
        call: template.to_owned(),
        ..CallEvidence::default()
    }
}

pub(super) fn unavailable(code: &str) -> ReadError {
    ReadError::Unavailable {
        code: code.to_owned(),
    }
}

/// A mutation that was not sent because the organization could not be found out.
pub(super) fn not_sent<T>(template: &str, (error, _): (ReadError, CallEvidence)) -> Outcome<T> {
    let refusal = match error {
        ReadError::Refused(
            refusal @ (Refusal::NotSent { .. } | Refusal::Unauthenticated { .. }),
        ) => refusal,
        ReadError::Refused(_) | ReadError::Unavailable { .. } => Refusal::NotSent {
            code: error.code().to_owned(),
        },
    };
    Outcome::Refused(refusal, evidence(template))
}

fn write_method(kind: WriteKind) -> Method {
    match kind {
        WriteKind::Add => Method::POST,
        WriteKind::Remove => Method::DELETE,
    }
}

fn write_path(user: &UserId) -> Path {
    Path::new("/users")
        .id(user.as_str())
        .expect("a user id is never empty nor dots")
        .then("/role_assignments")
}

fn organization_path(organization: &OrganizationId) -> Path {
    Path::new("/organizations")
        .id(organization.as_str())
        .expect("an organization id is never empty nor dots")
}

fn projects_path(project_type: ProjectType) -> Path {
    Path::new(match project_type {
        ProjectType::Elasticsearch => "/serverless/projects/elasticsearch",
        ProjectType::Observability => "/serverless/projects/observability",
        ProjectType::Security => "/serverless/projects/security",
    })
}
