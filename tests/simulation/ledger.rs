//! The ledger as one process reaches it: the one in memory, which survives, behind a disk that fails, stalls, fills up
//! and loses answers.
//!
//! Owns faults of the ledger, and tells the invariants what was stored. Never keeps anything itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use latchkey::domain::Timestamp;
use latchkey::domain::assignment::Target;
use latchkey::domain::authority::{Closing, Review};
use latchkey::domain::event::AuditEvent;
use latchkey::domain::grant::Grant;
use latchkey::domain::ids::{
    CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId,
};
use latchkey::domain::member::{MemberKey, MemberRecord};
use latchkey::domain::receipt::Receipt;
use latchkey::domain::rotation::KeyRotation;
use latchkey::ports::Ledger;
use latchkey::ports::ledger::{
    Accept, Accepted, Census, DueMember, EventFilter, GrantFilter, HoldRecord, Identity,
    LateCursor, LedgerError, MemberCommit, Page, ReceiptCursor, ReceiptFilter, RequestRecord,
    Result, StoredEvent,
};
use latchkey::store::MemoryLedger;
use tokio::sync::watch;

use super::clock::sleep;
use super::invariants::{News, PAUSE};
use super::stage::{Stage, say};

/// One process's way to the ledger.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<MemoryLedger>,
    stage: Arc<Stage>,
    life: u64,
    /// Writes of this process, the only one there is.
    writes: AtomicU64,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Stored, and answered "unknown".
    Stored,
    /// Not stored, and answered "unknown".
    Dropped,
}

fn unavailable() -> LedgerError {
    LedgerError::Unavailable {
        action: "using the disk",
        source: "it fails".into(),
    }
}

fn unknown() -> LedgerError {
    LedgerError::CommitUnknown {
        action: "committing",
        source: "the answer is lost".into(),
    }
}

impl Store {
    pub(crate) fn new(inner: Arc<MemoryLedger>, stage: Arc<Stage>, life: u64) -> Self {
        Self {
            inner,
            stage,
            life,
            writes: AtomicU64::new(0),
        }
    }

    /// The person whose record it is about, for excuses.
    fn who(&self, key: &MemberKey) -> Option<usize> {
        self.stage.on().cast.subject(&key.subject)
    }

    /// Before anything is read.
    async fn reading(&self, who: Option<usize>) -> Result<()> {
        self.stage.point(self.life).await;
        let (fails, stall) = {
            let mut on = self.stage.on();
            let weather = on.weather;
            let calm = on.is_calm();
            let fails = !calm
                && (on.ledger_down_until > on.now || on.dice.chance(weather.ledger_fails / 4.0));
            let stalls =
                !calm && (on.ledger_stalls_until > on.now || on.dice.chance(weather.ledger_stalls));
            if fails {
                on.tally.faults += 1;
                on.excuse(None, PAUSE);
                if let Some(who) = who {
                    on.model.unended[who] = false;
                }
                say!(on, who, "fault: the ledger cannot be read");
            }
            let stall = if stalls { on.dice.range(50, 3_000) } else { 0 };
            if stall > 0 {
                on.tally.faults += 1;
                on.excuse(None, PAUSE);
            }
            (fails, stall)
        };
        if stall > 0 {
            sleep(stall).await;
            self.stage.point(self.life).await;
        }
        if fails { Err(unavailable()) } else { Ok(()) }
    }

