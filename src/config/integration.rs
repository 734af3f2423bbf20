//! The Elastic Cloud organizations that Latchkey serves, each with its key.
//!
//! Owns what one integration needs. Never holds a key: only where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{Email, IntegrationName, OrganizationId};

use super::problem::Problems;
use super::secret::Secret;
use super::text::{self, HttpUrl, Period};

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationKind {
    /// An organization on Elastic Cloud.
    #[default]
    ElasticCloud,
}

/// One Elastic Cloud organization and the key to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Integration {
    /// Its name in calls, logs and metrics; unique, and not to be changed while grants exist.
    #[schemars(schema_with = "text::schemas::integration")]
    pub name: IntegrationName,
    /// What is served.
    #[serde(default)]
    pub kind: IntegrationKind,
    /// The organization that the key must see. Left out, it is the only one that the key sees.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::organization")]
    pub organization_id: Option<OrganizationId>,
    /// Where the API is: scheme, host and port. Plain HTTP only to this machine.
    #[serde(default = "elastic_cloud")]
    pub base_url: HttpUrl,
    /// Where the key is.
    pub secret: Secret,
    /// What people should know who ask for access here, shown with the integration; at most 400 characters.
    #[serde(default)]
    #[schemars(length(min = 1, max = 400))]
    pub custom_access_details: Option<String>,
    /// Who answers for this integration.
    #[serde(default)]
    #[schemars(schema_with = "text::emails", extend("uniqueItems" = true, "maxItems" = 50))]
    pub owners: Vec<Email>,
    /// How the owner of a single deployment or project is found.
    #[serde(default)]
    pub resource_owner: Option<ResourceOwner>,
    /// What is done when a login through single sign-on overwrites the roles that were granted.
    #[serde(default)]
    pub reapply: Reapply,
    /// How and when the key is replaced by a new one.
    #[serde(default)]
    pub rotation: Rotation,
    /// How Elastic Cloud is called.
    #[serde(default)]
    pub upstream: Upstream,
}

/// How and when the key is replaced by a new one. Latchkey makes it, writes it to its store, proves it, and deletes the
/// old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// How old a key may become. None, and a key is rotated only when somebody asks.
    pub every: Option<Period>,
    /// How long a new key lives. 90 days is what Elastic Cloud gives a key of which nobody says.
    pub expires_in: Period,
    /// How long the old key outlives the switch. Twice the refresh of secrets, so that every replica has fetched the new
    /// one, and longer than any request.
    pub keep_old: Period,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            every: None,
            expires_in: Period::seconds(90 * 86_400),
            keep_old: Period::seconds(600),
        }
    }
}

/// What is done about access that somebody else took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reapply {
    /// The grant ends: whoever took it away is not fought.
    #[default]
    Never,
    /// With the marks of a login through single sign-on (several roles of a member changed in one step, some of them
    /// gone, and some left) it is added again, at most `engine.reapply_limit` times.
    Sso,
}

fn elastic_cloud() -> HttpUrl {
    HttpUrl::parse("https://api.elastic-cloud.com").expect("a valid URL")
}

/// How the owner of a deployment or project is found. Where it names nobody, the owners of the integration answer,
/// so there must be some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceOwner {
    /// The tag whose value is the owner's address.
    #[schemars(length(min = 1, max = 128))]
    pub tag: String,
}

/// How Elastic Cloud is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Time to connect, TLS included. Well below `mutation_budget`, so that a dead address is known to have taken
    /// nothing and can be tried again.
    pub connect_timeout: Period,
    /// Whole time of a call that changes something, repetitions included. Short, because until it has passed nobody
    /// knows what happened.
    pub mutation_budget: Period,
    /// How long such a call may wait for its turn before anything is sent. Longer, and what it is based on is stale.
    pub mutation_wait: Period,
    /// Time of one attempt of a read. A third of the budget, which leaves room for repetition.
    pub read_attempt: Period,
    /// Whole time of a read, repetitions included: the patience of a person at a console.
    pub read_budget: Period,
    /// Whole time of reading all members. 50,000 of them are some 50 MB, which a slow line carries in this time. The
    /// answer has to begin within a quarter of it.
    pub members_budget: Period,
    /// Longest silence within an answer. A line that says nothing for so long is broken.
    pub idle_timeout: Period,
    /// Requests per ten seconds until Elastic says how many it takes. Elastic publishes no number; this is what one
    /// busy Terraform run does.
    #[schemars(range(min = 1, max = 5000))]
    pub initial_rate: u32,
    /// Removals and verifying reads at a time. Elastic serves one organization from few nodes.
    #[schemars(range(min = 1, max = 256))]
    pub urgent_concurrency: u32,
    /// Additions and discovery at a time, counted apart so that they cannot hold the places of removals.
    #[schemars(range(min = 1, max = 256))]
    pub routine_concurrency: u32,
    /// Largest plain answer in bytes, decompressed. Known answers are a few KiB.
    #[schemars(range(min = 65_536, max = 268_435_456))]
    pub max_body_bytes: u32,
    /// Largest page of a listing in bytes, decompressed: a page of deployments carries all their resources.
    #[schemars(range(min = 1_048_576, max = 1_073_741_824))]
    pub max_list_bytes: u32,
    /// Largest list of members in bytes, decompressed. It is streamed and never held.
    #[schemars(range(min = 1_048_576, max = 4_294_967_295_u64))]
    pub max_members_bytes: u32,
    /// Proxy for every call. None, and proxies of the environment are never used, so that nobody redirects the key by
    /// setting a variable.
    pub proxy: Option<HttpUrl>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Period::seconds(1),
            mutation_budget: Period::new(Duration::from_millis(2500)),
            mutation_wait: Period::seconds(10),
            read_attempt: Period::seconds(10),
            read_budget: Period::seconds(30),
            members_budget: Period::seconds(120),
            idle_timeout: Period::seconds(15),
            initial_rate: 100,
            urgent_concurrency: 12,
            routine_concurrency: 4,
            max_body_bytes: 4 << 20,
            max_list_bytes: 32 << 20,
            max_members_bytes: 256 << 20,
            proxy: None,
        }
    }
}

