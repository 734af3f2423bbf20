//! Drift: where upstream differs from what the ledger expects, and what is watched after the end.
//!
//! Owns the durable record of a difference: what, since when, and what is done about it. Never decides that
//! anything is taken away: what reappears after its end may be standing access.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::ids::GrantId;

/// How upstream differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Ours and wanted, but somebody else took it away.
    Missing,
    /// Ours and seen gone, and there again before the second look.
    Resurrected,
    /// Another entry of a role that a removal of ours may have taken along.
    SurvivorMissing,
    /// Of a grant that ended, seen gone twice, and there again: somebody gave it.
    Reappeared,
}

impl DriftKind {
    /// Every kind, in order.
    pub const ALL: [Self; 4] = [
        Self::Missing,
        Self::Resurrected,
        Self::SurvivorMissing,
        Self::Reappeared,
    ];

    /// Stable name for audit, metrics and the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Resurrected => "resurrected",
            Self::SurvivorMissing => "survivor_missing",
            Self::Reappeared => "reappeared",
        }
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum DriftAction {
    /// The grant ends: whoever took it away is not fought.
    GrantEnds,
    /// It is added again, because a login through SSO looks like what took it away.
    AddedAgain,
    /// It would be added again, but too many members lost roles at once: an operator decides.
    Held {
        /// The most members that were to be repaired at once when this was held.
        limit: u32,
    },
    /// An operator said that it is to be added again.
    Confirmed,
    /// It is removed again.
    RemovedAgain,
    /// It is put back as what it was, again and again with growing pauses.
    PutBack,
    /// It could not be put back; somebody has to.
    GivenUp,
    /// It is left alone: it may be standing access.
    LeftAlone,
}

impl DriftAction {
    /// What is done, in words for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::GrantEnds => "somebody else removed it: the grant ends",
            Self::AddedAgain => "a login seems to have overwritten it: added again",
            Self::Held { .. } => "too many members lost roles at once: waits for an operator",
            Self::Confirmed => "an operator confirmed: added again",
            Self::RemovedAgain => "removed again",
            Self::PutBack => "put back as it was",
            Self::GivenUp => "could not be put back: give it back by hand",
            Self::LeftAlone => "left alone: it may be standing access",
        }
    }
}

/// A difference that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDrift {
    /// How upstream differs.
    pub kind: DriftKind,
    /// In what.
    pub assignment: Assignment,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen and written down; a look that finds nothing new writes nothing.
    pub last_seen: Timestamp,
    /// What is done about it.
    pub action: DriftAction,
}

/// An assignment that was ours and is closed, looked for a while longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Which.
    pub assignment: Assignment,
    /// When it was seen gone.
    pub gone_at: Timestamp,
    /// Until when it is looked for.
    pub until: Timestamp,
}

/// How often an overwritten grant was added again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reapplied {
    /// Which grant.
    pub grant: GrantId,
    /// How often.
    pub times: u32,
}
