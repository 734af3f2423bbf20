//! The ledger in memory: for simulation, demonstrations and tests, with the same answers as the durable one.
//!
//! Owns nothing that outlives the process. Deterministic: ordered maps, no clock, no randomness. Never to be used
//! where a promise must survive a restart.

mod prune;
mod receipts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::endings::EndingIndex;
use super::filter::{concerns, matches, names};
use super::rows::{self, IllegalWrite, REMOVALS_END, page};
use super::tally::Tally;
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::event::AuditEvent;
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::{CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId};
use crate::domain::member::{Due, MemberKey, MemberRecord, Subject};
use crate::domain::receipt::Receipt;
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

fn open_grants(state: &State) -> impl Iterator<Item = &Grant> {
    let open = state.open.values().flatten();
    open.filter_map(|id| state.grants.get(id))
}

fn last_sequence(state: &State) -> u64 {
    state.events.last().map_or(0, |event| event.sequence)
}

fn precise(due: Due) -> Due {
    rows::due(rows::micros(due.at), rows::rank(&due)).unwrap_or(due)
}

impl State {
    fn append(&mut self, events: Vec<AuditEvent>) {
        for event in events {
            let sequence = last_sequence(self) + 1;
            self.events.push(StoredEvent { sequence, event });
        }
    }

    fn version(&self, key: &MemberKey) -> u64 {
        self.members.get(key).map_or(0, |record| record.version)
    }

    fn assembled(&self, key: &MemberKey) -> MemberRecord {
        let mut record = self
            .members
            .get(key)
            .cloned()
            .unwrap_or_else(|| MemberRecord::new(key.clone()));
        let open = self.open.get(key).into_iter().flatten();
        record.grants = open.filter_map(|id| self.grants.get(id)).cloned().collect();
        record
    }

    fn store_grant(&mut self, grant: Grant) {
        if let Some(stored) = self.grants.get(&grant.id) {
            self.endings.remove(stored);
            let key = key_of(stored);
            if let Some(open) = self.open.get_mut(&key) {
                open.remove(&grant.id);
                if open.is_empty() {
                    self.open.remove(&key);
                }
            }
        }
        if !grant.state.is_ended() {
            self.open
                .entry(key_of(&grant))
                .or_default()
                .insert(grant.id);
        }
        self.endings.insert(&grant);
        self.grants.insert(grant.id, grant);
    }

    fn store_member(&mut self, record: MemberRecord) {
        let subject = record.key.subject.to_string();
        let dues = self.dues.entry(record.key.integration.clone()).or_default();
        if let Some(old) = self.members.get(&record.key).and_then(|old| old.due) {
            let rank = rows::rank(&old);
            if let Some(bucket) = dues.get_mut(&rank) {
                bucket.remove(&(rows::micros(old.at), subject.clone()));
                if bucket.is_empty() {
                    dues.remove(&rank);
                }
            }
        }
        if let Some(due) = &record.due {
            let bucket = dues.entry(rows::rank(due)).or_default();
            bucket.insert((rows::micros(due.at), subject));
        }
        self.members.insert(record.key.clone(), record);
    }

    /// Everything that a commit needs to be allowed, before anything is changed.
    fn admit(&self, commit: &MemberCommit, action: &'static str) -> Result<()> {
        let key = &commit.record.key;
        let taken = commit.request.as_ref().is_some_and(|(caller, id, _, _)| {
            self.requests.contains_key(&(caller.clone(), id.clone()))
        });
        if self.version(key) != commit.record.version || taken {
            return Err(LedgerError::Conflict { key: key.clone() });
        }
        for grant in &commit.record.grants {
            let illegal = self
                .grants
                .get(&grant.id)
                .and_then(|stored| rows::refused_transition(&stored.state, &grant.state));
            if let Some(illegal) = illegal {
                return Err(unavailable(action, illegal));
            }
        }
        Ok(())
    }

