//! What an organization has.
//!
//! Owns read-only views, paged in a stable order. Never shows an invitation's token.

use crate::domain::assignment::{ProjectType, Scope};
use crate::domain::catalogue::{self, Role};
use crate::domain::ids::{DeploymentId, Email, IntegrationName, ProjectId, UserId};
use crate::domain::observation::{Interest, ObservedMember};
use crate::domain::request::Principal;
use crate::policy;
use crate::ports::ledger::Page;
use crate::ports::provider::{
    Deployment, ObservedInvitation, Organization, Priority, Project, ProjectRole,
};

use super::Service;
use super::error::{Result, ServiceError};

/// The organization behind an integration, or why Elastic Cloud did not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrationOrganization {
    /// The integration.
    pub integration: IntegrationName,
    /// The organization, or the stable code of the failure.
    pub organization: std::result::Result<Organization, &'static str>,
}

/// A role of the catalogue and whether policy lets it be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantableRole {
    /// The role.
    pub role: &'static Role,
    /// Whether policy lets it be granted at all.
    pub is_grantable: bool,
}

/// A page of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersPage {
    /// The members, in order of user id.
    pub page: Page<ObservedMember, UserId>,
    /// Members in the organization.
    pub total: usize,
    /// Whether the read showed everything.
    pub is_complete: bool,
}

impl Service {
    /// Organizations in order of integration.
    ///
    /// # Errors
    /// None at present: a failure of one integration is told in its place.
    pub async fn list_organizations(
        &self,
        after: Option<&IntegrationName>,
        limit: usize,
    ) -> Result<Page<IntegrationOrganization, IntegrationName>> {
        let chosen = self
            .integrations
            .values()
            .filter(|integration| after.is_none_or(|after| integration.name > *after))
            .take(limit.saturating_add(1));
        let items = futures::future::join_all(chosen.map(|integration| async move {
            IntegrationOrganization {
                integration: integration.name.clone(),
                organization: self
                    .noted(
                        integration,
                        integration.provider.organization(Priority::Discovery).await,
                    )
                    .await
                    .map_err(|error| ServiceError::Upstream(error).code()),
            }
        }))
        .await;
        Ok(page(items, limit, |item| item.integration.clone()))
    }

    /// Members in order of user id.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn list_members(
        &self,
        integration: Option<&IntegrationName>,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MembersPage> {
        let integration = self.integration(integration)?;
        let size = limit.saturating_add(1);
        let interest = Interest {
            pages: [(after.clone(), size)].into(),
            ..Interest::default()
        };
        let read = integration
            .observer
            .observe(interest, Priority::Discovery)
            .await
            .map_err(ServiceError::Upstream)?;
        // The read may show members that others asked for: the first ones after the cursor are the page.
        let items = read
            .members
            .values()
            .filter(|member| after.as_ref().is_none_or(|after| member.user_id > *after))
            .take(size)
            .cloned()
            .collect();
        Ok(MembersPage {
            page: page(items, limit, |member: &ObservedMember| {
                member.user_id.clone()
            }),
            total: read.total,
            is_complete: read.is_complete(),
        })
    }

