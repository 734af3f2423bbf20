//! How access is added, removed and looked at again.
//!
//! Owns the numbers of reconciliation. Never reconciles.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::Period;

/// How access is added, removed and looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// How old Elastic's answers to reads may be. A read that starts sooner than this after a write proves no
    /// absence. Elastic publishes no number; two seconds covers what replicas usually lag.
    pub read_staleness: Period,
    /// How long after a call with an unknown outcome its assignments are looked at again, because the call may still
    /// take effect. Ten minutes is longer than any queue is likely to hold one.
    pub unknown_look_after: Period,
    /// How long an activation may be tried. A person who waited an hour has found another way.
    pub activation_timeout: Period,
    /// How often the ledger is asked what is due, should a wake-up get lost. It bounds how late that makes a removal.
    pub floor_poll: Period,
    /// Members worked on at a time, per integration. Those that are worked on together share their reads; the rate
    /// limit of Elastic is the real bound.
    #[schemars(range(min = 1, max = 256))]
    pub pass_concurrency: u32,
    /// How long an invitation stays open, as Elastic's own does.
    pub invitation_ttl: Period,
    /// How often it is looked whether people who were invited have joined.
    pub member_poll: Period,
    /// How long access is looked for after its end. What is there again is reported and left alone: it may be standing
    /// access that somebody gave. A day, because what an administrator or a script does again is mostly done again
    /// within one.
    pub watch_ended: Period,
    /// How often one grant is added again where `reapply` allows it; then it ends. Three, because whoever takes it away
    /// a fourth time means it.
    #[schemars(range(min = 1, max = 100))]
    pub reapply_limit: u32,
    /// Members whose access is added again within five minutes before everything else waits for an operator, who
    /// confirms with `latchkey drift --confirm`. A login concerns one member; more at once is a change of the identity
    /// provider.
    #[schemars(range(min = 1, max = 100_000))]
    pub reapply_max_members: u32,
    /// Difference between our clock and Elastic's beyond which nothing is granted or extended: access would end at
    /// the wrong time. Removals go on. Thirty seconds is what a machine without a time service drifts in weeks.
    pub max_skew: Period,
    /// How long a jump of the wall clock by more than a minute, which would end the access of many at once, waits for
    /// Elastic's clock to agree. Then it is believed either way.
    pub jump_hold: Period,
    /// Members whose access may end at once by such a jump without waiting.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub jump_members: u32,
    /// How long stopping may take: what was begun is finished, nothing new is begun. Below the 30 s that
    /// orchestrators usually give.
    pub drain: Period,
    /// How long the scheduler may stand still before the process ends itself, so that whoever supervises it starts
    /// another. A sixth of it is complained of. A minute is longer than any slow disk, and short for late access.
    pub stall_limit: Period,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            read_staleness: Period::seconds(2),
            unknown_look_after: Period::seconds(600),
            activation_timeout: Period::seconds(3600),
            floor_poll: Period::seconds(1),
            pass_concurrency: 64,
            invitation_ttl: Period::seconds(72 * 3600),
            member_poll: Period::seconds(30),
            watch_ended: Period::seconds(24 * 3600),
            reapply_limit: 3,
            reapply_max_members: 10,
            max_skew: Period::seconds(30),
            jump_hold: Period::seconds(60),
            jump_members: 20,
            drain: Period::seconds(25),
            stall_limit: Period::seconds(60),
        }
    }
}

impl Engine {
    pub(super) fn check(&self, problems: &mut Problems) {
        let milli = Duration::from_millis(1);
        let second = Duration::from_secs(1);
        let hour = second * 3600;
        let mut within = |name: &str, value, min, max| {
            problems.within(&format!("engine.{name}"), value, min, max);
        };
        within(
            "read_staleness",
            self.read_staleness,
            milli * 100,
            second * 60,
        );
        within(
            "unknown_look_after",
            self.unknown_look_after,
            second,
            hour * 24,
        );
        within(
            "activation_timeout",
            self.activation_timeout,
            second,
            hour * 24,
        );
        within("floor_poll", self.floor_poll, milli * 100, second * 60);
        within(
            "invitation_ttl",
            self.invitation_ttl,
            second,
            hour * 24 * 30,
        );
        within("member_poll", self.member_poll, second, hour);
        within("watch_ended", self.watch_ended, second * 60, hour * 24 * 30);
        within("max_skew", self.max_skew, second, second * 600);
        within("jump_hold", self.jump_hold, second, second * 600);
        within("drain", self.drain, second, second * 600);
        within("stall_limit", self.stall_limit, second * 3, second * 600);
        if self.stall_limit.get() < self.floor_poll.get() * 3 {
            problems.add(
                "engine.stall_limit",
                "is shorter than three of engine.floor_poll, so a scheduler that works would be ended",
                "write a longer duration, such as 60s, or a shorter engine.floor_poll",
            );
        }
        if self.unknown_look_after < self.read_staleness {
            problems.add(
                "engine.unknown_look_after",
                "is shorter than engine.read_staleness, so the look would prove nothing",
                "write a longer duration, such as 10m",
            );
        }
    }
}
