//! The member aggregate: everything that is decided together, under one version.
//!
//! Owns which assignments are ours, what was last sent for each, and what is still owed. One writer changes a
//! member at a time; the ledger compares and swaps on `version`. Never infers ownership from what upstream shows.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::grant::Grant;
use super::ids::{Email, IntegrationName, InvalidId, InvitationToken, UserId};

/// Whose access is decided together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A member of the organization.
    Member(UserId),
    /// Someone who has not joined yet.
    Invitee(Email),
}

impl Subject {
    /// Reads the form that `Display` writes: `user:ID` or `email:ADDRESS`.
    ///
    /// # Errors
    /// [`InvalidId`] when the text has neither form.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match text.split_once(':') {
            Some(("user", id)) => UserId::parse(id).map(Self::Member),
            Some(("email", email)) => Email::parse(email).map(Self::Invitee),
            _ => Err(InvalidId {
                what: "subject",
                problem: "is neither user:ID nor email:ADDRESS".to_owned(),
            }),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "user:{id}"),
            Self::Invitee(email) => write!(f, "email:{email}"),
        }
    }
}

/// One subject in one organization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberKey {
    /// Which organization.
    pub integration: IntegrationName,
    /// Who.
    pub subject: Subject,
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.integration, self.subject)
    }
}

/// What a mutation did to an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteKind {
    /// POST.
    Add,
    /// DELETE.
    Remove,
}

/// What became of the last mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    /// The intent is durable; the call may or may not have left. After a crash this reads as unknown.
    InFlight,
    /// Upstream answered "done".
    Done,
    /// No answer that settles it.
    Unknown,
}

/// The last mutation sent for an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWrite {
    /// Which way.
    pub kind: WriteKind,
    /// When the intent was written, or the answer came: the later of the two.
    pub at: Timestamp,
    /// What became of it.
    pub outcome: WriteOutcome,
}

/// How an owned assignment is owned. Both count as owned everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Latchkey added it, or may have.
    Live,
    /// Seen gone once; the second look is still owed.
    Closing {
        /// When it was seen gone.
        gone_at: Timestamp,
        /// When the second look is due, at the earliest.
        look_at: Timestamp,
    },
}

/// Why a removal is not tried at full pace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Stable code: `last_owner`, or the provider's code.
    pub code: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// Times it was refused so far.
    pub refusals: u32,
}

/// Another entry of the same role, to be put back if our removal takes it along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// What must still be there afterwards.
    pub assignment: Assignment,
    /// When it was last put back, if it had to be.
    pub restored_at: Option<Timestamp>,
    /// Times it was put back.
    #[serde(default)]
    pub restores: u32,
}

/// One assignment that is ours to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Which.
    pub assignment: Assignment,
    /// How it is owned.
    pub phase: Phase,
    /// When it was first intended.
    pub since: Timestamp,
    /// The latest instant until which any grant could have wanted it when it was intended.
    pub must_end_by: Option<Timestamp>,
    /// The last mutation sent.
    pub last_write: LastWrite,
    /// Whether a read has shown it since the last add.
    pub seen: bool,
    /// Until when an earlier call of unknown outcome may still land.
    pub echo_until: Option<Timestamp>,
    /// Until when an earlier removal of unknown outcome may still land; never later than `echo_until`.
    #[serde(default)]
    pub removal_echo_until: Option<Timestamp>,
    /// Entries of the same role that the last removal must not have taken along.
    pub must_survive: Vec<Survivor>,
    /// Refused removals.
    pub blocked: Option<Blocked>,
    /// A set holding it was refused: it is tried alone from now on.
    pub isolate: bool,
    /// Calls for it that failed since the last success.
    pub attempts: u32,
}

/// The invitation that all waiting grants of one address share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Upstream token; `None` while the outcome of sending is unknown.
    pub token: Option<InvitationToken>,
    /// When the intent to send it was written.
    pub intended_at: Timestamp,
    /// When upstream says it expires.
    pub expires_at: Option<Timestamp>,
    /// Whether Latchkey sent it. An administrator's own is adopted and never cancelled.
    pub ours: bool,
    /// What became of sending it.
    pub outcome: WriteOutcome,
    /// Until when one that was sent before it and not answered may still appear.
    #[serde(default)]
    pub late_until: Option<Timestamp>,
}

/// What the last read showed of this member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// When the read started.
    pub at: Timestamp,
    /// Everything it showed, ours and standing.
    pub assignments: BTreeSet<Assignment>,
}

/// What a member is due for, which decides its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueKind {
    /// Access must be taken away.
    Remove,
    /// Something sent must be read back.
    Verify,
    /// Access must be given.
    Grant,
    /// A periodic or second look.
    Look,
}

/// The next instant at which this member needs a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// For what.
    pub kind: DueKind,
    /// Power left open meanwhile; higher first.
    pub weight: u32,
}

/// Pause after a failed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// Not before this instant, unless something with a better claim comes up.
    pub until: Timestamp,
    /// Stable code of the last failure.
    pub code: String,
}

/// Everything that is decided together for one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Who.
    pub key: MemberKey,
    /// Compare-and-swap version; 0 before the first write.
    pub version: u64,
    /// Which membership the ownership belongs to; set by the first read that shows the member.
    pub member_since: Option<Timestamp>,
    /// Grants that have not ended. Ended ones leave the aggregate with the commit that ends them.
    pub grants: Vec<Grant>,
    /// Assignments that are ours.
    pub owned: Vec<Owned>,
    /// The invitation, for an invitee.
    pub invitation: Option<Invitation>,
    /// What the last read showed.
    pub last_seen: Option<LastSeen>,
    /// When a first complete read did not show the member; leaving needs a second one.
    pub absent_since: Option<Timestamp>,
    /// Pause after failures.
    pub backoff: Option<Backoff>,
    /// When active grants are to be read again.
    pub check_at: Option<Timestamp>,
    /// A set of additions was refused: they are tried one by one until none is left.
    #[serde(default)]
    pub isolate_adds: bool,
    /// When the next pass is due; `None` when nothing is owed.
    pub due: Option<Due>,
}

impl MemberRecord {
    /// A subject without grants or ownership.
    #[must_use]
    pub fn new(key: MemberKey) -> Self {
        Self {
            key,
            version: 0,
            member_since: None,
            grants: Vec::new(),
            owned: Vec::new(),
            invitation: None,
            last_seen: None,
            absent_since: None,
            backoff: None,
            check_at: None,
            isolate_adds: false,
            due: None,
        }
    }

    /// The owned row of an assignment.
    #[must_use]
    pub fn owned(&self, assignment: &Assignment) -> Option<&Owned> {
        self.owned
            .iter()
            .find(|owned| owned.assignment == *assignment)
    }

    /// The owned row of an assignment, to change it.
    pub fn owned_mut(&mut self, assignment: &Assignment) -> Option<&mut Owned> {
        self.owned
            .iter_mut()
            .find(|owned| owned.assignment == *assignment)
    }

    /// Whether nothing is wanted, owned or owed any more.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.grants.is_empty() && self.owned.is_empty() && self.invitation.is_none()
    }
}
