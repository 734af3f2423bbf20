//! Receipts: what was asked, applied, removed and seen for one grant that ended, and how sure that is.
//!
//! Owns the evidence of one assignment, and the receipt that is made of it. A receipt says nothing that the audit of the same transactions does not say. Never holds a secret, an invitation token
//! or a response body, and never decides about access.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::event::{CallEvidence, NOT_SENT};
use super::grant::{EndCause, GrantState, Holding};
use super::ids::{CallerName, GrantId, IntegrationName, RequestId};
use super::member::Subject;
use super::ttl::Ttl;

/// Request ids of upstream that a summary keeps: the last ones.
pub const REQUEST_IDS: usize = 8;

/// Assignments that a sighting keeps; the others are counted.
pub const SIGHTED: usize = 200;

/// Calls of one direction for one assignment, summed up: there is no limit to their number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calls {
    /// When the first intent was durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intended_at: Option<Timestamp>,
    /// When the first byte of the first call left, as far as an answer told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// When the first byte of the last call left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sent_at: Option<Timestamp>,
    /// When upstream first answered "done".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
    /// Intents written. One without an answer belongs to a process that ended, or was overtaken before a byte left.
    pub intents: u32,
    /// Times sent, repetitions inside of a call included.
    pub sent: u32,
    /// Calls that were refused.
    pub refused: u32,
    /// Calls that got no answer that settles them.
    pub unanswered: u32,
    /// Stable code of the last call that was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_code: Option<String>,
    /// Upstream's request ids, the last [`REQUEST_IDS`] of them, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_ids: Vec<String>,
}

impl Calls {
    /// An intent became durable.
    pub fn intend(&mut self, at: Timestamp) {
        self.intended_at = self.intended_at.or(Some(at));
        self.intents = self.intents.saturating_add(1);
    }

    /// A call was answered at `at`, or is known to get no answer.
    pub fn end(&mut self, outcome: &str, evidence: &CallEvidence, at: Timestamp) {
        if outcome == NOT_SENT {
            return;
        }
        if evidence.attempts > 0 {
            let elapsed = i64::try_from(evidence.elapsed_ms).unwrap_or(0);
            let left_at = at - TimeDelta::milliseconds(elapsed);
            self.sent_at = self.sent_at.or(Some(left_at));
            self.last_sent_at = Some(left_at);
            self.sent = self.sent.saturating_add(evidence.attempts);
        }
        match outcome {
            "done" => self.done_at = self.done_at.or(Some(at)),
            "refused" => self.refused = self.refused.saturating_add(1),
            _ => self.unanswered = self.unanswered.saturating_add(1),
        }
        if outcome != "done" {
            self.last_code.clone_from(&evidence.code);
        }
        if let Some(id) = &evidence.request_id {
            if self.request_ids.len() >= REQUEST_IDS {
                self.request_ids.remove(0);
            }
            self.request_ids.push(id.clone());
        }
    }

    /// Whether nothing was ever intended.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// When and by which read an assignment was proven gone for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// When that was known.
    pub at: Timestamp,
    /// When the read started that proves it.
    pub read_started_at: Timestamp,
}

/// How the second look at something gone stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "look")]
pub enum Look {
    /// Nothing was seen gone, so there is nothing to look at again.
    #[default]
    NotOwed,
    /// Owed: a late call of ours, or of anybody's, could still bring it back.
    Owed {
        /// Not before this instant.
        from: Timestamp,
    },
    /// It came back after it was gone, and is being removed again.
    Reopened {
        /// When it was seen again.
        at: Timestamp,
    },
    /// Seen gone a second time.
    Done {
        /// When that was known.
        at: Timestamp,
    },
    /// A later grant was given the same; that grant's receipt proves its end.
    TakenOver {
        /// When the later grant's access was seen.
        at: Timestamp,
    },
}

impl Look {
    /// Whether something more is to be found out.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Owed { .. } | Self::Reopened { .. })
    }
}

/// A removal that was refused for a reason that retrying alone did not cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedRemoval {
    /// Stable code of the last refusal.
    pub code: String,
    /// Times it was blocked.
    pub times: u32,
}

