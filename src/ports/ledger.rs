//! The ledger: what was promised, what is ours, what is still owed, and the audit of all of it.
//!
//! Owns the durability contract. Every state change and its audit events are one transaction; the state itself is
//! the queue. Never calls upstream and never decides.

mod error;

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::error::{DiskFull, LedgerError, NotOwner, ReadOnly, Result};
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::authority::{Closing, Review};
use crate::domain::event::AuditEvent;
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId};
use crate::domain::member::{Due, MemberKey, MemberRecord, Subject};
use crate::domain::receipt::Receipt;
use crate::domain::request::Fingerprint;
use crate::domain::rotation::KeyRotation;
use crate::domain::sight::Settled;

/// Members to ask for at once by whoever looks at all of them: a record holds every grant of its member, some twenty KiB
/// where there are many.
pub const MEMBERS_AT_A_TIME: usize = 32;

/// A grant to make durable.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The grant, version 1.
    pub grant: Grant,
    /// Fingerprint of the request it came from.
    pub fingerprint: Fingerprint,
    /// Until when the request id is remembered.
    pub remember_until: Timestamp,
    /// When its member needs a pass because of it.
    pub due: Due,
    /// Audit events of the same transaction.
    pub audit: Vec<AuditEvent>,
}

/// What became of a request to accept.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// The grant is durable.
    Created(Grant),
    /// The same request was accepted before; this is its grant as it stands now.
    Replayed(Grant),
    /// The request id was used with another body; no effect.
    Mismatch,
    /// The request id was revoked before its grant arrived; no effect.
    Tombstoned,
    /// A signed text that the grant rests on was used before, by this name; no effect.
    TokenUsed(String),
}

/// What a request id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestRecord {
    /// A grant.
    Grant {
        /// Which.
        id: GrantId,
        /// Fingerprint of the body it came with.
        fingerprint: Fingerprint,
    },
    /// Another mutating call that was done; its answer is recomputed from state.
    Done {
        /// Fingerprint of the body it came with.
        fingerprint: Fingerprint,
        /// The grant it was about, if one.
        grant: Option<GrantId>,
    },
    /// Revoked before it arrived.
    Tombstone,
}

/// One compare-and-swap of a member.
#[derive(Debug, Clone)]
pub struct MemberCommit {
    /// The record to store; its `version` is the one that was loaded and is raised by the ledger. Grants that have
    /// ended are stored and leave the aggregate; so are receipts that stand in its outbox. A quiet record (nothing wanted, owned or owed) may be dropped.
    pub record: MemberRecord,
    /// Audit events of the same transaction.
    pub audit: Vec<AuditEvent>,
    /// A mutating call whose request id is remembered in the same transaction.
    pub request: Option<(CallerName, RequestId, RequestRecord, Timestamp)>,
}

/// Which grants to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// Only of this caller.
    pub caller: Option<CallerName>,
    /// Only of this organization.
    pub integration: Option<IntegrationName>,
    /// Only in these states, by name; empty means all.
    pub states: Vec<String>,
    /// Only of this subject, as `user:…` or `email:…`, or of a beneficiary as written by the caller.
    pub subject: Option<String>,
    /// Only those that name this target.
    pub target: Option<Target>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<C>,
}

/// A member that is due, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueMember {
    /// Who.
    pub key: MemberKey,
    /// When and for what.
    pub due: Due,
}

/// One audit event with its place in the order of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Strictly rising in the order in which events became visible.
    pub sequence: u64,
    /// The event.
    pub event: AuditEvent,
}

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only of grants of this caller.
    pub caller: Option<CallerName>,
    /// Only of this organization.
    pub integration: Option<IntegrationName>,
    /// Only of this grant.
    pub grant_id: Option<GrantId>,
    /// Only of these kinds, by name; empty means all.
    pub kinds: Vec<String>,
}