    /// The members of one name: one, none, or several who share an address.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn find_members(
        &self,
        integration: Option<&IntegrationName>,
        who: &Principal,
    ) -> Result<MembersPage> {
        let integration = self.integration(integration)?;
        let interest = match who {
            Principal::User(user) => Interest::user(user.clone()),
            Principal::Email(email) => Interest::email(email.clone()),
        };
        let read = integration
            .observer
            .observe(interest, Priority::Discovery)
            .await
            .map_err(ServiceError::Upstream)?;
        let items = match who {
            Principal::User(user) => read.member(user).into_iter().cloned().collect(),
            Principal::Email(email) => read.by_email(email).cloned().collect(),
        };
        Ok(MembersPage {
            page: Page { items, next: None },
            total: read.total,
            is_complete: read.is_complete(),
        })
    }

    /// Open invitations in order of address.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn list_invitations(
        &self,
        integration: Option<&IntegrationName>,
        after: Option<&Email>,
        limit: usize,
    ) -> Result<Page<ObservedInvitation, Email>> {
        let integration = self.integration(integration)?;
        let mut items = self
            .noted(
                integration,
                integration.provider.invitations(Priority::Discovery).await,
            )
            .await
            .map_err(ServiceError::Upstream)?;
        items.retain(|invitation| after.is_none_or(|after| invitation.email > *after));
        items.sort_by(|a, b| (&a.email, b.created_at).cmp(&(&b.email, a.created_at)));
        // Several for one address: the newest speaks for all, and the address is the cursor.
        items.dedup_by(|later, kept| later.email == kept.email);
        Ok(page(items, limit, |invitation| invitation.email.clone()))
    }

    /// Roles of the catalogue; the cursor is a position.
    #[must_use]
    pub fn list_roles(
        &self,
        scope: Option<Scope>,
        from: usize,
        limit: usize,
    ) -> Page<GrantableRole, usize> {
        let matching = || {
            catalogue::ROLES
                .iter()
                .filter(move |role| scope.is_none_or(|scope| role.scope == scope))
        };
        let items: Vec<GrantableRole> = matching()
            .skip(from)
            .take(limit)
            .map(|role| GrantableRole {
                role,
                is_grantable: policy::is_role_grantable(role.id, role.scope, &self.rules),
            })
            .collect();
        let end = from.saturating_add(items.len());
        Page {
            items,
            next: (end < matching().count()).then_some(end),
        }
    }

    /// Hosted deployments in order of id.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn list_deployments(
        &self,
        integration: Option<&IntegrationName>,
        after: Option<&DeploymentId>,
        limit: usize,
    ) -> Result<Page<Deployment, DeploymentId>> {
        let integration = self.integration(integration)?;
        let list = self
            .deployments_of(integration, false)
            .await
            .map_err(ServiceError::Upstream)?;
        let items = list
            .items
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| *id > after))
            .take(limit.saturating_add(1))
            .map(|(_, deployment)| deployment.clone())
            .collect();
        Ok(page(items, limit, |deployment: &Deployment| {
            deployment.id.clone()
        }))
    }

    /// Serverless projects in order of type and id.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn list_projects(
        &self,
        integration: Option<&IntegrationName>,
        only: Option<ProjectType>,
        after: Option<&(ProjectType, ProjectId)>,
        limit: usize,
    ) -> Result<Page<Project, (ProjectType, ProjectId)>> {
        let integration = self.integration(integration)?;
        let mut items: Vec<Project> = Vec::new();
        for kind in ProjectType::ALL {
            if only.is_some_and(|only| only != kind) || after.is_some_and(|after| after.0 > kind) {
                continue;
            }
            let list = self
                .projects_of(integration, kind, false)
                .await
                .map_err(ServiceError::Upstream)?;
            items.extend(
                list.items
                    .iter()
                    .filter(|(id, _)| after.is_none_or(|(at, last)| (kind, *id) > (*at, last)))
                    .take((limit + 1).saturating_sub(items.len()))
                    .map(|(_, project)| project.clone()),
            );
            if items.len() > limit {
                break;
            }
        }
        Ok(page(items, limit, |project: &Project| {
            (project.project_type, project.id.clone())
        }))
    }

    /// Custom roles of one project in order of name.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and [`ServiceError::Upstream`].
    pub async fn list_project_roles(
        &self,
        integration: Option<&IntegrationName>,
        project_type: ProjectType,
        id: &ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ProjectRole, String>> {
        let integration = self.integration(integration)?;
        let read = integration
            .provider
            .project_roles(project_type, id, Priority::Discovery)
            .await;
        let mut items = self
            .noted(integration, read)
            .await
            .map_err(ServiceError::Upstream)?;
        items.retain(|role| after.is_none_or(|after| role.name.as_str() > after));
        items.sort_by(|a, b| a.name.cmp(&b.name));
        items.dedup_by(|a, b| a.name == b.name);
        Ok(page(items, limit, |role| role.name.clone()))
    }
}

/// Cuts a list that holds at least one item more than the page, where there is one.
fn page<T, C>(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> Page<T, C> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}