/// How ownership of an assignment was given up without its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GivenUp {
    /// Nobody knows that it is gone: two people decided to stop trying.
    Forgotten {
        /// When.
        at: Timestamp,
        /// Who proposed it.
        by: String,
        /// Who confirmed it: somebody else.
        confirmed_by: String,
        /// Why.
        reason: String,
    },
    /// It is standing access now, by the word of an operator.
    Adopted {
        /// When.
        at: Timestamp,
        /// Who declared it.
        by: String,
        /// Why.
        reason: String,
    },
}

/// Everything that happened to one assignment while it was ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// Which.
    pub assignment: Assignment,
    /// Calls that added it.
    #[serde(default, skip_serializing_if = "Calls::is_none")]
    pub added: Calls,
    /// When a read first showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// When it was missing although a grant wanted it: somebody else removed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_at: Option<Timestamp>,
    /// Calls that removed it.
    #[serde(default, skip_serializing_if = "Calls::is_none")]
    pub removed: Calls,
    /// Refusals of its removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<BlockedRemoval>,
    /// First proof that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// The second look.
    #[serde(default)]
    pub look: Look,
    /// Times it came back after it was gone.
    #[serde(default)]
    pub resurrections: u32,
    /// When it last came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resurrected_at: Option<Timestamp>,
    /// Entries of the same role that a removal took along and that were put back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<Assignment>,
    /// How it stopped being ours, where it was not removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

impl Trail {
    /// A trail without any evidence yet.
    #[must_use]
    pub fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            added: Calls::default(),
            seen_at: None,
            missing_at: None,
            removed: Calls::default(),
            blocked: None,
            gone: None,
            look: Look::NotOwed,
            resurrections: 0,
            resurrected_at: None,
            restored: Vec::new(),
            given_up: None,
        }
    }
}

/// What a read showed of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When that read started.
    pub read_started_at: Timestamp,
    /// What the member held, ours and standing, at most [`SIGHTED`] of it.
    pub assignments: Vec<Assignment>,
    /// How many more there were.
    #[serde(default)]
    pub more: u32,
}

/// What became of one assignment of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing was given for it.
    NotGiven,
    /// Standing access covered it: nothing was added, nothing was removed.
    Standing,
    /// Removed by us and seen gone.
    Removed,
    /// Seen gone without a removal of ours: somebody else took it away.
    TakenAway,
    /// Gone with the membership.
    MemberLeft,
    /// Not removed at this end: another grant still holds it.
    Kept,
    /// Given up by two people; nobody knows that it is gone.
    Forgotten,
    /// Declared standing access by an operator.
    Adopted,
}

impl Fate {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotGiven => "not_given",
            Self::Standing => "standing",
            Self::Removed => "removed",
            Self::TakenAway => "taken_away",
            Self::MemberLeft => "member_left",
            Self::Kept => "kept",
            Self::Forgotten => "forgotten",
            Self::Adopted => "adopted",
        }
    }

    /// Whether a read proved that the member does not hold it any more.
    #[must_use]
    pub fn was_seen_gone(self) -> bool {
        matches!(self, Self::Removed | Self::TakenAway | Self::MemberLeft)
    }
}

/// One assignment on a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What became of it.
    pub fate: Fate,
    /// The evidence.
    #[serde(flatten)]
    pub trail: Trail,
}

/// How sure a receipt is that nothing of the grant is left. The weakest of its lines counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// Something came back after it was gone, and is being removed again.
    Reopened,
    /// Something was given up: nobody knows.
    GivenUp,
    /// One complete read showed it gone.
    SeenGoneOnce,
    /// Two complete reads showed it gone, the second after everything of ours could have landed.
    SeenGoneTwice,
    /// Nothing had to be removed.
    NothingToRemove,
}

impl Assurance {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reopened => "reopened",
            Self::GivenUp => "given_up",
            Self::SeenGoneOnce => "seen_gone_once",
            Self::SeenGoneTwice => "seen_gone_twice",
            Self::NothingToRemove => "nothing_to_remove",
        }
    }
}