/// Numbers for metrics and health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Grants that have not ended, by integration and state name.
    pub grants: Vec<(IntegrationName, String, u64)>,
    /// Assignments owned.
    pub owned: u64,
    /// Removals that are blocked.
    pub blocked: u64,
    /// Members whose removal is overdue at the instant asked about.
    pub overdue: u64,
    /// The oldest removal that is overdue.
    pub oldest_overdue: Option<Timestamp>,
    /// Members with access that should have been gone for longer than [`crate::domain::overdue::GRACE`], whatever was
    /// tried meanwhile.
    pub late: Vec<LateRemovals>,
    /// How removals stand in each integration that owns, owes or revokes anything, in order of name.
    pub removals: Vec<Removals>,
    /// Reviews of emergency grants that nobody has closed, in order of integration; none where there are none.
    pub open_reviews: Vec<(IntegrationName, u64)>,
}

/// Members of one integration whose access should be gone, by the power that they still hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRemovals {
    /// Which organization.
    pub integration: IntegrationName,
    /// The strongest power that they hold through us.
    pub weight: u32,
    /// How many members.
    pub members: u64,
    /// Since when the first of these removals is due.
    pub oldest: Timestamp,
}

/// Which receipts to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiptFilter {
    /// Only of this caller.
    pub caller: Option<CallerName>,
    /// Only of this organization.
    pub integration: Option<IntegrationName>,
    /// Only of this subject, as `user:…` or `email:…`, or of a beneficiary as written by the caller.
    pub subject: Option<String>,
    /// Only of grants that ended at or after this instant.
    pub since: Option<Timestamp>,
    /// Only of grants that ended before this instant.
    pub until: Option<Timestamp>,
    /// Only those that still owe a second look.
    pub open_only: bool,
}

/// A place in the order of receipts: by end, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptCursor {
    /// When the grant ended.
    pub ended_at: Timestamp,
    /// Its id.
    pub id: GrantId,
}

/// A place in the order of removals that are due: by instant, then by subject as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LateCursor {
    /// When the first removal of that member was due.
    pub due_at: Timestamp,
    /// Who.
    pub subject: Subject,
}

/// How the removals of one integration stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removals {
    /// Which integration.
    pub integration: IntegrationName,
    /// Assignments owned.
    pub owned: u64,
    /// Removals that are blocked.
    pub blocked: u64,
    /// Members whose removal is overdue at the instant asked about.
    pub overdue: u64,
    /// The earliest instant since when access has been due to go that was not seen gone: of grants that are being
    /// revoked, and of removals that are overdue.
    pub oldest: Option<Timestamp>,
}

impl Removals {
    /// An integration with nothing to remove.
    #[must_use]
    pub fn new(integration: IntegrationName) -> Self {
        Self {
            integration,
            owned: 0,
            blocked: 0,
            overdue: 0,
            oldest: None,
        }
    }

    /// Takes note of access that has been due to go since `at`.
    pub fn due_since(&mut self, at: Timestamp) {
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }
}

/// Which ledger this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Drawn once, when the ledger was made; copies share it.
    pub id: String,
    /// Rises with every start that found ledger and witness in agreement, and with every release of a hold.
    pub generation: u64,
    /// Whether a witness was in use when they last agreed.
    pub witnessed: bool,
}

/// What may be taken away while an integration is in hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// What is due and the witness holds open.
    Witness,
    /// What the ledger says is due: there is no witness that could contradict it.
    Ledger,
    /// Nothing: the ledger was rebuilt from the audit alone, which may be older than the world.
    Nothing,
}

/// Why an integration is in hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReason {
    /// Stable code: `ledger_behind`, `other_ledger`, `witness_missing`, `witness_damaged`, `adopted`.
    pub code: String,
    /// What was found, in words.
    pub detail: String,
}

/// An integration in hold: durable, so that a restart does not end it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// Which integration.
    pub integration: IntegrationName,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reasons: Vec<HoldReason>,
    /// What may be taken away meanwhile.
    pub evidence: Evidence,
}