impl Integration {
    fn check(&self, path: &str, problems: &mut Problems) {
        if self.resource_owner.is_some() && self.owners.is_empty() {
            problems.add(
                format!("{path}.owners"),
                "is empty although resource_owner is set, so a resource without that tag would have no owner",
                "write at least one address, or leave resource_owner out",
            );
        }
        self.secret.check(&format!("{path}.secret"), problems);
        self.upstream.check(&format!("{path}.upstream"), problems);
        let path = format!("{path}.rotation");
        self.rotation.check(&path, problems);
        if let (Some(_), Some(problem)) = (self.rotation.every, self.secret.unwritable()) {
            problems.add(
                format!("{path}.every"),
                problem,
                "leave it out, or keep the key in a store that can be written",
            );
        }
    }
}

impl Rotation {
    fn check(&self, path: &str, problems: &mut Problems) {
        let day = Duration::from_secs(86_400);
        let mut within = |name: &str, value, min, max| {
            problems.within(&format!("{path}.{name}"), value, min, max);
        };
        within("expires_in", self.expires_in, day, day * 365);
        within("keep_old", self.keep_old, Duration::from_secs(10), day * 7);
        let Some(every) = self.every else {
            return;
        };
        within("every", every, day / 2, day * 364);
        if every.get() + self.keep_old.get() * 2 > self.expires_in.get() {
            problems.add(
                format!("{path}.every"),
                format!(
                    "{every} leaves no time before the key ends after {}",
                    self.expires_in
                ),
                "write less than `expires_in`, with days to spare for when something fails",
            );
        }
    }
}

impl Upstream {
    fn check(&self, path: &str, problems: &mut Problems) {
        let milli = Duration::from_millis(1);
        let second = Duration::from_secs(1);
        let mut within = |name: &str, value, min, max| {
            problems.within(&format!("{path}.{name}"), value, min, max);
        };
        within(
            "connect_timeout",
            self.connect_timeout,
            milli * 50,
            second * 30,
        );
        within(
            "mutation_budget",
            self.mutation_budget,
            milli * 500,
            second * 60,
        );
        within(
            "mutation_wait",
            self.mutation_wait,
            milli * 100,
            second * 120,
        );
        within("read_attempt", self.read_attempt, milli * 500, second * 120);
        within("read_budget", self.read_budget, second, second * 300);
        within(
            "members_budget",
            self.members_budget,
            second * 5,
            second * 1800,
        );
        within("idle_timeout", self.idle_timeout, second, second * 120);
        let longer = [
            (
                "mutation_budget",
                self.mutation_budget,
                "connect_timeout",
                self.connect_timeout,
            ),
            (
                "read_budget",
                self.read_budget,
                "read_attempt",
                self.read_attempt,
            ),
        ];
        for (name, value, inner, least) in longer {
            if value < least {
                problems.add(
                    format!("{path}.{name}"),
                    format!("{value} is shorter than {inner}, {least}, which happens within it"),
                    format!("write at least {least}, or a shorter {inner}"),
                );
            }
        }
    }
}

/// Checks all integrations and what must differ between them.
pub(super) fn check(integrations: &[Integration], problems: &mut Problems) {
    let mut names = BTreeMap::new();
    let mut organizations = BTreeMap::new();
    for (index, integration) in integrations.iter().enumerate() {
        let path = format!("integrations[{index}]");
        integration.check(&path, problems);
        if let Some(first) = names.insert(&integration.name, index) {
            problems.add(
                format!("{path}.name"),
                format!("is also the name of integrations[{first}]"),
                "write a name that no other integration has",
            );
        }
        if let Some(organization) = &integration.organization_id
            && let Some(first) = organizations.insert(organization, index)
        {
            problems.add(
                format!("{path}.organization_id"),
                format!("is also the organization of integrations[{first}]"),
                "serve each organization from one integration only; two would undo each other's work",
            );
        }
    }
}
