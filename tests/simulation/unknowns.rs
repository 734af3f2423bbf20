//! What nobody knows about Elastic Cloud, drawn anew for every run.
//!
//! Owns one setting for each open question that can be told apart behind the provider port. Questions of spelling
//! (headers, codes, forms of ids) end in the adapter, which has its own tests. Never changes during a run.

use super::clock::{Dice, Ms, SECOND};

/// What a DELETE compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delete {
    Exactly,
    /// Every entry of the role on the target, whatever its application roles.
    IgnoringApplicationRoles,
    /// Every entry of the role: what a collapsed entry would lose at worst.
    WholeRole,
}

/// How reads lag behind writes; always below the staleness bound of two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    None,
    Always(Ms),
    UpTo(Ms),
}

/// How upstream limits the rate of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Calls per window.
    pub(crate) calls: u32,
    pub(crate) window: Ms,
    /// Whether the answers carry the limit.
    pub(crate) told: bool,
    /// Whether a refusal says how long to wait.
    pub(crate) retry_after: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Unknowns {
    pub(crate) add_held_is_error: bool,
    /// Removing what is not held: 200, 403 or 404.
    pub(crate) remove_missing: u16,
    /// Changing an unknown user: 400 or 404.
    pub(crate) unknown_user: u16,
    /// A target that does not exist: 403, 400, or 200 for accepted.
    pub(crate) unknown_target: u16,
    pub(crate) delete: Delete,
    pub(crate) delete_under_all_is_error: bool,
    pub(crate) hidden_blocks: bool,
    pub(crate) second_invitation_refreshes: bool,
    pub(crate) invitation_limit: Option<u32>,
    pub(crate) expired_invitations_shown: bool,
    pub(crate) last_owner_removal_is_error: bool,
    pub(crate) lag: Lag,
    pub(crate) limit: Option<Limit>,
    /// What a filtered list still shows of the assignments.
    pub(crate) filtered_shows_some: bool,
}

impl Unknowns {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            add_held_is_error: dice.chance(0.3),
            remove_missing: dice.pick(&[200, 200, 403, 404]),
            unknown_user: dice.pick(&[400, 404]),
            unknown_target: dice.pick(&[403, 400, 200]),
            delete: dice.pick(&[
                Delete::Exactly,
                Delete::IgnoringApplicationRoles,
                Delete::WholeRole,
            ]),
            delete_under_all_is_error: dice.chance(0.3),
            hidden_blocks: dice.chance(0.7),
            second_invitation_refreshes: dice.chance(0.5),
            invitation_limit: dice.chance(0.2).then_some(2),
            expired_invitations_shown: dice.chance(0.5),
            last_owner_removal_is_error: dice.chance(0.7),
            lag: match dice.below(4) {
                0 | 1 => Lag::None,
                2 => Lag::Always(dice.range(50, 1_900)),
                _ => Lag::UpTo(dice.range(50, 1_900)),
            },
            limit: dice.chance(0.3).then(|| Limit {
                calls: u32::try_from(dice.range(15, 120)).unwrap_or(15),
                window: dice.pick(&[10 * SECOND, 60 * SECOND]),
                told: dice.chance(0.6),
                retry_after: dice.chance(0.5),
            }),
            filtered_shows_some: dice.chance(0.5),
        }
    }
}