/// Something that whoever reads a receipt should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The person is a member of the organization because we invited them, and stays one.
    MembershipOutlives,
    /// Somebody else changed what the grant gave.
    ExternallyModified,
    /// Access came back after it was gone and was removed again; somebody may have given it for good.
    RemovedAgain,
    /// A removal took other entries of the same role along; they were put back.
    SurvivorsRestored,
    /// Removal was refused for a while.
    RemovalBlocked,
    /// Access was given up and may still be there.
    Forgotten,
    /// An operator declared access standing: it stays.
    Adopted,
    /// An emergency token opened the grant, and nobody has looked back at it yet. Told with a receipt while it is so,
    /// and no part of it.
    ReviewOpen,
}

impl Warning {
    /// Stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::MembershipOutlives => "membership_outlives",
            Self::ExternallyModified => "externally_modified",
            Self::RemovedAgain => "removed_again",
            Self::SurvivorsRestored => "survivors_restored",
            Self::RemovalBlocked => "removal_blocked",
            Self::Forgotten => "forgotten",
            Self::Adopted => "adopted",
            Self::ReviewOpen => "review_open",
        }
    }

    /// What it means, in a sentence.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::MembershipOutlives => {
                "The person was invited to the organization for this and is still a member of it."
            }
            Self::ExternallyModified => "Somebody else changed what this grant gave.",
            Self::RemovedAgain => {
                "Access came back after it was seen gone and was removed again. If somebody gave it for good, it has to be given once more, or adopted."
            }
            Self::SurvivorsRestored => {
                "A removal took other entries of the same role along; they were put back as they were."
            }
            Self::RemovalBlocked => {
                "Elastic Cloud, or a rule of Latchkey, refused the removal for a while."
            }
            Self::Forgotten => {
                "Access was given up by two people without being seen gone: it may still be there, and is watched for."
            }
            Self::Adopted => "An operator declared access standing: it was not removed.",
            Self::ReviewOpen => "An emergency token opened this, and its review is still open.",
        }
    }
}

/// What Elastic documents of sessions; their statement, not ours.
pub const SESSIONS_NOTE: &str = "Elastic documents that removing a user's roles ends the sessions that those roles opened. That is Elastic's documented behaviour; Latchkey sees role assignments, not sessions.";

/// What cannot be told apart.
pub const INDISTINGUISHABLE_NOTE: &str = "Had somebody given the same role on the same target for good while this grant lasted, it was removed with the grant: the two cannot be told apart, unless an operator adopted it.";

/// The proof of how one grant ended. Written in the transaction that ends the grant, and again in those of its second
/// look and of a reopening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which grant.
    pub grant_id: GrantId,
    /// Which organization.
    pub integration: IntegrationName,
    /// Who held the access.
    pub subject: Subject,
    /// The caller that the grant belonged to.
    pub caller: CallerName,
    /// The caller's idempotency key.
    pub request_id: RequestId,
    /// The beneficiary as the caller wrote it.
    pub beneficiary: String,
    /// Who asked.
    pub requester: String,
    /// Why.
    pub justification: String,
    /// How long it was asked for.
    pub duration: Ttl,
    /// Earliest start, where one was asked for.
    pub starts_at: Option<Timestamp>,
    /// Hard end, where one was asked for.
    pub not_after: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When access was first verified; `None` if it never was.
    pub verified_at: Option<Timestamp>,
    /// Times its end was moved later.
    pub extensions: u32,
    /// When removal became due; `None` when nothing was ever given.
    pub due_at: Option<Timestamp>,
    /// When the grant ended: nothing of it was held any more, or it was given up.
    pub ended_at: Timestamp,
    /// Why it ended.
    pub cause: EndCause,
    /// What the member held before our first addition.
    pub before: Option<Sighting>,
    /// What remained of the member's access when the last of it was seen gone.
    pub after: Option<Sighting>,
    /// Each assignment that was asked for.
    pub lines: Vec<Line>,
    /// Whether we invited the beneficiary, and they joined.
    pub membership_outlives: bool,
    /// Whether somebody else changed what the grant gave.
    pub externally_modified: bool,
}

