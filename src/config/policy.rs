//! What may be granted at all.
//!
//! Owns the settings of the built-in policy. Never decides: that is `policy`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::assignment::Scope;
use crate::domain::catalogue;
use crate::domain::ttl::Ttl;

use super::problem::Problems;
use super::text::{Period, RoleName};

/// What may be granted at all, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Longest duration of a grant. Half a day covers a shift; who needs longer needs standing access.
    pub max_duration: Period,
    /// Longest time from activation to end over all extensions. A day, so that extending cannot make it endless.
    pub max_total: Period,
    /// Allow roles on the whole organization (organization-admin, billing-admin). Off, because an owner can take
    /// away Latchkey's own key.
    pub allow_organization_roles: bool,
    /// Allow roles on all deployments or all projects of a kind. Off, because that includes those made tomorrow.
    pub allow_all_targets: bool,
    /// Allow grants for people who are not members yet, by inviting them. On, because it is how contractors come.
    pub allow_invitations: bool,
    /// The only roles that may be granted. Empty means every role that the switches above allow.
    #[schemars(extend("uniqueItems" = true))]
    pub roles: Vec<RoleName>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_duration: Period::seconds(12 * 3600),
            max_total: Period::seconds(24 * 3600),
            allow_organization_roles: false,
            allow_all_targets: false,
            allow_invitations: true,
            roles: Vec::new(),
        }
    }
}

impl Policy {
    pub(super) fn check(&self, problems: &mut Problems) {
        let second = Duration::from_secs(1);
        let longest = Duration::from_secs(Ttl::MAX_SECONDS.unsigned_abs());
        problems.within("policy.max_duration", self.max_duration, second, longest);
        problems.within("policy.max_total", self.max_total, second, longest);
        if self.max_total < self.max_duration {
            problems.add(
                "policy.max_total",
                format!(
                    "{} is shorter than policy.max_duration, {}",
                    self.max_total, self.max_duration
                ),
                "write at least as much as max_duration",
            );
        }
        for (index, role) in self.roles.iter().enumerate() {
            let organization = catalogue::find(role.as_str())
                .is_some_and(|role| role.scope == Scope::Organization);
            if organization && !self.allow_organization_roles {
                problems.add(
                    format!("policy.roles[{index}]"),
                    format!("{role} is a role on the whole organization, which is switched off"),
                    "write `allow_organization_roles: true` beside it, or leave the role out",
                );
            }
        }
    }
}