    /// Before anything is written.
    async fn writing(&self, who: Option<usize>) -> Result<Fate> {
        if let Err(error) = self.reading(who).await {
            if let Some(who) = who {
                self.stage.on().unrecorded[who] = true;
            }
            return Err(error);
        }
        let mut on = self.stage.on();
        if on.is_calm() {
            return Ok(Fate::Done);
        }
        let weather = on.weather;
        let refused = on.ledger_read_only_until > on.now || on.dice.chance(weather.ledger_fails);
        if refused {
            on.tally.faults += 1;
            on.excuse(None, PAUSE);
            if let Some(who) = who {
                on.unrecorded[who] = true;
                on.model.unended[who] = false;
            }
            say!(on, who, "fault: the ledger cannot be written");
            return Err(unavailable());
        }
        if on.dice.chance(weather.ledger_unknown) {
            on.tally.faults += 1;
            on.excuse(None, PAUSE);
            if let Some(who) = who {
                on.model.unended[who] = false;
            }
            let stored = on.dice.chance(0.5);
            say!(
                on,
                who,
                "fault: the outcome of a commit is unknown (stored: {stored})"
            );
            return Ok(if stored { Fate::Stored } else { Fate::Dropped });
        }
        Ok(Fate::Done)
    }

    /// After something was written.
    async fn written<T>(&self, fate: Fate, answer: T) -> Result<T> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.stage.point(self.life).await;
        match fate {
            Fate::Done => Ok(answer),
            Fate::Stored | Fate::Dropped => Err(unknown()),
        }
    }
}

