//! Role assignments as a set of (role, resource) pairs, and their wire shape.
//!
//! Owns parsing, writing, union, subtraction and merging. Never decides whether a caller may make
//! a change; `access` and `roles` do.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The list of `role_assignments` an entry stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `platform`
    Platform,
    /// `organization`
    Organization,
    /// `deployment`
    Deployment,
    /// `project.<type>`, with the type's name
    Project(String),
    /// Any other top-level list (such as `cloud_connected_resource`), kept as it came
    Other(String),
}

impl Scope {
    /// The field that lists resource ids in an entry of this scope.
    #[must_use]
    pub fn ids_field(&self) -> Option<&'static str> {
        match self {
            Self::Platform | Self::Organization => None,
            Self::Deployment => Some("deployment_ids"),
            Self::Project(_) => Some("project_ids"),
            Self::Other(_) => Some("resource_ids"),
        }
    }

    fn label(&self) -> &str {
        match self {
            Self::Platform => "platform",
            Self::Organization => "organization",
            Self::Deployment => "deployment",
            Self::Project(kind) => kind,
            Self::Other(name) => name,
        }
    }
}

/// One entry of `role_assignments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Where it stands
    pub scope: Scope,
    /// The role's id
    pub role_id: String,
    /// The organization it names; the specification requires it, requests may lack it
    pub organization_id: Option<String>,
    /// The `all` flag as sent
    pub all: Option<bool>,
    /// The resource ids as sent
    pub ids: Option<Vec<String>>,
    /// Stack roles; absent and empty mean different things
    pub application_roles: Option<Vec<String>>,
    /// Fields this model does not know, preserved
    pub extra: Map<String, Value>,
}

/// What one pair points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The entry has no resource (organization and platform roles)
    Whole,
    /// All resources of the scope
    All,
    /// One resource
    Id(String),
}

/// One (role, resource) pair: the unit of union and subtraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) scope: Scope,
    pub(crate) role_id: String,
    pub(crate) organization_id: Option<String>,
    pub(crate) target: Target,
    pub(crate) application_roles: Option<BTreeSet<String>>,
}

impl Pair {
    /// A short text for the call log, such as `deployment/deployment-admin/<id>`.
    pub(crate) fn label(&self) -> String {
        let target = match &self.target {
            Target::Whole => "-",
            Target::All => "*",
            Target::Id(id) => id,
        };
        format!("{}/{}/{target}", self.scope.label(), self.role_id)
    }
}

impl Assignment {
    /// An organization role.
    #[must_use]
    pub fn organization(organization_id: &str, role_id: &str) -> Self {
        Self::bare(Scope::Organization, organization_id, role_id)
    }

    /// A role on the named deployments.
    #[must_use]
    pub fn deployments(organization_id: &str, role_id: &str, ids: &[&str]) -> Self {
        Self::bare(Scope::Deployment, organization_id, role_id).on(ids)
    }

    /// A role on the named projects of one type.
    #[must_use]
    pub fn projects(organization_id: &str, kind: &str, role_id: &str, ids: &[&str]) -> Self {
        Self::bare(Scope::Project(kind.to_owned()), organization_id, role_id).on(ids)
    }

    /// The same entry on everything of its scope.
    #[must_use]
    pub fn on_all(mut self) -> Self {
        self.all = Some(true);
        self.ids = None;
        self
    }

    /// The same entry with these stack roles.
    #[must_use]
    pub fn with_application_roles(mut self, roles: &[&str]) -> Self {
        self.application_roles = Some(roles.iter().map(|role| (*role).to_owned()).collect());
        self
    }

    fn on(mut self, ids: &[&str]) -> Self {
        self.ids = Some(ids.iter().map(|id| (*id).to_owned()).collect());
        self
    }

    fn bare(scope: Scope, organization_id: &str, role_id: &str) -> Self {
        Self {
            scope,
            role_id: role_id.to_owned(),
            organization_id: Some(organization_id.to_owned()),
            all: None,
            ids: None,
            application_roles: None,
            extra: Map::new(),
        }
    }

