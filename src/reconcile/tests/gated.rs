//! The ledger of the scenarios: the one in memory, with points to crash at, an off switch, and late company.
//!
//! Owns faults of the ledger. Never keeps anything itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use super::world::World;
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::authority::{Closing, Review};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId};
use crate::domain::member::{MemberKey, MemberRecord};
use crate::domain::receipt::Receipt;
use crate::domain::rotation::KeyRotation;
use crate::ports::Ledger;
use crate::ports::ledger::{
    Accept, Accepted, Census, DueMember, EventFilter, GrantFilter, HoldRecord, Identity,
    LateCursor, LedgerError, MemberCommit, Page, ReceiptCursor, ReceiptFilter, RequestRecord,
    Result, StoredEvent,
};
use crate::store::MemoryLedger;

#[derive(Debug)]
pub(super) struct Gated {
    pub(super) inner: Arc<MemoryLedger>,
    world: Arc<World>,
    pub(super) read_only: AtomicBool,
    /// Members cannot be read either.
    pub(super) away: AtomicBool,
    /// The server is gone as soon as the next intent is written.
    pub(super) away_after_intent: AtomicBool,
    /// Accepted right after the next intent was written.
    pub(super) after_intent: Mutex<Option<Accept>>,
    /// The commit after so many others has an unknown outcome; whether it happened.
    unknown: Mutex<Option<(u32, bool)>>,
    /// Somebody else writes the member while nobody knows what became of a commit.
    pub(super) overtaken: AtomicBool,
}

impl Gated {
    pub(super) fn new(inner: Arc<MemoryLedger>, world: Arc<World>) -> Self {
        Self {
            inner,
            world,
            read_only: AtomicBool::new(false),
            away: AtomicBool::new(false),
            away_after_intent: AtomicBool::new(false),
            after_intent: Mutex::new(None),
            unknown: Mutex::new(None),
            overtaken: AtomicBool::new(false),
        }
    }

    /// The commit after so many others answers that nobody knows, having happened or not.
    pub(super) fn unknown(&self, after: u32, landed: bool) {
        *self.unknown.lock().expect("not poisoned") = Some((after, landed));
    }