    /// Stores an admitted commit.
    fn commit(&mut self, commit: MemberCommit) -> u64 {
        let MemberCommit {
            mut record,
            audit,
            request,
        } = commit;
        rows::bind_grants(&mut record);
        for receipt in std::mem::take(&mut record.evidence.outbox) {
            self.receipts.insert(receipt.grant_id, receipt);
        }
        record.version += 1;
        record.due = record.due.map(precise);
        let version = record.version;
        for mut grant in std::mem::take(&mut record.grants) {
            match self.grants.get(&grant.id) {
                Some(stored) => {
                    let same = Grant {
                        version: stored.version,
                        ..grant.clone()
                    } == *stored;
                    if same && grant.version <= stored.version {
                        continue;
                    }
                    grant.version = grant.version.max(stored.version + 1);
                }
                None => grant.version = grant.version.max(1),
            }
            self.store_grant(grant);
        }
        self.store_member(record);
        if let Some((caller, id, record, until)) = request {
            self.requests.insert((caller, id), (record, until));
        }
        self.append(audit);
        version
    }

    fn is_overdue(at: i64, now: Timestamp) -> bool {
        at <= rows::micros(now)
    }
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
        let Accept {
            grant,
            fingerprint,
            remember_until,
            due,
            audit,
        } = accept;
        let request = (grant.caller.clone(), grant.request_id.clone());
        match state.requests.get(&request) {
            Some((RequestRecord::Tombstone, _)) => return Ok(Accepted::Tombstoned),
            Some((
                RequestRecord::Grant {
                    id,
                    fingerprint: known,
                },
                _,
            )) if *known == fingerprint => {
                return match state.grants.get(id) {
                    Some(grant) => Ok(Accepted::Replayed(grant.clone())),
                    None => Err(LedgerError::Corrupt {
                        action: ACTION,
                        source: IllegalWrite(format!("the grant {id} of a request id is missing"))
                            .into(),
                    }),
                };
            }
            Some((RequestRecord::Grant { .. } | RequestRecord::Done { .. }, _)) => {
                return Ok(Accepted::Mismatch);
            }
            None => {}
        }
        if state.grants.contains_key(&grant.id) {
            let taken = IllegalWrite(format!("the grant id {} is taken", grant.id));
            return Err(unavailable(ACTION, taken));
        }
        let record = RequestRecord::Grant {
            id: grant.id,
            fingerprint,
        };
        state.requests.insert(request, (record, remember_until));
        let key = key_of(&grant);
        let mut member = state
            .members
            .get(&key)
            .cloned()
            .unwrap_or_else(|| MemberRecord::new(key));
        member.version += 1;
        member.due = Some(precise(rows::earlier(member.due, due)));
        state.store_member(member);
        state.store_grant(grant.clone());
        state.append(audit);
        self.publish(&state);
        Ok(Accepted::Created(grant))
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