/// A member as a search for drift needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighted {
    /// Who.
    pub user: UserId,
    /// How the member should look, where nothing is left to find out about it.
    pub settled: Option<Settled>,
}

/// The durable record.
#[async_trait]
pub trait Ledger: Debug + Send + Sync {
    /// Makes a grant durable and its member due, or answers what the request id already stands for.
    async fn accept(&self, accept: Accept) -> Result<Accepted>;

    /// What a request id of a caller stands for.
    async fn find_request(
        &self,
        caller: &CallerName,
        request: &RequestId,
    ) -> Result<Option<RequestRecord>>;

    /// Closes a request id whose grant has not arrived. Answers what it stood for already, if anything.
    async fn tombstone(
        &self,
        caller: &CallerName,
        request: &RequestId,
        remember_until: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<RequestRecord>>;

    /// One grant, ended ones included.
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>>;

    /// Grants in descending order of id, at most `limit`, beginning below `before`.
    async fn list_grants(
        &self,
        filter: &GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>>;

    /// The aggregate of one subject; an empty one at version 0 when nothing is known.
    async fn member(&self, key: &MemberKey) -> Result<MemberRecord>;

    /// Stores a member if nobody changed it meanwhile; answers the new version.
    async fn commit(&self, commit: MemberCommit) -> Result<u64>;

    /// Stores a member like [`Self::commit`], by whom does not own the organization: refused as [`NotOwner`] unless the
    /// claim of whoever does ends before `end`. For what the owner would have to know before it removes access that
    /// ends then. Where there is only one process it is a commit.
    async fn commit_beyond(&self, commit: MemberCommit, _end: Timestamp) -> Result<u64> {
        self.commit(commit).await
    }

    /// Moves the grants of an invitee to the member who joined, in one transaction: `from` must still be at its
    /// version and becomes quiet but for the invitation that it carries, `into` is stored like a commit.
    async fn rekey(&self, from: MemberRecord, into: MemberCommit) -> Result<u64>;

    /// Members due at or before `until`, removals first, then by power, then by time; at most `limit`.
    async fn due(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueMember>>;

    /// The earliest due after `after`, for the next wake-up.
    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>>;

    /// Members of an integration in order of subject, after `after`: those with grants, ownership, open drift or
    /// something watched only.
    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>>;

    /// Subjects of an integration with grants that have not ended, optionally those that name a target.
    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>>;

    /// Appends events that belong to no other change.
    async fn append(&self, events: Vec<AuditEvent>) -> Result<()>;

    /// Events after a sequence, oldest first.
    async fn events(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>>;

    /// The sequence of the newest event; 0 when there is none.
    async fn last_sequence(&self) -> Result<u64>;

    /// Binds an organization to an integration, once.
    async fn claim_organization(
        &self,
        integration: &IntegrationName,
        organization: &OrganizationId,
    ) -> Result<()>;

    /// Forgets request ids and ended grants that are old enough. Audit events are not touched. Answers how many.
    async fn prune(
        &self,
        requests_before: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<u64>;

    /// Numbers for metrics and health at `now`.
    async fn census(&self, now: Timestamp) -> Result<Census>;

    /// Follows the sequence of the newest visible event; it changes after every commit that wrote one.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Proves that the ledger can be written.
    async fn check(&self) -> Result<()>;

    /// Flushes and closes; further calls fail.
    async fn close(&self);

    /// How many members have a removal that falls due (`Grant::removal_due`) in each second that begins at or after
    /// `from` and before `until`, in order of time. A ledger that cannot tell answers nothing, and nothing is forecast.
    async fn endings(
        &self,
        _integration: &IntegrationName,
        _from: Timestamp,
        _until: Timestamp,
    ) -> Result<Vec<(Timestamp, u64)>> {
        Ok(Vec::new())
    }

    /// The receipt of a grant that has ended.
    async fn receipt(&self, id: GrantId) -> Result<Option<Receipt>>;

    /// Receipts, those of the latest ends first, at most `limit`, beginning below `before`.
    async fn list_receipts(
        &self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>>;

    /// Members with a removal that was due at or before `until`, the longest due first, at most `limit`, after `after`.
    /// What was accepted since a member's last commit may have moved its removal later: look at the record.
    async fn late(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<MemberRecord, LateCursor>>;

    /// Where removals that were due at or before `until` wait behind something less urgent of the same member: members
    /// that are queued for something else since then. In the order of [`Self::late`], at most `limit`, after `after`;
    /// whether the removal was sent already is told by the record.
    async fn hidden_removals(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<LateCursor, LateCursor>>;

    /// Subjects of an integration with access that was given up and is watched for, in order.
    async fn forgotten(&self, integration: &IntegrationName) -> Result<Vec<MemberKey>>;

    /// Which ledger this is.
    async fn identity(&self) -> Result<Identity>;

    /// Raises the generation, and notes whether a witness is in use. One that is not higher is refused as
    /// [`LedgerError::Unavailable`].
    async fn agree(&self, generation: u64, witnessed: bool) -> Result<()>;

    /// Integrations in hold, in order of name.
    async fn holds(&self) -> Result<Vec<HoldRecord>>;

    /// Puts an integration in hold, or changes why it is.
    async fn put_hold(&self, hold: HoldRecord, audit: Vec<AuditEvent>) -> Result<()>;

    /// Ends a hold; answers whether there was one. Without one nothing is written.
    async fn end_hold(&self, integration: &IntegrationName, audit: Vec<AuditEvent>)
    -> Result<bool>;

    /// The latest instant among the newest events, which no later one should lie before; `None` without events.
    async fn latest_instant(&self) -> Result<Option<Timestamp>>;

    /// The members that [`Self::members`] lists, in the same order, with how they should look.
    async fn sights(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<Sighted, UserId>> {
        let Page { items, next } = self.members(integration, after, limit).await?;
        let items = items
            .iter()
            .filter_map(|record| match &record.key.subject {
                Subject::Member(user) => Some(Sighted {
                    user: user.clone(),
                    settled: Settled::of(record),
                }),
                Subject::Invitee(_) => None,
            })
            .collect();
        Ok(Page { items, next })
    }

    /// Changes with every write to members or grants, where nobody else can write: while it stays, so does what is due.
    /// `None` where that cannot be told.
    fn stamp(&self) -> Option<u64> {
        None
    }

    /// The version of [`Self::member`] alone.
    async fn version(&self, key: &MemberKey) -> Result<u64> {
        Ok(self.member(key).await?.version)
    }

    /// The rotation of a key that is under way, or the last one; `None` before the first.
    async fn rotation(&self, integration: &IntegrationName) -> Result<Option<KeyRotation>>;

    /// Stores a rotation in place of the version that it carries. `false`, and nothing written, when somebody else did
    /// that meanwhile.
    async fn put_rotation(&self, rotation: KeyRotation, audit: Vec<AuditEvent>) -> Result<bool>;

    /// The review that an emergency grant owes or owed. It is opened by [`Self::accept`].
    async fn review(&self, id: GrantId) -> Result<Option<Review>>;

    /// Reviews in descending order of grant, at most `limit`, beginning below `before`.
    async fn reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>>;

    /// Closes a review. Answers whether there was an open one; without one nothing is written.
    async fn close_review(
        &self,
        id: GrantId,
        closing: Closing,
        audit: Vec<AuditEvent>,
    ) -> Result<bool>;

    /// The first of these signed texts, by the names under which they are remembered, that was used before.
    async fn used(&self, tokens: &[String]) -> Result<Option<String>>;

    /// Takes over a review, and that its token was used, when a ledger is rebuilt. What is there already stays.
    async fn restore_review(&self, review: Review) -> Result<()>;
}
