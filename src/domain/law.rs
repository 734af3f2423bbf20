//! What is put before the customer's law, and its answer.
//!
//! Owns the facts of a question. Never decides one.

use std::collections::BTreeSet;

use super::Timestamp;
use super::assignment::Assignment;
use super::caller::Caller;
use super::ids::IntegrationName;

/// Something that a caller wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who calls.
    pub caller: Caller,
    /// Which organization; `None` for all of them.
    pub integration: Option<IntegrationName>,
    /// When.
    pub now: Timestamp,
    /// What.
    pub matter: Matter,
}

/// What a caller wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// A new grant.
    Create(Access),
    /// A later end of a grant.
    Extend(Access),
    /// A new grant by an emergency token.
    BreakGlass(Access),
    /// An earlier end of one grant or many.
    Revoke(Ending),
    /// To look.
    Read(Reading),
}

impl Matter {
    /// The name of the action, as the law has it.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Extend(_) => "extend",
            Self::BreakGlass(_) => "break_glass",
            Self::Revoke(_) => "revoke",
            Self::Read(_) => "read",
        }
    }
}

/// Access for a bounded time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// What is given: one role on one or several targets.
    pub assignments: BTreeSet<Assignment>,
    /// Tags of each target that has some, as `key=value`.
    pub tags: Vec<BTreeSet<String>>,
    /// Who asked, as told by the caller; may be empty.
    pub requester: String,
    /// Who receives it: an address or a user id.
    pub beneficiary: String,
    /// The user id behind it, once it is known.
    pub beneficiary_id: Option<String>,
    /// Whether a reason was given.
    pub is_justified: bool,
    /// Seconds that are asked for.
    pub duration_s: i64,
    /// Seconds from its beginning to its end, with everything before an extension.
    pub total_s: i64,
    /// Seconds until it begins.
    pub start_delay_s: i64,
    /// Whether a hard end was set.
    pub has_hard_end: bool,
    /// Whether somebody may be invited for it.
    pub invite: bool,
    /// The people who approved it, each of them once.
    pub approvers: BTreeSet<String>,
    /// Tickets that it refers to. Empty as long as requests carry none.
    pub tickets: BTreeSet<String>,
    /// What the member holds by grants now.
    pub current: BTreeSet<Assignment>,
    /// How many grants those are.
    pub current_grants: u32,
}

/// An earlier end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What is ended: `grant`, `access` or `everything`.
    pub what: String,
    /// Whether grants of other callers are reached.
    pub reaches_others: bool,
    /// Who asked, as told by the caller.
    pub requester: String,
}

/// A look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// At what: `grant`, `grants`, `receipt`, `receipts` or `access`.
    pub what: String,
    /// Whether rows of other callers are shown.
    pub reaches_others: bool,
}

/// The answer of the law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Allowed {
        /// The policies that permit it.
        policies: Vec<String>,
    },
    /// It may not.
    Refused(Refusal),
}

/// Why the law does not allow something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{remedy}")]
pub struct Refusal {
    /// The policies that forbid it; [`Refusal::NO_PERMIT`] where none permits it.
    pub policies: Vec<String>,
    /// Stable code in lower case.
    pub code: &'static str,
    /// The field of the request that is at fault, where one is.
    pub field: Option<String>,
    /// What to do instead, in words for the caller.
    pub remedy: String,
}

impl Refusal {
    /// Stands for a policy where none permits.
    pub const NO_PERMIT: &'static str = "no-permit";

    /// A refusal because no answer could be had.
    #[must_use]
    pub fn undecided(policies: Vec<String>) -> Self {
        Self {
            policies,
            code: "law_undecided",
            field: None,
            remedy: "the customer's law could not be applied to this, so it is refused; have the connector's operator look"
                .to_owned(),
        }
    }
}

/// Facts that cost something to find out, and whether the law looks at them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// What the member holds now.
    pub current: bool,
    /// Tags of targets.
    pub tags: bool,
}
