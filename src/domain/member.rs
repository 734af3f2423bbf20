//! The member aggregate: everything that is decided together, under one version.
//!
//! Owns which assignments are ours, what was last sent for each, and what is still owed. One writer changes a
//! member at a time; the ledger compares and swaps on `version`. Never infers ownership from what upstream shows.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::{Assignment, total_weight};
use super::drift::{DriftKind, OpenDrift, Reapplied, Watched};
use super::evidence::Evidence;
use super::grant::{Grant, GrantState};
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
    /// Until when an earlier sending of unknown outcome may still land as a further invitation.
    #[serde(default)]
    pub echo_until: Option<Timestamp>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// For what.
    pub kind: DueKind,
    /// Power left open meanwhile; higher first.
    pub weight: u32,
}

/// Earlier first; of one instant the more urgent.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let order = |due: &Self| (due.at, due.kind, std::cmp::Reverse(due.weight));
        order(self).cmp(&order(other))
    }
}

impl Due {
    /// What is left to do of two dues at `now`: of those that are due the more urgent one, since the pass that it brings
    /// does the other as well; otherwise the earlier one.
    #[must_use]
    pub fn or_sooner(self, other: Self, now: Timestamp) -> Self {
        if self.at <= now && other.at <= now {
            let urgency = |due: &Self| (due.kind, std::cmp::Reverse(due.weight), due.at);
            std::cmp::min_by_key(self, other, urgency)
        } else {
            self.min(other)
        }
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Cuts a weight to a class, so that the queue has few of them: exact to 255, beyond that within a sixteenth.
#[must_use]
pub fn weight_class(weight: u32) -> u32 {
    let spare = (u32::BITS - weight.leading_zeros()).saturating_sub(8);
    let spare = if spare == 0 { 0 } else { spare + 3 };
    weight >> spare << spare
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
    /// Where upstream differs from what is expected, until it no longer does.
    #[serde(default)]
    pub drifts: Vec<OpenDrift>,
    /// What was ours and is closed, and is looked for a while longer. Not ours, and nothing owed.
    #[serde(default)]
    pub watched: Vec<Watched>,
    /// How often grants were added again after a login had overwritten them.
    #[serde(default)]
    pub reapplied: Vec<Reapplied>,
    /// When the next pass is due; `None` when nothing is owed.
    pub due: Option<Due>,
    /// What receipts are made of, and what operators decided.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
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
            drifts: Vec::new(),
            watched: Vec::new(),
            reapplied: Vec::new(),
            due: None,
            evidence: Evidence::default(),
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

    /// The open drift of one kind in an assignment.
    #[must_use]
    pub fn drift(&self, kind: DriftKind, assignment: &Assignment) -> Option<&OpenDrift> {
        self.drifts
            .iter()
            .find(|open| open.kind == kind && open.assignment == *assignment)
    }

    /// Power that is left open at `at` by what is ours and no grant wants any more: all of it goes with one call, so
    /// the weights add up. What is blocked or was removed already does not count.
    #[must_use]
    pub fn open_weight(&self, at: Timestamp) -> u32 {
        let wanted: BTreeSet<&Assignment> = self
            .grants
            .iter()
            .filter(|grant| grant.expects_access(at))
            .flat_map(|grant| &grant.assignments)
            .map(|held| &held.assignment)
            .collect();
        let open = self.owned.iter().filter(|row| {
            let removed = row.last_write.kind == WriteKind::Remove
                && row.last_write.outcome == WriteOutcome::Done;
            row.phase == Phase::Live
                && row.blocked.is_none()
                && !removed
                && !wanted.contains(&row.assignment)
        });
        total_weight(open.map(|row| &row.assignment))
    }

    /// Since when a removal is due: the oldest of the grants on their way out.
    #[must_use]
    pub fn removal_since(&self) -> Option<Timestamp> {
        self.grants
            .iter()
            .filter_map(|grant| match grant.state {
                GrantState::Revoking { since, .. } => Some(since),
                GrantState::Scheduled { .. }
                | GrantState::AwaitingMember { .. }
                | GrantState::Activating { .. }
                | GrantState::Active { .. }
                | GrantState::Ended { .. } => None,
            })
            .min()
    }

    /// Whether nothing is wanted, owned or owed any more.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.grants.is_empty() && self.owned.is_empty() && self.invitation.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::drift::DriftAction;

    #[test]
    fn weight_classes_keep_the_order_are_few_and_lose_at_most_a_sixteenth() {
        let mut classes = BTreeSet::new();
        for weight in 0..10_000 {
            let class = weight_class(weight);
            assert!(
                class <= weight && weight - class <= weight / 16,
                "{weight} became {class}"
            );
            assert!(weight_class(weight + 1) >= class, "{weight}");
            if weight < 256 {
                assert_eq!(class, weight);
            }
            classes.insert(class);
        }
        assert!(classes.len() < 400, "{}", classes.len());
    }

    #[test]
    fn of_two_dues_at_one_instant_the_heavier_comes_first() {
        let due = |second, weight| Due {
            at: chrono::DateTime::from_timestamp(second, 0).expect("in range"),
            kind: DueKind::Remove,
            weight,
        };
        assert!(due(1, 80) < due(1, 20));
        assert!(due(1, 20) < due(2, 80));
    }

    #[test]
    fn a_drift_is_found_by_its_kind_and_its_assignment() {
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let one = |text: &str| Assignment::parse(text).expect("well formed");
        let (a, b) = (
            one("deployment-viewer on deployment/a"),
            one("deployment-viewer on deployment/b"),
        );
        let mut record = MemberRecord::new(MemberKey {
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::Member(UserId::parse("1").expect("well formed")),
        });
        record.drifts = vec![OpenDrift {
            kind: DriftKind::Missing,
            assignment: a.clone(),
            first_seen: now,
            last_seen: now,
            action: DriftAction::GrantEnds,
        }];
        assert!(record.drift(DriftKind::Missing, &a).is_some());
        assert!(record.drift(DriftKind::Missing, &b).is_none());
        assert!(record.drift(DriftKind::Reappeared, &a).is_none());
    }

    #[test]
    fn open_weight_counts_what_is_ours_unwanted_and_neither_blocked_nor_answered() {
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let one = |text: &str| Assignment::parse(text).expect("well formed");
        let viewer = one("deployment-viewer on deployment/a");
        let admin = one("deployment-admin on deployment/b");
        let key = MemberKey {
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::Member(UserId::parse("1").expect("well formed")),
        };
        let mut record = MemberRecord::new(key);
        let row = |assignment: &Assignment| Owned {
            assignment: assignment.clone(),
            phase: Phase::Live,
            since: now,
            must_end_by: None,
            last_write: LastWrite {
                kind: WriteKind::Add,
                at: now,
                outcome: WriteOutcome::Done,
            },
            seen: true,
            echo_until: None,
            removal_echo_until: None,
            must_survive: Vec::new(),
            blocked: None,
            isolate: false,
            attempts: 0,
        };
        record.owned = vec![row(&viewer), row(&admin)];
        let both = total_weight([&viewer, &admin]);
        let light = total_weight([&viewer]);
        assert!(light < both);
        assert_eq!(record.open_weight(now), both);
        let change = |change: fn(&mut Owned)| {
            let mut other = record.clone();
            change(&mut other.owned[1]);
            other.open_weight(now)
        };
        assert_eq!(change(|row| row.last_write.kind = WriteKind::Remove), light);
        let unknown = change(|row| {
            row.last_write.kind = WriteKind::Remove;
            row.last_write.outcome = WriteOutcome::Unknown;
        });
        assert_eq!(unknown, both, "it may still be there");
        let blocked = change(|row| {
            row.blocked = Some(Blocked {
                code: String::new(),
                since: row.since,
                retry_at: row.since,
                refusals: 1,
            });
        });
        assert_eq!(blocked, light);
        let closing = change(|row| {
            row.phase = Phase::Closing {
                gone_at: row.since,
                look_at: row.since,
            };
        });
        assert_eq!(closing, light);
    }
}