impl Receipt {
    /// From due to seen gone; `None` when nothing was removed and seen gone by the end.
    #[must_use]
    pub fn due_to_gone(&self) -> Option<TimeDelta> {
        let due_at = self.due_at?;
        let gone = self
            .lines
            .iter()
            .filter(|line| line.fate.was_seen_gone())
            .filter_map(|line| line.trail.gone)
            .map(|gone| gone.at)
            .max()?;
        Some((gone - due_at).max(TimeDelta::zero()))
    }

    /// Whether something more is to be found out about it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lines.iter().any(|line| line.trail.look.is_open())
    }

    /// How sure it is. The weakest line counts.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        self.lines
            .iter()
            .map(|line| match (line.fate, line.trail.look) {
                (_, Look::Reopened { .. }) => Assurance::Reopened,
                (Fate::Forgotten | Fate::Adopted, _) => Assurance::GivenUp,
                (Fate::Removed | Fate::TakenAway | Fate::MemberLeft, Look::Done { .. }) => {
                    Assurance::SeenGoneTwice
                }
                (Fate::Removed | Fate::TakenAway | Fate::MemberLeft, _) => Assurance::SeenGoneOnce,
                (Fate::NotGiven | Fate::Standing | Fate::Kept, _) => Assurance::NothingToRemove,
            })
            .min()
            .unwrap_or(Assurance::NothingToRemove)
    }

    /// What whoever reads it should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let any = |test: &dyn Fn(&Line) -> bool| self.lines.iter().any(test);
        [
            (self.membership_outlives, Warning::MembershipOutlives),
            (self.externally_modified, Warning::ExternallyModified),
            (
                any(&|line| line.trail.resurrections > 0),
                Warning::RemovedAgain,
            ),
            (
                any(&|line| !line.trail.restored.is_empty()),
                Warning::SurvivorsRestored,
            ),
            (
                any(&|line| line.trail.blocked.is_some()),
                Warning::RemovalBlocked,
            ),
            (
                any(&|line| line.fate == Fate::Forgotten),
                Warning::Forgotten,
            ),
            (any(&|line| line.fate == Fate::Adopted), Warning::Adopted),
        ]
        .into_iter()
        .filter_map(|(applies, warning)| applies.then_some(warning))
        .collect()
    }

    /// Statements that hold for every receipt of its kind.
    #[must_use]
    pub fn notes(&self) -> Vec<&'static str> {
        if self.lines.iter().any(|line| line.fate == Fate::Removed) {
            vec![SESSIONS_NOTE, INDISTINGUISHABLE_NOTE]
        } else {
            Vec::new()
        }
    }
}

impl GivenUp {
    /// The fate that follows from it.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Forgotten { .. } => Fate::Forgotten,
            Self::Adopted { .. } => Fate::Adopted,
        }
    }
}

/// What became of an assignment of a grant, from how it was held and from the evidence.
#[must_use]
pub fn fate(holding: Holding, trail: Option<&Trail>, kept: bool, cause: &EndCause) -> Fate {
    if let Some(given_up) = trail.and_then(|trail| trail.given_up.as_ref()) {
        return given_up.fate();
    }
    if kept {
        return if holding == Holding::Standing {
            Fate::Standing
        } else {
            Fate::Kept
        };
    }
    match (holding, trail) {
        (Holding::Standing, _) => Fate::Standing,
        (_, Some(trail)) if trail.gone.is_some() => {
            if trail.removed.intents > 0 {
                Fate::Removed
            } else if *cause == EndCause::MemberLeft {
                Fate::MemberLeft
            } else {
                Fate::TakenAway
            }
        }
        (Holding::Owned | Holding::Undecided, _) => Fate::NotGiven,
    }
}

/// The instant and cause of an end, if the state is one.
#[must_use]
pub fn ended(state: &GrantState) -> Option<(Timestamp, &EndCause)> {
    match state {
        GrantState::Ended { at, cause } => Some((*at, cause)),
        GrantState::Scheduled { .. }
        | GrantState::AwaitingMember { .. }
        | GrantState::Activating { .. }
        | GrantState::Active { .. }
        | GrantState::Revoking { .. } => None,
    }
}

#[cfg(test)]
mod tests;