    fn parse(scope: &Scope, value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else {
            return Err("an assignment must be an object".to_owned());
        };
        let mut extra = Map::new();
        let mut entry = Self {
            scope: scope.clone(),
            role_id: String::new(),
            organization_id: None,
            all: None,
            ids: None,
            application_roles: None,
            extra: Map::new(),
        };
        let ids_field = scope.ids_field();
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            match name.as_str() {
                "role_id" => entry.role_id = text_of(name, value)?,
                "organization_id" => entry.organization_id = Some(text_of(name, value)?),
                "all" if ids_field.is_some() => {
                    entry.all = Some(value.as_bool().ok_or("all must be true or false")?);
                }
                "application_roles" => entry.application_roles = Some(texts_of(name, value)?),
                _ if Some(name.as_str()) == ids_field => {
                    entry.ids = Some(texts_of(name, value)?);
                }
                _ => {
                    extra.insert(name.clone(), value.clone());
                }
            }
        }
        if entry.role_id.is_empty() {
            return Err("role_id is required".to_owned());
        }
        entry.extra = extra;
        Ok(entry)
    }

    /// The entry as JSON; `show_all_false` writes `"all": false` beside ids.
    #[must_use]
    pub fn to_json(&self, show_all_false: bool) -> Value {
        let mut fields = self.extra.clone();
        fields.insert("role_id".to_owned(), json!(self.role_id));
        if let Some(organization_id) = &self.organization_id {
            fields.insert("organization_id".to_owned(), json!(organization_id));
        }
        if let Some(ids_field) = self.scope.ids_field() {
            if self.all == Some(true) {
                fields.insert("all".to_owned(), json!(true));
            } else if let Some(ids) = &self.ids {
                fields.insert(ids_field.to_owned(), json!(ids));
                if show_all_false {
                    fields.insert("all".to_owned(), json!(false));
                }
            }
        }
        if let Some(roles) = &self.application_roles {
            fields.insert("application_roles".to_owned(), json!(roles));
        }
        Value::Object(fields)
    }

    fn targets(&self) -> Vec<Target> {
        if self.scope.ids_field().is_none() {
            return vec![Target::Whole];
        }
        if self.all == Some(true) {
            return vec![Target::All];
        }
        let ids: BTreeSet<&String> = self.ids.iter().flatten().collect();
        ids.into_iter().cloned().map(Target::Id).collect()
    }

    /// The pairs this entry stands for.
    pub(crate) fn pairs(&self) -> Vec<Pair> {
        self.targets()
            .into_iter()
            .map(|target| Pair {
                scope: self.scope.clone(),
                role_id: self.role_id.clone(),
                organization_id: self.organization_id.clone(),
                target,
                application_roles: self.role_set(),
            })
            .collect()
    }

    pub(crate) fn role_set(&self) -> Option<BTreeSet<String>> {
        self.application_roles
            .as_ref()
            .map(|roles| roles.iter().cloned().collect())
    }

    fn same_kind(&self, other: &Self) -> bool {
        self.scope == other.scope
            && self.role_id == other.role_id
            && self.organization_id == other.organization_id
            && self.role_set() == other.role_set()
            && self.extra == other.extra
    }

    /// Whether this entry holds the pair; `None` for `exact` ignores stack roles.
    fn holds(&self, pair: &Pair, exact: bool) -> bool {
        self.scope == pair.scope
            && self.role_id == pair.role_id
            && (pair.organization_id.is_none() || self.organization_id == pair.organization_id)
            && (!exact || self.role_set() == pair.application_roles)
            && match &pair.target {
                Target::Whole => true,
                Target::All => self.all == Some(true),
                Target::Id(id) => {
                    self.all != Some(true) && self.ids.iter().flatten().any(|held| held == id)
                }
            }
    }
}

/// Everything one holder has, in order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignments {
    /// The entries
    pub entries: Vec<Assignment>,
}

impl Assignments {
    /// From entries, as they are.
    #[must_use]
    pub fn new(entries: Vec<Assignment>) -> Self {
        Self { entries }
    }

