//! The JSON of the Elastic Cloud API.
//!
//! Owns its shapes, read tolerantly: unknown fields are skipped, null is absent, a field of an odd type is told
//! apart from an absent one. Never used outside of this adapter.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Text that may be missing or something else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Text {
    #[default]
    Absent,
    Is(String),
    /// Not text at all.
    Odd,
}

impl Text {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Is(text) => Some(text),
            Self::Absent | Self::Odd => None,
        }
    }

    pub(super) fn into_string(self) -> Option<String> {
        match self {
            Self::Is(text) => Some(text),
            Self::Absent | Self::Odd => None,
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;
        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text::Is(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text::Is(text))
            }
            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text::Absent)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text::Odd)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
                Ok(Text::Odd)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
                Ok(Text::Odd)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
                Ok(Text::Odd)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text::Odd)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text::Odd)
            }
        }
        deserializer.deserialize_any(AnyVisitor)
    }
}

/// A list in which null stands for empty.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `OrganizationMembership`.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    #[serde(default)]
    pub(super) organization_id: Text,
    #[serde(default)]
    pub(super) user_id: Text,
    #[serde(default)]
    pub(super) member_since: Text,
    #[serde(default)]
    pub(super) name: Text,
    #[serde(default)]
    pub(super) email: Text,
    #[serde(default)]
    pub(super) role_assignments: Option<Value>,
}

/// An entry of `RoleAssignments` as it is read, of any scope.
#[derive(Debug, Deserialize)]
pub(super) struct ShownEntry {
    #[serde(default)]
    pub(super) role_id: Text,
    #[serde(default)]
    pub(super) organization_id: Text,
    #[serde(default)]
    pub(super) all: Option<bool>,
    #[serde(default, deserialize_with = "list")]
    pub(super) deployment_ids: Vec<Text>,
    #[serde(default, deserialize_with = "list")]
    pub(super) project_ids: Vec<Text>,
    #[serde(default)]
    pub(super) application_roles: Option<Vec<Text>>,
}

/// `RoleAssignments` as it is sent: without a single null.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RoleAssignments {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) organization: Vec<SentEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deployment: Vec<SentEntry>,
    #[serde(skip_serializing_if = "ProjectAssignments::is_empty")]
    pub(super) project: ProjectAssignments,
}

/// The part of `RoleAssignments` for projects.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProjectAssignments {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) elasticsearch: Vec<SentEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) observability: Vec<SentEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) security: Vec<SentEntry>,
}

impl ProjectAssignments {
    fn is_empty(&self) -> bool {
        self.elasticsearch.is_empty() && self.observability.is_empty() && self.security.is_empty()
    }
}

/// An entry of `RoleAssignments` as it is sent.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SentEntry {
    pub(super) role_id: String,
    pub(super) organization_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deployment_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) project_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) application_roles: Option<Vec<String>>,
}

/// `BasicFailedReply`, of which only the codes are of use.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    #[serde(default, deserialize_with = "list")]
    pub(super) errors: Vec<FailureEntry>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FailureEntry {
    #[serde(default)]
    pub(super) code: Text,
}

/// `OrganizationList`.
#[derive(Debug, Deserialize)]
pub(super) struct Organizations {
    #[serde(deserialize_with = "list")]
    pub(super) organizations: Vec<Organization>,
    #[serde(default)]
    pub(super) next_page: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct Organization {
    #[serde(default)]
    pub(super) id: Text,
    #[serde(default)]
    pub(super) name: Text,
}

/// `OrganizationInvitations`.
#[derive(Debug, Deserialize)]
pub(super) struct Invitations {
    #[serde(deserialize_with = "list")]
    pub(super) invitations: Vec<Invitation>,
    #[serde(default)]
    pub(super) next_page: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct Invitation {
    #[serde(default)]
    pub(super) token: Text,
    #[serde(default)]
    pub(super) email: Text,
    #[serde(default)]
    pub(super) created_at: Text,
    #[serde(default)]
    pub(super) expires_at: Text,
    #[serde(default)]
    pub(super) accepted_at: Text,
    #[serde(default)]
    pub(super) expired: Option<bool>,
    #[serde(default)]
    pub(super) organization: Option<Organization>,
}

/// `OrganizationInvitationRequest`, without roles.
#[derive(Debug, Serialize)]
pub(super) struct Invite<'a> {
    pub(super) emails: [&'a str; 1],
    pub(super) expires_in: String,
}

/// `ApiKeysResponse`.
#[derive(Debug, Deserialize)]
pub(super) struct ApiKeys {
    #[serde(deserialize_with = "list")]
    pub(super) keys: Vec<ApiKey>,
}

/// `ApiKeyResponse`, without the key.
#[derive(Debug, Deserialize)]
pub(super) struct ApiKey {
    #[serde(default)]
    pub(super) id: Text,
    #[serde(default)]
    pub(super) description: Text,
    #[serde(default)]
    pub(super) user_id: Text,
    #[serde(default)]
    pub(super) role_assignments: Option<Value>,
    #[serde(default)]
    pub(super) expiration_date: Text,
}

/// `ApiKeyResponse` of a key that was just made: the only time that it is shown.
#[derive(Deserialize)]
pub(super) struct MadeApiKey {
    #[serde(default)]
    pub(super) id: Text,
    pub(super) key: Option<SecretString>,
    #[serde(default)]
    pub(super) expiration_date: Text,
}

/// `SearchRequest`: a first page names its size, a further one only its cursor.
#[derive(Debug, Serialize)]
pub(super) struct Search<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<&'a str>,
}

/// `DeploymentsSearchResponse`.
#[derive(Debug, Deserialize)]
pub(super) struct Deployments {
    #[serde(deserialize_with = "list")]
    pub(super) deployments: Vec<Deployment>,
    #[serde(default)]
    pub(super) cursor: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct Deployment {
    #[serde(default)]
    pub(super) id: Text,
    #[serde(default)]
    pub(super) name: Text,
    #[serde(default)]
    pub(super) alias: Text,
    #[serde(default)]
    pub(super) resources: Option<Resources>,
    #[serde(default)]
    pub(super) metadata: Option<DeploymentMetadata>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Resources {
    #[serde(default, deserialize_with = "list")]
    pub(super) elasticsearch: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) region: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct DeploymentMetadata {
    #[serde(default, deserialize_with = "list")]
    pub(super) tags: Vec<Tag>,
    #[serde(default)]
    pub(super) hidden: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    #[serde(default)]
    pub(super) key: Text,
    #[serde(default)]
    pub(super) value: Text,
}

/// A list of projects of one type.
#[derive(Debug, Deserialize)]
pub(super) struct Projects {
    #[serde(deserialize_with = "list")]
    pub(super) items: Vec<Project>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Project {
    #[serde(default)]
    pub(super) id: Text,
    #[serde(default)]
    pub(super) name: Text,
    #[serde(default)]
    pub(super) alias: Text,
    #[serde(default)]
    pub(super) region_id: Text,
    #[serde(default)]
    pub(super) metadata: Option<ProjectMetadata>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProjectMetadata {
    #[serde(default)]
    pub(super) tags: Option<BTreeMap<String, Text>>,
}

/// `ProjectRolesByProjectID`.
pub(super) type ProjectRolesById = BTreeMap<String, ProjectRoles>;

#[derive(Debug, Deserialize)]
pub(super) struct ProjectRoles {
    #[serde(default, deserialize_with = "list")]
    pub(super) roles: Vec<ProjectRole>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProjectRole {
    #[serde(default)]
    pub(super) name: Text,
    #[serde(default)]
    pub(super) description: Text,
}