    async fn rekey(&self, from: MemberRecord, mut into: MemberCommit) -> Result<u64> {
        const ACTION: &str = "moving an invitee to a member";
        let mut state = self.lock(ACTION)?;
        let quiet =
            rows::rekeyed(&from, &mut into).map_err(|illegal| unavailable(ACTION, illegal))?;
        if state.version(&from.key) != from.version {
            return Err(LedgerError::Conflict { key: from.key });
        }
        state.admit(&into, ACTION)?;
        let left = state.open.get(&from.key).into_iter().flatten();
        let left = left
            .filter(|id| into.record.grants.iter().all(|grant| grant.id != **id))
            .count();
        if left > 0 {
            let left = IllegalWrite(format!(
                "{left} grants of {} would be left behind",
                from.key
            ));
            return Err(unavailable(ACTION, left));
        }
        if from.version > 0 {
            state.commit(MemberCommit {
                record: quiet,
                audit: Vec::new(),
                request: None,
            });
        }
        let version = state.commit(into);
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
        let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| LedgerError::Corrupt {
            action: ACTION,
            source,
        };
        let mut found = Vec::new();
        let buckets = state.dues.get(integration).into_iter().flatten();
        for (rank, bucket) in buckets {
            let ripe = bucket
                .iter()
                .take_while(|(at, _)| State::is_overdue(*at, until))
                .take(limit - found.len());
            for (at, subject) in ripe {
                let subject = Subject::parse(subject).map_err(|error| unreadable(error.into()))?;
                found.push(DueMember {
                    key: MemberKey {
                        integration: integration.clone(),
                        subject,
                    },
                    due: rows::due(*at, *rank).map_err(|error| unreadable(error.into()))?,
                });
            }
        }
        Ok(found)
    }

    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let state = self.lock("reading the next due")?;
        let after = (rows::micros(after).saturating_add(1), String::new());
        let first = state
            .dues
            .get(integration)
            .into_iter()
            .flatten()
            .filter_map(|(_, bucket)| bucket.range(after.clone()..).next())
            .map(|(at, _)| *at)
            .min();
        Ok(first.and_then(|at| rows::instant(at).ok()))
    }

    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>> {
        let state = self.lock("listing members")?;
        let owning = state
            .members
            .values()
            .filter(|record| {
                !(record.owned.is_empty() && record.watched.is_empty() && record.drifts.is_empty())
            })
            .map(|record| &record.key);
        let ids: BTreeSet<&UserId> = state
            .open
            .keys()
            .chain(owning)
            .filter(|key| key.integration == *integration)
            .filter_map(|key| match &key.subject {
                Subject::Member(id) => Some(id),
                Subject::Invitee(_) => None,
            })
            .filter(|id| after.is_none_or(|after| *id > after))
            .collect();
        let ids = ids.into_iter().take(limit.saturating_add(1)).collect();
        let Page { items, next } = page(ids, limit, |id: &&UserId| (*id).clone());
        let items = items
            .into_iter()
            .map(|id| {
                state.assembled(&MemberKey {
                    integration: integration.clone(),
                    subject: Subject::Member(id.clone()),
                })
            })
            .collect();
        Ok(Page { items, next })
    }

    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>> {
        let state = self.lock("listing subjects")?;
        let mut keys: Vec<MemberKey> = state
            .open
            .iter()
            .filter(|(key, _)| key.integration == *integration)
            .filter(|(_, ids)| {
                target.is_none_or(|target| {
                    ids.iter()
                        .filter_map(|id| state.grants.get(id))
                        .any(|grant| names(grant, target))
                })
            })
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_by_key(|key| key.subject.to_string());
        Ok(keys)
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
        let mut state = self.lock("claiming an organization")?;
        let mut taken = state
            .organizations
            .get_key_value(organization)
            .filter(|(_, owner)| *owner != integration);
        if taken.is_none() {
            taken = state
                .organizations
                .iter()
                .find(|(held, owner)| *owner == integration && *held != organization);
        }
        if let Some((organization, owner)) = taken {
            return Err(LedgerError::OrganizationTaken {
                organization: organization.clone(),
                owner: owner.clone(),
            });
        }
        state
            .organizations
            .insert(organization.clone(), integration.clone());
        Ok(())
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
        let state = self.lock("counting")?;
        let mut grants: BTreeMap<(IntegrationName, String), u64> = BTreeMap::new();
        for grant in open_grants(&state) {
            let key = (grant.integration.clone(), grant.state.name().to_owned());
            *grants.entry(key).or_default() += 1;
        }
        let mut census = Census {
            grants: grants
                .into_iter()
                .map(|((integration, state), count)| (integration, state, count))
                .collect(),
            ..Census::default()
        };
        let mut tally = Tally::default();
        for (key, record) in &state.members {
            if !record.owned.is_empty() {
                let blocked = rows::blocked(record) as u64;
                tally.owns(&key.integration, record.owned.len() as u64, blocked);
            }
        }
        for (integration, dues) in &state.dues {
            let due = dues.range(..REMOVALS_END).flat_map(|(_, bucket)| bucket);
            for (at, _) in due.filter(|(at, _)| State::is_overdue(*at, now)) {
                if let Ok(at) = rows::instant(*at) {
                    tally.overdue(integration, 1, at);
                }
            }
        }
        for grant in open_grants(&state) {
            if let GrantState::Revoking { since, .. } = grant.state {
                tally.revoking(&grant.integration, since);
            }
        }
        tally.into_census(&mut census);
        census.late = receipts::late_removals(&state, now);
        Ok(census)
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
}
