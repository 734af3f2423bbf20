//! How late access may be taken away, and what happens to grants that would be later.
//!
//! Owns the two settings. Never forecasts.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::Period;

/// How late access may be taken away when much of it ends at once, as forecast when a grant is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lateness {
    /// The longest that a removal may be late because of others that end at the same time, as long as Elastic keeps to
    /// its limit. A minute is what an auditor forgives.
    pub bound: Period,
    /// What happens to a grant, or an extension, whose end would break the bound.
    pub on_exceeded: OnExceeded,
}

/// What happens beyond the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExceeded {
    /// It is accepted, and the answer says how late its end may be. Default: who needs access at night gets it.
    Accept,
    /// It is refused with the earliest end that can be kept.
    Refuse,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            bound: Period::seconds(60),
            on_exceeded: OnExceeded::Accept,
        }
    }
}

impl Lateness {
    pub(super) fn check(&self, problems: &mut Problems) {
        let second = Duration::from_secs(1);
        problems.within("lateness.bound", self.bound, second * 5, second * 86_400);
    }
}