    /// Reads the wire shape. Nulls are absent fields, unknown lists are kept.
    ///
    /// # Errors
    /// A text saying which field has the wrong type.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let fields = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err("role_assignments must be an object".to_owned());
            }
        };
        let mut entries = Vec::new();
        for (name, value) in fields {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("project", Value::Object(kinds)) => {
                    for (kind, list) in kinds {
                        let scope = Scope::Project(kind.clone());
                        entries.extend(parse_list(kind, &scope, list)?);
                    }
                }
                ("project", _) => return Err("project must be an object".to_owned()),
                ("platform", list) => entries.extend(parse_list(name, &Scope::Platform, list)?),
                ("organization", list) => {
                    entries.extend(parse_list(name, &Scope::Organization, list)?);
                }
                ("deployment", list) => {
                    entries.extend(parse_list(name, &Scope::Deployment, list)?);
                }
                (_, Value::Array(_)) => {
                    entries.extend(parse_list(name, &Scope::Other(name.clone()), value)?);
                }
                _ => {}
            }
        }
        Ok(Self { entries })
    }

    /// Writes the wire shape.
    #[must_use]
    pub fn to_json(&self, show_all_false: bool) -> Value {
        let mut top = Map::new();
        let mut project = Map::new();
        for entry in &self.entries {
            let list = match &entry.scope {
                Scope::Project(kind) => list_in(&mut project, kind),
                Scope::Platform | Scope::Organization | Scope::Deployment | Scope::Other(_) => {
                    list_in(&mut top, entry.scope.label())
                }
            };
            list.push(entry.to_json(show_all_false));
        }
        if !project.is_empty() {
            top.insert("project".to_owned(), Value::Object(project));
        }
        Value::Object(top)
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the organization role is held.
    #[must_use]
    pub fn has_organization_role(&self, organization_id: &str, role_id: &str) -> bool {
        self.entries.iter().any(|entry| {
            entry.scope == Scope::Organization
                && entry.role_id == role_id
                && entry
                    .organization_id
                    .as_deref()
                    .is_none_or(|id| id == organization_id)
        })
    }

    /// Whether this role is held on this resource by name (not through *all*).
    #[must_use]
    pub fn holds_id(&self, role_id: &str, id: &str) -> bool {
        self.entries.iter().any(|entry| {
            entry.role_id == role_id && entry.ids.iter().flatten().any(|held| held == id)
        })
    }

    pub(crate) fn holds(&self, pair: &Pair, exact: bool) -> bool {
        self.entries.iter().any(|entry| entry.holds(pair, exact))
    }

    /// Whether the same role is held on *all*, which an id lies under.
    pub(crate) fn holds_all_over(&self, pair: &Pair) -> bool {
        let over = Pair {
            target: Target::All,
            ..pair.clone()
        };
        matches!(pair.target, Target::Id(_)) && self.holds(&over, false)
    }

    pub(crate) fn pairs(&self) -> Vec<Pair> {
        self.entries.iter().flat_map(Assignment::pairs).collect()
    }

    /// Unions `other` in, pair by pair; a pair held with the same stack roles is not doubled.
    pub fn add(&mut self, other: &Self) {
        for entry in &other.entries {
            let mut fresh = entry.clone();
            if fresh.all == Some(true) {
                fresh.ids = None;
            } else {
                fresh.all = None;
            }
            let missing: Vec<Target> = entry
                .pairs()
                .into_iter()
                .filter(|pair| !self.holds(pair, true))
                .map(|pair| pair.target)
                .collect();
            if missing.is_empty() {
                continue;
            }
            if fresh.ids.is_some() {
                fresh.ids = Some(
                    missing
                        .into_iter()
                        .filter_map(|target| match target {
                            Target::Id(id) => Some(id),
                            Target::Whole | Target::All => None,
                        })
                        .collect(),
                );
            }
            self.entries.push(fresh);
        }
    }

    /// Subtracts every pair of `other`; `exact` also compares stack roles.
    pub fn remove(&mut self, other: &Self, exact: bool) {
        for pair in other.pairs() {
            for entry in &mut self.entries {
                if !entry.holds(&pair, exact) {
                    continue;
                }
                match &pair.target {
                    Target::Whole | Target::All => entry.role_id.clear(),
                    Target::Id(id) => {
                        if let Some(ids) = &mut entry.ids {
                            ids.retain(|held| held != id);
                            if ids.is_empty() {
                                entry.role_id.clear();
                            }
                        }
                    }
                }
            }
            self.entries.retain(|entry| !entry.role_id.is_empty());
        }
    }

    /// Entries that differ only in their ids become one.
    #[must_use]
    pub fn collapsed(&self) -> Self {
        let mut entries: Vec<Assignment> = Vec::new();
        for entry in &self.entries {
            let mergeable = entry.ids.is_some();
            let found = entries
                .iter_mut()
                .find(|held| mergeable && held.ids.is_some() && held.same_kind(entry));
            match found.and_then(|held| held.ids.as_mut()) {
                Some(ids) => {
                    for id in entry.ids.iter().flatten() {
                        if !ids.contains(id) {
                            ids.push(id.clone());
                        }
                    }
                }
                None => entries.push(entry.clone()),
            }
        }
        Self { entries }
    }

    /// One order for comparing and dumping: collapsed, with entries, ids and stack roles sorted.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut whole = self.collapsed();
        for entry in &mut whole.entries {
            for list in [&mut entry.ids, &mut entry.application_roles]
                .into_iter()
                .flatten()
            {
                list.sort();
                list.dedup();
            }
        }
        whole.entries.sort_by_cached_key(|entry| {
            (
                entry.scope.clone(),
                entry.role_id.clone(),
                entry.all,
                entry.ids.clone(),
                entry.application_roles.clone(),
            )
        });
        whole
    }

    /// Puts one organization id on every entry that lacks it.
    pub(crate) fn fill_organization(&mut self, organization_id: &str) {
        for entry in &mut self.entries {
            if entry.organization_id.is_none() && entry.scope != Scope::Platform {
                entry.organization_id = Some(organization_id.to_owned());
            }
        }
    }
}

impl Serialize for Assignments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json(false).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Assignments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(serde::de::Error::custom)
    }
}

fn list_in<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    map.entry(name.to_owned())
        .or_insert_with(|| Value::Array(Vec::new()))
        .as_array_mut()
        .expect("only arrays are put into this map")
}

fn parse_list(name: &str, scope: &Scope, value: &Value) -> Result<Vec<Assignment>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .filter(|entry| !entry.is_null())
            .map(|entry| Assignment::parse(scope, entry))
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(format!("{name} must be a list"))
        }
    }
}

fn text_of(name: &str, value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{name} must be a string"))
}

fn texts_of(name: &str, value: &Value) -> Result<Vec<String>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("{name} must be a list"))?
        .iter()
        .filter(|item| !item.is_null())
        .map(|item| text_of(name, item))
        .collect()
}
