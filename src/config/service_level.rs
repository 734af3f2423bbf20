//! The objective that revocations are measured against.
//!
//! Owns what counts as in time, and how much may be late. Never changes what is done: revocations are always sent as
//! soon as they can be.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::problem::Problems;
use super::text::Period;

/// What is promised about revocations, for metrics and alerts: nothing is done differently because of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLevel {
    /// A revocation is in time when access was verified gone this soon after it was due. A minute: the removal takes
    /// a second, its proof a few more, and a restart in between fits as well.
    pub revocation_within: Period,
    /// Share of revocations that is to be in time. Of a thousand, one may be late: a short outage of Elastic Cloud
    /// does not page, one that lasts does.
    pub objective: Share,
    /// Over what time that share is counted. A month, as error budgets usually are.
    pub window: Period,
}

impl Default for ServiceLevel {
    fn default() -> Self {
        Self {
            revocation_within: Period::seconds(60),
            objective: Share(999_000),
            window: Period::seconds(30 * 86_400),
        }
    }
}

impl ServiceLevel {
    pub(super) fn check(&self, problems: &mut Problems) {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        problems.within(
            "service_level.revocation_within",
            self.revocation_within,
            second,
            day,
        );
        problems.within("service_level.window", self.window, day, day * 366);
    }
}

/// A share of a whole, in millionths: from a half to all but one in a hundred thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    const MIN: f64 = 0.5;
    /// An objective of 1 leaves no budget to alert on.
    const MAX: f64 = 0.99999;

    /// The share as a number below 1.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        if !(Self::MIN..=Self::MAX).contains(&share) {
            return Err(de::Error::custom("is not a share from 0.5 to 0.99999"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let millionths = (share * 1e6).round() as u32;
        Ok(Self(millionths))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.get())
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": Self::MIN, "maximum": Self::MAX})
    }
}
