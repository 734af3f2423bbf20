//! Role assignments: one role on one target for one member.
//!
//! Owns equality and coverage of assignments. Never decides whether one may be given or taken.

mod text;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::ids::{ApplicationRole, DeploymentId, ProjectId};

/// The three types of serverless project that carry roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectType {
    /// Elasticsearch projects.
    Elasticsearch,
    /// Observability projects.
    Observability,
    /// Security projects.
    Security,
}

impl ProjectType {
    /// Every type, in the order of the API.
    pub const ALL: [Self; 3] = [Self::Elasticsearch, Self::Observability, Self::Security];

    /// The name used in paths and role ids.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::Observability => "observability",
            Self::Security => "security",
        }
    }
}

impl fmt::Display for ProjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a role can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The organization itself.
    Organization,
    /// Hosted deployments.
    Deployment,
    /// Serverless projects of one type.
    Project(ProjectType),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization => f.write_str("organization"),
            Self::Deployment => f.write_str("deployment"),
            Self::Project(kind) => write!(f, "{kind} project"),
        }
    }
}

/// What a role is held on. *All* is its own value and never follows from an empty list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Target {
    /// The organization of the integration.
    Organization,
    /// One hosted deployment.
    Deployment {
        /// Its id.
        id: DeploymentId,
    },
    /// Every hosted deployment, present and future.
    AllDeployments,
    /// One serverless project.
    Project {
        /// Its type.
        project_type: ProjectType,
        /// Its id.
        id: ProjectId,
    },
    /// Every serverless project of one type, present and future.
    AllProjects {
        /// The type.
        project_type: ProjectType,
    },
}

impl Target {
    /// The scope a role must have to be held here.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Organization => Scope::Organization,
            Self::Deployment { .. } | Self::AllDeployments => Scope::Deployment,
            Self::Project { project_type, .. } | Self::AllProjects { project_type } => {
                Scope::Project(*project_type)
            }
        }
    }

    /// Whether this is an *all* target.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::AllDeployments | Self::AllProjects { .. })
    }

    /// The *all* target that includes this one; `None` for an organization.
    #[must_use]
    pub fn whole(&self) -> Option<Self> {
        match self {
            Self::Organization => None,
            Self::Deployment { .. } | Self::AllDeployments => Some(Self::AllDeployments),
            Self::Project { project_type, .. } | Self::AllProjects { project_type } => {
                Some(Self::AllProjects {
                    project_type: *project_type,
                })
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization => f.write_str("organization"),
            Self::Deployment { id } => write!(f, "deployment/{id}"),
            Self::AllDeployments => f.write_str("deployment/all"),
            Self::Project { project_type, id } => write!(f, "{project_type}/{id}"),
            Self::AllProjects { project_type } => write!(f, "{project_type}/all"),
        }
    }
}

/// What a member becomes when signing in to the stack behind a deployment or project.
///
/// Absent and empty differ upstream: absent maps the role to its default stack role, an empty list means no
/// sign-in to the stack at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationRoles {
    /// The stack role that Elastic maps the role id to.
    #[default]
    Mapped,
    /// Exactly these stack roles; none of them means Cloud Console only.
    Exactly(BTreeSet<ApplicationRole>),
}

/// One role on one target: the unit that is owned, added, removed and proven gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// Canonical (prefixed) role id; text from upstream may hold ids that the catalogue does not know.
    pub role: String,
    /// Where the role is held.
    pub target: Target,
    /// Stack roles that belong to this pair.
    pub application_roles: ApplicationRoles,
}

impl Assignment {
    /// Whether holding `self` gives everything that `other` would: equal, or *all* of the same role with equal
    /// application roles.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self == other
            || (self.role == other.role
                && self.application_roles == other.application_roles
                && self.target.is_all()
                && other.target.whole().as_ref() == Some(&self.target))
    }

    /// Whether a removal of `other` might upstream also touch `self`: entries of one role are neighbours, because
    /// nobody knows whether Elastic collapses them or what DELETE compares.
    #[must_use]
    pub fn is_neighbour_of(&self, other: &Self) -> bool {
        self != other && self.role == other.role && self.target.scope() == other.target.scope()
    }

    /// Relative power left open while this assignment outlives its time; higher goes first.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let base =
            catalogue::find(&self.role).map_or(catalogue::UNKNOWN_WEIGHT, |role| role.weight);
        if self.target.is_all() { base * 2 } else { base }
    }
}

/// Power that assignments leave open together: one call takes all of them away, so their weights add up.
#[must_use]
pub fn total_weight<'a>(assignments: impl IntoIterator<Item = &'a Assignment>) -> u32 {
    assignments
        .into_iter()
        .map(Assignment::weight)
        .fold(0, u32::saturating_add)
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.role, self.target)?;
        if let ApplicationRoles::Exactly(roles) = &self.application_roles {
            let names: Vec<&str> = roles.iter().map(ApplicationRole::as_str).collect();
            write!(f, " as [{}]", names.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(target: Target) -> Assignment {
        Assignment {
            role: "deployment-viewer".to_owned(),
            target,
            application_roles: ApplicationRoles::Mapped,
        }
    }

    fn deployment(id: &str) -> Target {
        Target::Deployment {
            id: DeploymentId::parse(id).expect("valid id"),
        }
    }

    #[test]
    fn all_covers_each_target_only_with_equal_application_roles() {
        let all = on(Target::AllDeployments);
        let one = on(deployment("a"));
        assert!(all.covers(&one));
        assert!(!one.covers(&all));
        let narrower = Assignment {
            application_roles: ApplicationRoles::Exactly(BTreeSet::new()),
            ..one
        };
        assert!(!all.covers(&narrower));
    }

    #[test]
    fn neighbours_share_the_role_and_are_not_the_same() {
        let (a, b) = (on(deployment("a")), on(deployment("b")));
        assert!(a.is_neighbour_of(&b));
        assert!(!a.is_neighbour_of(&a.clone()));
        assert!(
            !Assignment {
                role: "deployment-admin".to_owned(),
                ..a.clone()
            }
            .is_neighbour_of(&b)
        );
    }
}
