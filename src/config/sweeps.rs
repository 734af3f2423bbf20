//! When the recurring sweeps run, and when people are reminded.
//!
//! Owns the cron expressions. Never runs anything, and no removal waits for one: sweeps are a safety net.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::{Cron, Period};

/// When the recurring sweeps run: cron expressions of six fields (second minute hour day month weekday) in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sweeps {
    /// Reads deployments, projects and roles for the directory. Every five minutes: new ones are seldom urgent.
    pub directory: Cron,
    /// Compares what members have with what they should have. Every minute, which is how long a sign-in that
    /// overwrote roles may go unnoticed.
    pub drift: Cron,
    /// Looks for removals that are overdue. Twice a minute: a safety net under the scheduler.
    pub overdue: Cron,
    /// Looks again at what was removed. Every minute, apart from the other sweeps.
    pub second_looks: Cron,
    /// Looks when the Elastic Cloud key expires. Hourly: the alarms are in days.
    pub key_expiry: Cron,
    /// Looks whose access ends soon. As often as the shortest reminder needs.
    pub reminders: Cron,
    /// Forgets what is past its retention. Nightly, when least else happens.
    pub retention: Cron,
    /// Fetches the key anew from its store. Every five minutes, so that a rotation needs no restart.
    pub secret_refresh: Cron,
    /// Takes the next step of a rotation of the key that is under way, and begins one that is due. Every quarter of a
    /// minute: whoever asked for one is waiting.
    pub key_rotation: Cron,
    /// Seals what the audit has gained, where `audit` is configured. Six times a minute, which is how much of it a
    /// thief of the ledger could still rewrite.
    pub audit_seal: Cron,
}

impl Default for Sweeps {
    fn default() -> Self {
        let cron = |text| Cron::parse(text).expect("a valid expression");
        Self {
            directory: cron("0 */5 * * * *"),
            drift: cron("0 * * * * *"),
            overdue: cron("*/30 * * * * *"),
            second_looks: cron("15 * * * * *"),
            key_expiry: cron("0 0 * * * *"),
            reminders: cron("*/30 * * * * *"),
            retention: cron("0 30 3 * * *"),
            secret_refresh: cron("0 */5 * * * *"),
            key_rotation: cron("5/15 * * * * *"),
            audit_seal: cron("*/10 * * * * *"),
        }
    }
}

/// When callers are told that access ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reminders {
    /// How long before the end. A quarter of an hour leaves time to ask for an extension, five minutes to save work.
    #[schemars(length(max = 10))]
    pub before: Vec<Period>,
}

impl Default for Reminders {
    fn default() -> Self {
        Self {
            before: vec![Period::seconds(900), Period::seconds(300)],
        }
    }
}

impl Reminders {
    pub(super) fn check(&self, problems: &mut Problems) {
        for (index, before) in self.before.iter().enumerate() {
            let path = format!("reminders.before[{index}]");
            let (least, most) = (Duration::from_secs(60), Duration::from_secs(86_400));
            problems.within(&path, *before, least, most);
            if self.before[..index].contains(before) {
                problems.add(path, "stands there twice", "leave one of them out");
            }
        }
    }
}