#[async_trait]
impl Ledger for Store {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let accepted = self.inner.accept(accept).await?;
        if let Accepted::Created(grant) = &accepted {
            let mut on = self.stage.on();
            let now = on.now;
            on.tally.grants += 1;
            let on = &mut *on;
            let who = on.cast.subject(&grant.subject);
            let person = who.and_then(|who| on.world.people[who].as_ref());
            let joined = person.map(|person| person.joined);
            on.model.accepted(&on.cast, grant, joined, now);
            say!(
                on,
                who,
                "ledger: {grant} is accepted for {}, {:?}, not after {:?}",
                grant.duration,
                grant
                    .assignments
                    .iter()
                    .map(|held| held.assignment.to_string())
                    .collect::<Vec<_>>(),
                grant.not_after
            );
        }
        self.written(fate, accepted).await
    }

    async fn find_request(
        &self,
        caller: &CallerName,
        request: &RequestId,
    ) -> Result<Option<RequestRecord>> {
        self.reading(None).await?;
        self.inner.find_request(caller, request).await
    }

    async fn tombstone(
        &self,
        caller: &CallerName,
        request: &RequestId,
        remember_until: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<RequestRecord>> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let answer = self
            .inner
            .tombstone(caller, request, remember_until, audit)
            .await?;
        self.written(fate, answer).await
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>> {
        self.reading(None).await?;
        self.inner.grant(id).await
    }

    async fn list_grants(
        &self,
        filter: &GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        self.reading(None).await?;
        self.inner.list_grants(filter, before, limit).await
    }

    async fn member(&self, key: &MemberKey) -> Result<MemberRecord> {
        let who = self.who(key);
        self.reading(who).await?;
        let record = self.inner.member(key).await?;
        if let Some(who) = who {
            self.stage.on().loaded(who, &record);
        }
        Ok(record)
    }

    async fn commit(&self, commit: MemberCommit) -> Result<u64> {
        let who = self.who(&commit.record.key);
        let fate = self.writing(who).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let news = News::of(&commit);
        let version = self.inner.commit(commit).await?;
        self.stage.on().committed(&news);
        self.written(fate, version).await
    }

    async fn rekey(&self, from: MemberRecord, into: MemberCommit) -> Result<u64> {
        let who = self.who(&into.record.key);
        let fate = self.writing(who).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let news = News::of(&into);
        let version = self.inner.rekey(from, into).await?;
        self.stage.on().committed(&news);
        self.written(fate, version).await
    }

    async fn due(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueMember>> {
        self.reading(None).await?;
        self.inner.due(integration, until, limit).await
    }

    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        self.reading(None).await?;
        self.inner.next_due(integration, after).await
    }

    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>> {
        self.reading(None).await?;
        self.inner.members(integration, after, limit).await
    }

    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>> {
        self.reading(None).await?;
        self.inner.subjects(integration, target).await
    }

    async fn append(&self, events: Vec<AuditEvent>) -> Result<()> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        self.inner.append(events).await?;
        self.written(fate, ()).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.reading(None).await?;
        self.inner.events(filter, after, limit).await
    }

    async fn last_sequence(&self) -> Result<u64> {
        self.reading(None).await?;
        self.inner.last_sequence().await
    }

    async fn claim_organization(
        &self,
        integration: &IntegrationName,
        organization: &OrganizationId,
    ) -> Result<()> {
        self.inner
            .claim_organization(integration, organization)
            .await
    }

    async fn prune(&self, requests: Timestamp, ended: Timestamp, limit: usize) -> Result<u64> {
        self.inner.prune(requests, ended, limit).await
    }

    async fn census(&self, now: Timestamp) -> Result<Census> {
        self.reading(None).await?;
        self.inner.census(now).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn check(&self) -> Result<()> {
        self.writing(None).await.map(drop)
    }

    async fn close(&self) {}

    async fn receipt(&self, id: GrantId) -> Result<Option<Receipt>> {
        self.reading(None).await?;
        self.inner.receipt(id).await
    }

    async fn list_receipts(
        &self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        self.reading(None).await?;
        self.inner.list_receipts(filter, before, limit).await
    }

    async fn late(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<MemberRecord, LateCursor>> {
        self.reading(None).await?;
        self.inner.late(integration, until, after, limit).await
    }

    async fn hidden_removals(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<LateCursor, LateCursor>> {
        self.reading(None).await?;
        self.inner
            .hidden_removals(integration, until, after, limit)
            .await
    }

    async fn forgotten(&self, integration: &IntegrationName) -> Result<Vec<MemberKey>> {
        self.reading(None).await?;
        self.inner.forgotten(integration).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.reading(None).await?;
        self.inner.identity().await
    }

    async fn agree(&self, generation: u64, witnessed: bool) -> Result<()> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        self.inner.agree(generation, witnessed).await?;
        self.written(fate, ()).await
    }

    async fn holds(&self) -> Result<Vec<HoldRecord>> {
        self.reading(None).await?;
        self.inner.holds().await
    }

    async fn put_hold(&self, hold: HoldRecord, audit: Vec<AuditEvent>) -> Result<()> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        self.inner.put_hold(hold, audit).await?;
        self.written(fate, ()).await
    }

    async fn end_hold(
        &self,
        integration: &IntegrationName,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let ended = self.inner.end_hold(integration, audit).await?;
        self.written(fate, ended).await
    }

    async fn latest_instant(&self) -> Result<Option<Timestamp>> {
        self.reading(None).await?;
        self.inner.latest_instant().await
    }

    async fn rotation(&self, integration: &IntegrationName) -> Result<Option<KeyRotation>> {
        self.reading(None).await?;
        self.inner.rotation(integration).await
    }

    async fn put_rotation(&self, rotation: KeyRotation, audit: Vec<AuditEvent>) -> Result<bool> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let put = self.inner.put_rotation(rotation, audit).await?;
        self.written(fate, put).await
    }

    fn stamp(&self) -> Option<u64> {
        Some(self.writes.load(Ordering::Relaxed))
    }

    async fn version(&self, key: &MemberKey) -> Result<u64> {
        self.reading(self.who(key)).await?;
        self.inner.version(key).await
    }

    async fn review(&self, id: GrantId) -> Result<Option<Review>> {
        self.reading(None).await?;
        self.inner.review(id).await
    }

    async fn reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>> {
        self.reading(None).await?;
        self.inner.reviews(open_only, before, limit).await
    }

    async fn close_review(
        &self,
        id: GrantId,
        closing: Closing,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        let closed = self.inner.close_review(id, closing, audit).await?;
        self.written(fate, closed).await
    }

    async fn used(&self, tokens: &[String]) -> Result<Option<String>> {
        self.reading(None).await?;
        self.inner.used(tokens).await
    }

    async fn restore_review(&self, review: Review) -> Result<()> {
        let fate = self.writing(None).await?;
        if fate == Fate::Dropped {
            return Err(unknown());
        }
        self.inner.restore_review(review).await?;
        self.written(fate, ()).await
    }
}
