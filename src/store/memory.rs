//! The ledger in memory: for simulation, demonstrations and tests, with the same answers as the durable one.
//!
//! Owns nothing that outlives the process. Deterministic: ordered maps, no clock, no randomness. Never to be used
//! where a promise must survive a restart.

mod prune;
mod queries;
mod receipts;
mod reviews;
mod state;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::endings::EndingIndex;
use super::filter::{concerns, matches};
use super::rows::{self, page};
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::authority::{Closing, Review};
use crate::domain::event::AuditEvent;
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId};
use crate::domain::member::{Due, MemberKey, MemberRecord};
use crate::domain::receipt::Receipt;
use crate::domain::rotation::KeyRotation;
use crate::ports::ledger::{
    Accept, Accepted, Census, DueMember, EventFilter, GrantFilter, HoldRecord, Identity,
    LateCursor, Ledger, LedgerError, MemberCommit, Page, ReceiptCursor, ReceiptFilter,
    RequestRecord, Result, StoredEvent,
};

/// Dues of one integration: by rank, then by instant, then by subject as text.
type Dues = BTreeMap<i64, BTreeSet<(i64, String)>>;

#[derive(Debug, Clone, Default)]
struct State {
    grants: BTreeMap<GrantId, Grant>,
    /// Grants that have not ended, by whom they belong to.
    open: BTreeMap<MemberKey, BTreeSet<GrantId>>,
    /// Records without their grants.
    members: BTreeMap<MemberKey, MemberRecord>,
    dues: BTreeMap<IntegrationName, Dues>,
    endings: EndingIndex,
    requests: BTreeMap<(CallerName, RequestId), (RequestRecord, Timestamp)>,
    receipts: BTreeMap<GrantId, Receipt>,
    events: Vec<StoredEvent>,
    organizations: BTreeMap<OrganizationId, IntegrationName>,
    generation: u64,
    witnessed: bool,
    holds: BTreeMap<IntegrationName, HoldRecord>,
    rotations: BTreeMap<IntegrationName, KeyRotation>,
    /// Used texts, with the instant from which on each may be forgotten.
    tokens: BTreeMap<String, i64>,
    reviews: BTreeMap<GrantId, Review>,
    closed: bool,
}

/// A ledger that forgets everything with the process.
#[derive(Debug)]
pub struct MemoryLedger {
    id: String,
    state: Mutex<State>,
    last_sequence: watch::Sender<u64>,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::with_id("memory")
    }

    /// An empty ledger that is told apart from others by its identity.
    #[must_use]
    pub fn with_id(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            state: Mutex::new(State::default()),
            last_sequence: watch::Sender::new(0),
        }
    }

    /// A copy as it stands now, as a backup is one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let last = last_sequence(&state);
        Self {
            id: self.id.clone(),
            state: Mutex::new(state),
            last_sequence: watch::Sender::new(last),
        }
    }

    fn lock(&self, action: &'static str) -> Result<MutexGuard<'_, State>> {
        // Every method decides before it changes anything, so a poisoned state is still a whole one.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(unavailable(action, "the ledger is closed"));
        }
        Ok(state)
    }

    /// Tells followers of the audit how far it goes, while the change is still locked: in order.
    fn publish(&self, state: &State) {
        let last = last_sequence(state);
        self.last_sequence.send_if_modified(|known| {
            let is_news = *known != last;
            *known = last;
            is_news
        });
    }
}

