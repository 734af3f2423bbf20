//! What exists in the simulated cloud, and the file it is loaded from.
//!
//! Owns the data and its consistency checks. Never answers a request.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::assignments::Assignments;

/// Everything there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The organizations; the first is the one the ready line names
    pub organizations: Vec<Organization>,
    /// Accounts that belong to no organization
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<Person>,
    /// Serverless regions
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
}

/// An account without an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// A numeric text
    pub user_id: String,
    /// The address
    pub email: String,
    /// The display name
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A serverless region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Such as `aws-us-east-1`
    pub id: String,
    /// The display name
    pub name: String,
    /// `aws`, `gcp` or `azure`
    pub csp: String,
    /// The provider's own name of it
    pub csp_region: String,
    /// Two letters
    pub country_code: String,
    /// Whether projects can be made there
    pub project_creation_enabled: bool,
}

/// An organization and everything in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// A numeric text
    pub id: String,
    /// The display name
    pub name: String,
    /// Further fields of the organization, answered as they are
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// Whether the account trusts all of its own deployments
    #[serde(default = "yes")]
    pub trust_all: bool,
    /// The members
    #[serde(default)]
    pub members: Vec<Member>,
    /// Open and expired invitations
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invitations: Vec<Invitation>,
    /// The Cloud API keys
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// The hosted deployments
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<Deployment>,
    /// The serverless projects
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<Project>,
}

/// A member of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// A numeric text
    pub user_id: String,
    /// The address
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// The display name
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When the person joined
    pub member_since: DateTime<Utc>,
    /// What the person holds
    #[serde(default, skip_serializing_if = "Assignments::is_empty")]
    pub role_assignments: Assignments,
}

/// An invitation that nobody accepted yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// What the link carries
    pub token: String,
    /// Whom it was sent to
    pub email: String,
    /// When it was sent
    pub created_at: DateTime<Utc>,
    /// When it stops being valid
    pub expires_at: DateTime<Utc>,
    /// What the person will hold
    #[serde(default, skip_serializing_if = "Assignments::is_empty")]
    pub role_assignments: Assignments,
}

/// A Cloud API key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The public id
    pub id: String,
    /// The whole value that clients send
    pub key: String,
    /// What it is for
    pub description: String,
    /// When it was made
    pub creation_date: DateTime<Utc>,
    /// When it ends; never, if absent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<DateTime<Utc>>,
    /// Who made it
    pub user_id: String,
    /// What it may do
    #[serde(default, skip_serializing_if = "Assignments::is_empty")]
    pub role_assignments: Assignments,
}

impl ApiKey {
    /// Whether the key has ended.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expiration_date.is_some_and(|end| end <= now)
    }
}

/// A key and a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The key
    pub key: String,
    /// The value
    pub value: String,
}

/// A hosted deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// 32 hexadecimal digits
    pub id: String,
    /// The display name
    pub name: String,
    /// The alias
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Whether it is healthy
    #[serde(default = "yes")]
    pub healthy: bool,
    /// Shut down: still there, but left out of lists
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Tags
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// What it consists of
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
}

/// A resource of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// `elasticsearch`, `kibana`, `integrations_server`, ...
    pub kind: String,
    /// 32 hexadecimal digits
    pub id: String,
    /// Such as `main-elasticsearch`
    pub ref_id: String,
    /// The region
    pub region: String,
    /// The cloud id, for Elasticsearch
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_id: Option<String>,
}

/// The three types of serverless projects the API lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectType {
    /// `elasticsearch`
    Elasticsearch,
    /// `observability`
    Observability,
    /// `security`
    Security,
}

impl ProjectType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Elasticsearch, Self::Observability, Self::Security];

    /// The name in paths and in `role_assignments`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::Observability => "observability",
            Self::Security => "security",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A serverless project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// 32 of a-z and 0-9
    pub id: String,
    /// The type
    #[serde(rename = "type")]
    pub kind: ProjectType,
    /// The display name
    pub name: String,
    /// 8 to 57 characters
    pub alias: String,
    /// The region's id
    pub region_id: String,
    /// When it was made
    pub created_at: DateTime<Utc>,
    /// Who made it
    pub created_by: String,
    /// `initialized`, `suspended`, ...
    #[serde(default = "initialized")]
    pub phase: String,
    /// Tags
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Further fields, answered as they are (`optimized_for`, `product_types`, ...)
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// An Elasticsearch API key with all rights in this project
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch_key: Option<String>,
    /// The custom roles, by name, as Elasticsearch role descriptors
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Value>,
}

fn yes() -> bool {
    true
}

fn initialized() -> String {
    "initialized".to_owned()
}

/// Why a world could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The file cannot be read
    #[error("read the world file {path}")]
    Read {
        /// Which file
        path: String,
        /// Why
        #[source]
        source: std::io::Error,
    },
    /// The text is neither YAML nor JSON of the documented form
    #[error("parse the world at {at}")]
    Parse {
        /// The path inside the document
        at: String,
        /// Why
        #[source]
        source: serde_yaml::Error,
    },
    /// The parts do not fit together
    #[error("inconsistent world: {0}")]
    Inconsistent(String),
}

