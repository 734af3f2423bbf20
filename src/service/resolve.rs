//! From what a caller wrote to who and what is meant.
//!
//! Owns look-ups of members, roles, deployments and projects. Never says "not a member" on the strength of a read
//! that could not show everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::assignment::{ProjectType, Target};
use crate::domain::catalogue;
use crate::domain::ids::{DeploymentId, Email, ProjectId, UserId};
use crate::domain::observation::{Interest, MembersRead};
use crate::domain::request::Principal;
use crate::ports::provider::{Deployment, Priority, Project, ReadError};

use super::cache::Snapshot;
use super::error::{Result, ServiceError};
use super::{Integration, Service};

/// Who a principal turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolved {
    /// A member.
    Member(UserId),
    /// Nobody yet: a complete read shows no such member.
    Nobody,
}

impl Service {
    /// Resolves a principal from memory or from a shared read.
    pub(super) async fn resolve_member(
        &self,
        integration: &Integration,
        who: &Principal,
        priority: Priority,
    ) -> Result<Resolved> {
        if let Some(user) = integration.members.get(who, self.clock.since_boot()) {
            refuse_own(integration, &user)?;
            return Ok(Resolved::Member(user));
        }
        let (_, resolved) = self.observe_member(integration, who, priority).await?;
        Ok(resolved)
    }

    /// Resolves a principal from a fresh read, and hands out that read.
    pub(super) async fn observe_member(
        &self,
        integration: &Integration,
        who: &Principal,
        priority: Priority,
    ) -> Result<(Arc<MembersRead>, Resolved)> {
        let since_boot = self.clock.since_boot();
        let interest = match who {
            Principal::User(user) => Interest::user(user.clone()),
            Principal::Email(email) => Interest::email(email.clone()),
        };
        let read = integration
            .observer
            .observe(interest, priority)
            .await
            .map_err(ServiceError::Upstream)?;
        let resolved = find(&read, who)?;
        if let Resolved::Member(user) = &resolved {
            refuse_own(integration, user)?;
            if read.is_complete() {
                integration
                    .members
                    .put(who.clone(), user.clone(), since_boot);
            }
        }
        Ok((read, resolved))
    }

    /// Refuses targets that do not exist in the organization of the integration.
    pub(super) async fn check_targets(
        &self,
        integration: &Integration,
        targets: &BTreeSet<Target>,
    ) -> Result<()> {
        for target in targets {
            match target {
                Target::Organization | Target::AllDeployments | Target::AllProjects { .. } => {}
                Target::Deployment { id } => self.check_deployment(integration, id).await?,
                Target::Project { project_type, id } => {
                    self.check_project(integration, *project_type, id).await?;
                }
            }
        }
        Ok(())
    }

    async fn check_deployment(&self, integration: &Integration, id: &DeploymentId) -> Result<()> {
        let known = match self
            .deployments_for(integration, false, Priority::Verify)
            .await
        {
            Ok(list) => list.items.contains_key(id),
            Err(error) => {
                return stale_hit(integration.deployments.last().as_deref(), id, error);
            }
        };
        if known
            || self
                .deployments_for(integration, true, Priority::Verify)
                .await
                .map_err(ServiceError::Upstream)?
                .items
                .contains_key(id)
        {
            return Ok(());
        }
        Err(ServiceError::UnknownResource {
            what: format!("deployment {id}"),
            list: "ListDeployments",
        })
    }

    async fn check_project(
        &self,
        integration: &Integration,
        kind: ProjectType,
        id: &ProjectId,
    ) -> Result<()> {
        let known = match self
            .projects_for(integration, kind, false, Priority::Verify)
            .await
        {
            Ok(list) => list.items.contains_key(id),
            Err(error) => {
                let listing = &integration.projects[index(kind)];
                return stale_hit(listing.last().as_deref(), id, error);
            }
        };
        if known
            || self
                .projects_for(integration, kind, true, Priority::Verify)
                .await
                .map_err(ServiceError::Upstream)?
                .items
                .contains_key(id)
        {
            return Ok(());
        }
        Err(ServiceError::UnknownResource {
            what: format!("{kind} project {id}"),
            list: "ListProjects",
        })
    }

    /// Deployments, from memory unless `afresh`.
    pub(super) async fn deployments_of(
        &self,
        integration: &Integration,
        afresh: bool,
    ) -> std::result::Result<Arc<Snapshot<DeploymentId, Deployment>>, ReadError> {
        self.deployments_for(integration, afresh, Priority::Discovery)
            .await
    }

