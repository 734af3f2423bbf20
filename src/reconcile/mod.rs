//! Reconciliation: desired access against observed access.
//!
//! Owns the only path that adds or removes access: load a member, plan purely, write the intent, send once, write
//! the outcome, look again. Never executes "undo of grant X", and never removes what the ledger does not own.

mod at_once;
pub mod board;
mod commit;
pub mod drift;
mod due;
mod explain;
mod forgotten;
pub mod hold;
mod hurry;
mod intent;
mod invitee;
mod look;
pub mod metrics;
mod new_key;
pub mod observer;
pub mod outage;
mod outcome;
mod overwrite;
mod owed;
mod owners;
pub mod pass;
pub mod plan;
pub mod receipt;
mod rewind;
pub mod settle;
mod skew;
pub mod sweep;
mod unrecorded;
mod without_ledger;

use std::time::Duration;

use chrono::TimeDelta;

pub use board::Board;
pub use drift::Reapply;
pub use forgotten::Watched;
pub use hold::Hold;
pub use observer::Observer;
pub use outage::Outage;
pub use pass::{Reconciler, Report};
pub use without_ledger::patience;

/// Bounds and pauses of reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What reads prove, and when.
    pub bounds: plan::Bounds,
    /// How long a call of unknown outcome may still land: client time-outs do not bound Elastic's own queue.
    pub unknown_look_after: TimeDelta,
    /// How long activation may take before the grant fails: access asked for at 3 a.m. must not appear at noon.
    pub activation_timeout: TimeDelta,
    /// How long an invitation stays open.
    pub invitation_ttl: Duration,
    /// How often people who were invited are looked for.
    pub member_poll: TimeDelta,
    /// How long after a first complete read without the member a second one confirms that the member left.
    pub absence_confirm: TimeDelta,
    /// When a new grant is read again: a login through single sign-on may have overwritten it.
    pub first_check: TimeDelta,
    /// When it is read once more, before the periodic sweep takes over.
    pub second_check: TimeDelta,
    /// First pause after a failure; it doubles.
    pub backoff_base: TimeDelta,
    /// Longest pause after failures. There is no limit to their number.
    pub backoff_cap: TimeDelta,
    /// Pause between tries of a removal that is blocked.
    pub blocked_retry: TimeDelta,
    /// Shortest pause before a further addition or invitation of the same member.
    pub retry_floor: TimeDelta,
    /// One assignment in each call instead of all that are due: the baseline that the bench compares with.
    pub one_pair_per_call: bool,
    /// How long ended access is looked for after it was seen gone; nothing is looked for when zero.
    pub watch: TimeDelta,
    /// How often members are read of whom nothing is held any more and something is watched.
    pub watch_every: TimeDelta,
    /// Whether access that a login overwrote is added again.
    pub reapply: Reapply,
    /// How often one grant is added again.
    pub reapply_limit: u32,
    /// Members that may be repaired within [`Settings::reapply_window`] before everything waits for an operator.
    pub reapply_max_members: u32,
    /// What counts as at once.
    pub reapply_window: TimeDelta,
    /// From due to verified gone: what took longer counts as late. Never decides when anything is sent.
    pub revocation_within: TimeDelta,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bounds: plan::Bounds {
                read_staleness: TimeDelta::seconds(2),
                request_lifetime: TimeDelta::seconds(30),
            },
            unknown_look_after: TimeDelta::minutes(10),
            activation_timeout: TimeDelta::hours(1),
            invitation_ttl: Duration::from_hours(72),
            member_poll: TimeDelta::seconds(30),
            absence_confirm: TimeDelta::seconds(5),
            first_check: TimeDelta::seconds(15),
            second_check: TimeDelta::seconds(60),
            backoff_base: TimeDelta::seconds(1),
            backoff_cap: TimeDelta::minutes(1),
            blocked_retry: TimeDelta::minutes(10),
            retry_floor: TimeDelta::milliseconds(200),
            one_pair_per_call: false,
            watch: TimeDelta::hours(24),
            watch_every: TimeDelta::minutes(10),
            reapply: Reapply::Never,
            reapply_limit: 3,
            reapply_max_members: 10,
            reapply_window: TimeDelta::minutes(5),
            revocation_within: TimeDelta::minutes(1),
        }
    }
}

#[cfg(test)]
mod tests;