impl World {
    /// Reads YAML or JSON and checks it.
    ///
    /// # Errors
    /// When the text does not parse, or its parts do not fit together.
    pub fn from_text(text: &str) -> Result<Self, WorldError> {
        let document = serde_yaml::Deserializer::from_str(text);
        let world: Self =
            serde_path_to_error::deserialize(document).map_err(|error| WorldError::Parse {
                at: error.path().to_string(),
                source: error.into_inner(),
            })?;
        world.check()?;
        Ok(world)
    }

    /// Reads a file of YAML or JSON.
    ///
    /// # Errors
    /// When it cannot be read or parsed, or its parts do not fit together.
    pub fn from_file(path: &std::path::Path) -> Result<Self, WorldError> {
        let text = std::fs::read_to_string(path).map_err(|source| WorldError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::from_text(&text)
    }

    /// Checks that ids are unique and of the right form, and that there is an organization.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self) -> Result<(), WorldError> {
        let wrong = |what: String| Err(WorldError::Inconsistent(what));
        if self.organizations.is_empty() {
            return wrong("there is no organization".to_owned());
        }
        let mut seen = BTreeSet::new();
        let mut once = |kind: &str, id: &str| {
            if id.is_empty() {
                return wrong(format!("a {kind} has an empty id"));
            }
            if seen.insert(format!("{kind}/{id}")) {
                Ok(())
            } else {
                wrong(format!("{kind} {id} is there twice"))
            }
        };
        for person in &self.people {
            once("user", &person.user_id)?;
        }
        for organization in &self.organizations {
            once("organization", &organization.id)?;
            for member in &organization.members {
                once("user", &member.user_id)?;
            }
            for invitation in &organization.invitations {
                once("invitation", &invitation.token)?;
            }
            for key in &organization.api_keys {
                once("key", &key.id)?;
                once("key value", &key.key)?;
            }
            for deployment in &organization.deployments {
                once("deployment", &deployment.id)?;
                if deployment.id.len() != 32 {
                    return wrong(format!("deployment id {} is not 32 long", deployment.id));
                }
            }
            for project in &organization.projects {
                once("project", &project.id)?;
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                if project.id.len() != 32 || !project.id.chars().all(plain) {
                    return wrong(format!("project id {} is not 32 of a-z0-9", project.id));
                }
            }
        }
        Ok(())
    }

    /// The organization of this id.
    #[must_use]
    pub fn organization(&self, id: &str) -> Option<&Organization> {
        self.organizations
            .iter()
            .find(|organization| organization.id == id)
    }

    /// The organization of this id, to change it.
    pub fn organization_mut(&mut self, id: &str) -> Option<&mut Organization> {
        self.organizations
            .iter_mut()
            .find(|organization| organization.id == id)
    }

    /// The organization this user is a member of, and the member.
    #[must_use]
    pub fn membership(&self, user_id: &str) -> Option<(&Organization, &Member)> {
        self.organizations
            .iter()
            .find_map(|organization| organization.member(user_id).map(|m| (organization, m)))
    }

    /// A member of any organization, to change it.
    pub fn member_mut(&mut self, user_id: &str) -> Option<&mut Member> {
        self.organizations
            .iter_mut()
            .find_map(|organization| organization.member_mut(user_id))
    }

    /// A deployment of any organization, to change it.
    pub fn deployment_mut(&mut self, id: &str) -> Option<&mut Deployment> {
        self.organizations
            .iter_mut()
            .flat_map(|organization| &mut organization.deployments)
            .find(|deployment| deployment.id == id)
    }

    /// A project of any organization, and the organization.
    #[must_use]
    pub fn project(&self, id: &str) -> Option<(&Organization, &Project)> {
        self.organizations.iter().find_map(|organization| {
            let project = organization
                .projects
                .iter()
                .find(|project| project.id == id)?;
            Some((organization, project))
        })
    }

    /// A project of any organization, to change it.
    pub fn project_mut(&mut self, id: &str) -> Option<&mut Project> {
        self.organizations
            .iter_mut()
            .flat_map(|organization| &mut organization.projects)
            .find(|project| project.id == id)
    }

    /// The same world in one fixed order, for dumping and comparing.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut world = self.clone();
        world.people.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        for organization in &mut world.organizations {
            organization
                .members
                .sort_by(|a, b| a.user_id.cmp(&b.user_id));
            organization
                .invitations
                .sort_by(|a, b| a.token.cmp(&b.token));
            organization.api_keys.sort_by(|a, b| a.id.cmp(&b.id));
            organization.deployments.sort_by(|a, b| a.id.cmp(&b.id));
            organization.projects.sort_by(|a, b| a.id.cmp(&b.id));
            for member in &mut organization.members {
                member.role_assignments = member.role_assignments.normalised();
            }
            for invitation in &mut organization.invitations {
                invitation.role_assignments = invitation.role_assignments.normalised();
            }
            for key in &mut organization.api_keys {
                key.role_assignments = key.role_assignments.normalised();
            }
        }
        world
    }
}

impl Organization {
    /// The member of this user id.
    #[must_use]
    pub fn member(&self, user_id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.user_id == user_id)
    }

    /// The member of this user id, to change it.
    pub fn member_mut(&mut self, user_id: &str) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.user_id == user_id)
    }

    /// How many members are organization owners.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.members
            .iter()
            .filter(|m| {
                m.role_assignments
                    .has_organization_role(&self.id, "organization-admin")
            })
            .count()
    }
}