fn unavailable(
    action: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> LedgerError {
    LedgerError::Unavailable {
        action,
        source: source.into(),
    }
}

fn last_sequence(state: &State) -> u64 {
    state.events.last().map_or(0, |event| event.sequence)
}

fn precise(due: Due) -> Due {
    rows::due(rows::micros(due.at), rows::rank(&due)).unwrap_or(due)
}

fn key_of(grant: &Grant) -> MemberKey {
    MemberKey {
        integration: grant.integration.clone(),
        subject: grant.subject.clone(),
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        const ACTION: &str = "accepting a grant";
        let mut state = self.lock(ACTION)?;
        let accepted = state.accept(accept, ACTION)?;
        if matches!(accepted, Accepted::Created(_)) {
            self.publish(&state);
        }
        Ok(accepted)
    }

    async fn find_request(
        &self,
        caller: &CallerName,
        request: &RequestId,
    ) -> Result<Option<RequestRecord>> {
        let state = self.lock("looking up a request id")?;
        let found = state.requests.get(&(caller.clone(), request.clone()));
        Ok(found.map(|(record, _)| record.clone()))
    }

    async fn tombstone(
        &self,
        caller: &CallerName,
        request: &RequestId,
        remember_until: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<RequestRecord>> {
        let mut state = self.lock("closing a request id")?;
        let id = (caller.clone(), request.clone());
        if let Some((record, _)) = state.requests.get(&id) {
            return Ok(Some(record.clone()));
        }
        state
            .requests
            .insert(id, (RequestRecord::Tombstone, remember_until));
        state.append(audit);
        self.publish(&state);
        Ok(None)
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>> {
        Ok(self.lock("reading a grant")?.grants.get(&id).cloned())
    }

    async fn list_grants(
        &self,
        filter: &GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        let state = self.lock("listing grants")?;
        let items = state
            .grants
            .values()
            .rev()
            .filter(|grant| before.is_none_or(|before| grant.id < before))
            .filter(|grant| matches(filter, grant))
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        Ok(page(items, limit, |grant: &Grant| grant.id))
    }

    async fn member(&self, key: &MemberKey) -> Result<MemberRecord> {
        Ok(self.lock("reading a member")?.assembled(key))
    }

    async fn commit(&self, commit: MemberCommit) -> Result<u64> {
        const ACTION: &str = "committing a member";
        let mut state = self.lock(ACTION)?;
        state.admit(&commit, ACTION)?;
        let version = state.commit(commit);
        self.publish(&state);
        Ok(version)
    }

    async fn rekey(&self, from: MemberRecord, into: MemberCommit) -> Result<u64> {
        const ACTION: &str = "moving an invitee to a member";
        let mut state = self.lock(ACTION)?;
        let version = state.rekey(from, into, ACTION)?;
        self.publish(&state);
        Ok(version)
    }

    async fn due(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueMember>> {
        const ACTION: &str = "reading what is due";
        let state = self.lock(ACTION)?;
        queries::due(&state, integration, until, limit, ACTION)
    }

    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let state = self.lock("reading the next due")?;
        Ok(queries::next_due(&state, integration, after))
    }

    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>> {
        let state = self.lock("listing members")?;
        Ok(queries::members(&state, integration, after, limit))
    }

    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>> {
        let state = self.lock("listing subjects")?;
        Ok(queries::subjects(&state, integration, target))
    }

    async fn append(&self, events: Vec<AuditEvent>) -> Result<()> {
        let mut state = self.lock("appending audit events")?;
        state.append(events);
        self.publish(&state);
        Ok(())
    }

    async fn events(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        let state = self.lock("reading audit events")?;
        let first = state
            .events
            .partition_point(|event| event.sequence <= after);
        let found = state.events[first..]
            .iter()
            .filter(|stored| concerns(filter, &stored.event))
            .take(limit)
            .cloned()
            .collect();
        Ok(found)
    }

    async fn last_sequence(&self) -> Result<u64> {
        Ok(last_sequence(&*self.lock("reading the last sequence")?))
    }

    async fn claim_organization(
        &self,
        integration: &IntegrationName,
        organization: &OrganizationId,
    ) -> Result<()> {
        self.lock("claiming an organization")?
            .claim(integration, organization)
    }

    async fn prune(
        &self,
        requests_before: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut state = self.lock("pruning")?;
        Ok(prune::prune(
            &mut state,
            requests_before,
            ended_before,
            limit,
        ))
    }

    async fn census(&self, now: Timestamp) -> Result<Census> {
        Ok(queries::census(&*self.lock("counting")?, now))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.last_sequence.subscribe()
    }

    async fn check(&self) -> Result<()> {
        self.lock("checking that the ledger can be written")
            .map(drop)
    }

    async fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
    }

    async fn receipt(&self, id: GrantId) -> Result<Option<Receipt>> {
        Ok(self.lock("reading a receipt")?.receipts.get(&id).cloned())
    }

    async fn list_receipts(
        &self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        let state = self.lock("listing receipts")?;
        Ok(receipts::list(&state, filter, before, limit))
    }

    async fn late(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<MemberRecord, LateCursor>> {
        let state = self.lock("listing late removals")?;
        Ok(receipts::late(&state, integration, until, after, limit))
    }

    async fn hidden_removals(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<LateCursor, LateCursor>> {
        let state = self.lock("listing hidden removals")?;
        Ok(receipts::hidden_removals(
            &state,
            integration,
            until,
            after,
            limit,
        ))
    }

    async fn forgotten(&self, integration: &IntegrationName) -> Result<Vec<MemberKey>> {
        let state = self.lock("listing forgotten access")?;
        Ok(receipts::forgotten(&state, integration))
    }

    async fn endings(
        &self,
        integration: &IntegrationName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(Timestamp, u64)>> {
        let state = self.lock("counting ends")?;
        Ok(state.endings.count(integration, from, until))
    }

    async fn identity(&self) -> Result<Identity> {
        let state = self.lock("reading the identity")?;
        Ok(Identity {
            id: self.id.clone(),
            generation: state.generation,
            witnessed: state.witnessed,
        })
    }

    async fn agree(&self, generation: u64, witnessed: bool) -> Result<()> {
        const ACTION: &str = "raising the generation";
        let mut state = self.lock(ACTION)?;
        if generation <= state.generation {
            return Err(unavailable(ACTION, rows::not_higher(generation)));
        }
        (state.generation, state.witnessed) = (generation, witnessed);
        Ok(())
    }

    async fn holds(&self) -> Result<Vec<HoldRecord>> {
        let state = self.lock("reading holds")?;
        Ok(state.holds.values().cloned().collect())
    }

    async fn put_hold(&self, hold: HoldRecord, audit: Vec<AuditEvent>) -> Result<()> {
        let mut state = self.lock("putting an integration in hold")?;
        state.holds.insert(hold.integration.clone(), hold);
        state.append(audit);
        self.publish(&state);
        Ok(())
    }

    async fn end_hold(
        &self,
        integration: &IntegrationName,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let mut state = self.lock("ending a hold")?;
        let ended = state.holds.remove(integration).is_some();
        if ended {
            state.append(audit);
            self.publish(&state);
        }
        Ok(ended)
    }

    async fn latest_instant(&self) -> Result<Option<Timestamp>> {
        let state = self.lock("reading the latest instant")?;
        let newest = state.events.iter().rev().take(rows::NEWEST);
        Ok(newest.map(|stored| stored.event.at).max())
    }

    async fn version(&self, key: &MemberKey) -> Result<u64> {
        Ok(self.lock("reading a version")?.version(key))
    }

    async fn rotation(&self, integration: &IntegrationName) -> Result<Option<KeyRotation>> {
        let state = self.lock("reading a rotation")?;
        Ok(state.rotations.get(integration).cloned())
    }

    async fn put_rotation(&self, rotation: KeyRotation, audit: Vec<AuditEvent>) -> Result<bool> {
        let mut state = self.lock("storing a rotation")?;
        let held = state.rotations.get(&rotation.integration);
        if held.map_or(0, |held| held.version) != rotation.version {
            return Ok(false);
        }
        let version = rotation.version + 1;
        let rotation = KeyRotation {
            version,
            ..rotation
        };
        state
            .rotations
            .insert(rotation.integration.clone(), rotation);
        state.append(audit);
        self.publish(&state);
        Ok(true)
    }

    async fn review(&self, id: GrantId) -> Result<Option<Review>> {
        Ok(self.lock("reading a review")?.reviews.get(&id).cloned())
    }

    async fn reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>> {
        let state = self.lock("listing reviews")?;
        Ok(state.list_reviews(open_only, before, limit))
    }

    async fn close_review(
        &self,
        id: GrantId,
        closing: Closing,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let mut state = self.lock("closing a review")?;
        let closed = state.close_review(id, closing);
        if closed {
            state.append(audit);
            self.publish(&state);
        }
        Ok(closed)
    }

    async fn used(&self, tokens: &[String]) -> Result<Option<String>> {
        let state = self.lock("looking for used texts")?;
        let mut known = tokens
            .iter()
            .filter(|token| state.tokens.contains_key(*token));
        Ok(known.next().cloned())
    }

    async fn restore_review(&self, review: Review) -> Result<()> {
        self.lock("restoring a review")?.restore_review(review);
        Ok(())
    }
}