    /// Whether this commit has an unknown outcome, and whether it happens.
    fn is_unknown(&self) -> Option<bool> {
        let mut unknown = self.unknown.lock().expect("not poisoned");
        match unknown.as_mut() {
            Some((0, landed)) => {
                let landed = *landed;
                *unknown = None;
                Some(landed)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    fn writable(&self) -> Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(LedgerError::Unavailable {
                action: "writing",
                source: "the disk is full".into(),
            });
        }
        Ok(())
    }

    fn readable(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LedgerError::Unavailable {
                action: "reading",
                source: "the server is gone".into(),
            });
        }
        Ok(())
    }

    async fn join_in(&self, audit: &[AuditEvent]) -> Result<()> {
        let intent = audit
            .iter()
            .any(|event| matches!(event.kind, EventKind::CallIntended { .. }));
        let joining = intent
            .then(|| self.after_intent.lock().expect("not poisoned").take())
            .flatten();
        if intent && self.away_after_intent.swap(false, Ordering::SeqCst) {
            self.away.store(true, Ordering::SeqCst);
            self.read_only.store(true, Ordering::SeqCst);
        }
        if let Some(accept) = joining {
            self.inner.accept(accept).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for Gated {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        self.writable()?;
        self.inner.accept(accept).await
    }

    async fn find_request(
        &self,
        caller: &CallerName,
        request: &RequestId,
    ) -> Result<Option<RequestRecord>> {
        self.inner.find_request(caller, request).await
    }

    async fn tombstone(
        &self,
        caller: &CallerName,
        request: &RequestId,
        remember_until: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<RequestRecord>> {
        self.inner
            .tombstone(caller, request, remember_until, audit)
            .await
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>> {
        self.inner.grant(id).await
    }

    async fn list_grants(
        &self,
        filter: &GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        self.inner.list_grants(filter, before, limit).await
    }

    async fn member(&self, key: &MemberKey) -> Result<MemberRecord> {
        self.readable()?;
        self.inner.member(key).await
    }

    async fn commit(&self, commit: MemberCommit) -> Result<u64> {
        self.world.crash.point().await;
        self.writable()?;
        super::lawful::check(&commit.record, self.world.now());
        let audit = commit.audit.clone();
        if let Some(landed) = self.is_unknown() {
            if landed {
                let record = commit.record.clone();
                self.inner.commit(commit).await?;
                self.world
                    .trace
                    .committed(self.world.now(), &record, &audit);
            } else if self.overtaken.load(Ordering::SeqCst) {
                let record = self.inner.member(&commit.record.key).await?;
                let (audit, request) = (Vec::new(), None);
                let other = MemberCommit {
                    record,
                    audit,
                    request,
                };
                self.inner.commit(other).await?;
            }
            return Err(LedgerError::CommitUnknown {
                action: "writing",
                source: "the disk did not answer".into(),
            });
        }
        let record = commit.record.clone();
        let version = self.inner.commit(commit).await?;
        self.world
            .trace
            .committed(self.world.now(), &record, &audit);
        self.join_in(&audit).await?;
        self.world.crash.point().await;
        Ok(version)
    }

    async fn rekey(&self, from: MemberRecord, into: MemberCommit) -> Result<u64> {
        self.world.crash.point().await;
        self.writable()?;
        super::lawful::check(&into.record, self.world.now());
        let (record, audit) = (into.record.clone(), into.audit.clone());
        let version = self.inner.rekey(from, into).await?;
        self.world
            .trace
            .committed(self.world.now(), &record, &audit);
        self.world.crash.point().await;
        Ok(version)
    }

    async fn due(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueMember>> {
        self.inner.due(integration, until, limit).await
    }

    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        self.inner.next_due(integration, after).await
    }

    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>> {
        self.inner.members(integration, after, limit).await
    }

    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>> {
        self.inner.subjects(integration, target).await
    }

    async fn append(&self, events: Vec<AuditEvent>) -> Result<()> {
        self.writable()?;
        self.world.trace.wrote(self.world.now(), &events);
        self.inner.append(events).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.inner.events(filter, after, limit).await
    }

    async fn last_sequence(&self) -> Result<u64> {
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
        self.inner.census(now).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn check(&self) -> Result<()> {
        self.writable()
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    async fn receipt(&self, id: GrantId) -> Result<Option<Receipt>> {
        self.inner.receipt(id).await
    }

    async fn list_receipts(
        &self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        self.inner.list_receipts(filter, before, limit).await
    }

    async fn late(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<MemberRecord, LateCursor>> {
        self.inner.late(integration, until, after, limit).await
    }

    async fn hidden_removals(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<LateCursor, LateCursor>> {
        self.inner
            .hidden_removals(integration, until, after, limit)
            .await
    }

    async fn forgotten(&self, integration: &IntegrationName) -> Result<Vec<MemberKey>> {
        self.inner.forgotten(integration).await
    }

    async fn endings(
        &self,
        integration: &IntegrationName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(Timestamp, u64)>> {
        self.inner.endings(integration, from, until).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.inner.identity().await
    }

    async fn agree(&self, generation: u64, witnessed: bool) -> Result<()> {
        self.writable()?;
        self.inner.agree(generation, witnessed).await
    }

    async fn holds(&self) -> Result<Vec<HoldRecord>> {
        self.inner.holds().await
    }

    async fn put_hold(&self, hold: HoldRecord, audit: Vec<AuditEvent>) -> Result<()> {
        self.writable()?;
        self.world.trace.wrote(self.world.now(), &audit);
        self.inner.put_hold(hold, audit).await
    }

    async fn end_hold(
        &self,
        integration: &IntegrationName,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        self.writable()?;
        self.world.trace.wrote(self.world.now(), &audit);
        self.inner.end_hold(integration, audit).await
    }

    async fn latest_instant(&self) -> Result<Option<Timestamp>> {
        self.inner.latest_instant().await
    }

    async fn rotation(&self, integration: &IntegrationName) -> Result<Option<KeyRotation>> {
        self.inner.rotation(integration).await
    }

    async fn put_rotation(&self, rotation: KeyRotation, audit: Vec<AuditEvent>) -> Result<bool> {
        self.writable()?;
        self.world.trace.wrote(self.world.now(), &audit);
        self.inner.put_rotation(rotation, audit).await
    }

    async fn review(&self, id: GrantId) -> Result<Option<Review>> {
        self.inner.review(id).await
    }

    async fn reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>> {
        self.inner.reviews(open_only, before, limit).await
    }

    async fn close_review(
        &self,
        id: GrantId,
        closing: Closing,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        self.writable()?;
        self.world.trace.wrote(self.world.now(), &audit);
        self.inner.close_review(id, closing, audit).await
    }

    async fn used(&self, tokens: &[String]) -> Result<Option<String>> {
        self.inner.used(tokens).await
    }

    async fn restore_review(&self, review: Review) -> Result<()> {
        self.writable()?;
        self.inner.restore_review(review).await
    }
}