    /// The same for an accept, which must be answered also while removals take the whole budget: such a read counts
    /// as one that proves something, and at most one a minute is made.
    async fn deployments_for(
        &self,
        integration: &Integration,
        afresh: bool,
        priority: Priority,
    ) -> std::result::Result<Arc<Snapshot<DeploymentId, Deployment>>, ReadError> {
        integration
            .deployments
            .at_least(&*self.clock, self.not_before(afresh), || async {
                let list = self
                    .noted(
                        integration,
                        integration.provider.deployments(priority).await,
                    )
                    .await?;
                Ok(list
                    .into_iter()
                    .map(|item| (item.id.clone(), item))
                    .collect::<BTreeMap<_, _>>())
            })
            .await
    }

    /// Projects of one type, from memory unless `afresh`.
    pub(super) async fn projects_of(
        &self,
        integration: &Integration,
        kind: ProjectType,
        afresh: bool,
    ) -> std::result::Result<Arc<Snapshot<ProjectId, Project>>, ReadError> {
        self.projects_for(integration, kind, afresh, Priority::Discovery)
            .await
    }

    async fn projects_for(
        &self,
        integration: &Integration,
        kind: ProjectType,
        afresh: bool,
        priority: Priority,
    ) -> std::result::Result<Arc<Snapshot<ProjectId, Project>>, ReadError> {
        integration.projects[index(kind)]
            .at_least(&*self.clock, self.not_before(afresh), || async {
                let list = self
                    .noted(
                        integration,
                        integration.provider.projects(kind, priority).await,
                    )
                    .await?;
                Ok(list
                    .into_iter()
                    .map(|item| (item.id.clone(), item))
                    .collect::<BTreeMap<_, _>>())
            })
            .await
    }

    fn not_before(&self, afresh: bool) -> std::time::Duration {
        let now = self.clock.since_boot();
        if afresh {
            now
        } else {
            now.saturating_sub(self.settings.discovery_ttl)
        }
    }
}

/// Maps role text and targets to a canonical role and a set of targets of one scope.
pub(super) fn role_and_targets(
    role: &str,
    targets: Vec<Target>,
) -> Result<(String, BTreeSet<Target>)> {
    let targets: BTreeSet<Target> = targets.into_iter().collect();
    let mut scopes = targets.iter().map(Target::scope);
    let Some(scope) = scopes.next() else {
        return Err(ServiceError::invalid(
            "spec.targets",
            "name at least one target; \"all\" is a target of its own",
        ));
    };
    if scopes.any(|other| other != scope) {
        return Err(ServiceError::invalid(
            "spec.targets",
            "all targets of a grant must be of one scope; ask for one grant per scope",
        ));
    }
    let role = catalogue::resolve(role, scope)
        .map_err(|unknown| ServiceError::invalid("spec.role", unknown.to_string()))?;
    Ok((role.id.to_owned(), targets))
}

/// The one member that a read shows under a name.
fn find(read: &MembersRead, who: &Principal) -> Result<Resolved> {
    let found = match who {
        Principal::User(user) => read.member(user),
        Principal::Email(email) => one_of(read, email)?,
    };
    match found {
        Some(member) => Ok(Resolved::Member(member.user_id.clone())),
        None if read.is_complete() => Ok(Resolved::Nobody),
        None => Err(ServiceError::NotShown),
    }
}

fn one_of<'a>(
    read: &'a MembersRead,
    email: &'a Email,
) -> Result<Option<&'a crate::domain::observation::ObservedMember>> {
    let mut found = read.by_email(email);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(ServiceError::Ambiguous),
        (first, _) => Ok(first),
    }
}

fn refuse_own(integration: &Integration, user: &UserId) -> Result<()> {
    if integration.provider.key_status().own_user_id.as_ref() == Some(user) {
        return Err(ServiceError::OwnIdentity);
    }
    Ok(())
}

/// While discovery is away, what was seen before is good enough to accept: giving access decides again.
fn stale_hit<K: Ord, V>(last: Option<&Snapshot<K, V>>, id: &K, error: ReadError) -> Result<()> {
    match last {
        Some(list) if list.items.contains_key(id) => Ok(()),
        _ => Err(ServiceError::Upstream(error)),
    }
}

pub(super) fn index(kind: ProjectType) -> usize {
    match kind {
        ProjectType::Elasticsearch => 0,
        ProjectType::Observability => 1,
        ProjectType::Security => 2,
    }
}
