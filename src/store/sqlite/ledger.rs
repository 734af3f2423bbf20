//! The port, answered: writes go to the writer's queue, reads to a connection that reads.
//!
//! Owns which query or write stands behind which call; both databases share it. Never holds SQL.

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use super::engine::{self, Handle};
use super::write::{Reply, Work};
use super::writer::{Asked, Command};
use super::{census, errors, operations, read, recovery, reviews, rotations, sights};
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::authority::{Closing, Review};
use crate::domain::event::AuditEvent;
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, GrantId, IntegrationName, OrganizationId, RequestId, UserId};
use crate::domain::member::{MemberKey, MemberRecord};
use crate::domain::receipt::Receipt;
use crate::domain::rotation::KeyRotation;
use crate::ports::ledger::{
    Accept, Accepted, Census, DueMember, EventFilter, GrantFilter, HoldRecord, Identity,
    LateCursor, Ledger, MemberCommit, Page, ReceiptCursor, ReceiptFilter, RequestRecord, Result,
    Sighted, StoredEvent,
};
use crate::store::once::{ReviewRow, TokenRow};
use crate::store::rows::{
    self, AcceptRows, CommitRows, EventRow, IllegalWrite, MemberRow, RequestRow,
};

impl Handle {
    pub(super) async fn write(&self, work: Work) -> Result<Reply> {
        self.write_under(work, self.fence()).await
    }

    async fn write_under(&self, work: Work, fence: Option<engine::Fence>) -> Result<Reply> {
        let action = work.action();
        let (reply, answer) = oneshot::channel();
        if self
            .commands
            .send(Command::Write(Asked { work, fence }, reply))
            .await
            .is_err()
        {
            return Err(errors::unavailable(action, "the ledger is closed"));
        }
        match answer.await {
            Ok(outcome) => outcome,
            Err(gone) => Err(errors::unknown(action, gone)),
        }
    }
}

/// A reply of another kind than the write asked for; the writer never gives one.
fn unexpected<T>(action: &'static str) -> Result<T> {
    let defect = IllegalWrite("the writer answered something else".to_owned());
    Err(errors::corrupt(action, defect))
}

/// Runs a query on a reader; the connection's errors and unreadable rows become one.
macro_rules! read {
    ($self:ident, $action:literal, |$conn:ident, $act:ident| $query:expr) => {{
        let $act: &'static str = $action;
        let mut reader = $self.reader($act).await?;
        let found = {
            let $conn = &mut *reader;
            engine::patient($query).await
        };
        match found {
            Ok(answer) => {
                engine::done(reader)
                    .await
                    .map_err(|error| errors::of_statement($act, error))?;
                answer
            }
            Err(error) => {
                engine::spoiled(reader);
                Err(errors::of_statement($act, error))
            }
        }
    }};
}

pub(super) use read as answer;

#[async_trait]
impl Ledger for Handle {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        let grant = accept.grant.clone();
        let work = Work::Accept(Box::new(AcceptRows::new(accept)));
        let action = work.action();
        match self.write(work).await? {
            Reply::Created => Ok(Accepted::Created(grant)),
            Reply::Accepted(accepted) => Ok(*accepted),
            Reply::Request(_) | Reply::Number(_) | Reply::Done => unexpected(action),
        }
    }

    async fn find_request(
        &self,
        caller: &CallerName,
        request: &RequestId,
    ) -> Result<Option<RequestRecord>> {
        read!(self, "looking up a request id", |conn, action| {
            read::request(conn, caller.as_str(), request.as_str(), action)
        })
    }

    async fn tombstone(
        &self,
        caller: &CallerName,
        request: &RequestId,
        remember_until: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<RequestRecord>> {
        let row = RequestRow::new(caller, request, &RequestRecord::Tombstone, remember_until);
        let work = Work::Tombstone(row, EventRow::all(&audit));
        let action = work.action();
        let Reply::Request(record) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(record)
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>> {
        read!(self, "reading a grant", |conn, action| read::grant(
            conn, id, action
        ))
    }

    async fn list_grants(
        &self,
        filter: &GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        read!(self, "listing grants", |conn, action| read::list_grants(
            conn, filter, before, limit, action
        ))
    }

    async fn member(&self, key: &MemberKey) -> Result<MemberRecord> {
        read!(self, "reading a member", |conn, action| read::member(
            conn, key, action
        ))
    }

    async fn commit(&self, commit: MemberCommit) -> Result<u64> {
        let work = Work::Commit(Box::new(CommitRows::new(commit)));
        let action = work.action();
        let Reply::Number(version) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(version)
    }

    async fn commit_beyond(&self, commit: MemberCommit, end: Timestamp) -> Result<u64> {
        let fence = self.fence_beyond(&commit.record.key.integration, end);
        let work = Work::Commit(Box::new(CommitRows::new(commit)));
        let action = work.action();
        let Reply::Number(version) = self.write_under(work, fence).await? else {
            return unexpected(action);
        };
        Ok(version)
    }

    async fn rekey(&self, from: MemberRecord, mut into: MemberCommit) -> Result<u64> {
        let quiet = rows::rekeyed(&from, &mut into)
            .map_err(|illegal| errors::unavailable("moving an invitee to a member", illegal))?;
        let (quiet, _) = MemberRow::split(quiet);
        let work = Work::Rekey(Box::new(quiet), Box::new(CommitRows::new(into)));
        let action = work.action();
        let Reply::Number(version) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(version)
    }

    async fn due(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueMember>> {
        read!(self, "reading what is due", |conn, action| read::due(
            conn,
            integration,
            until,
            limit,
            action
        ))
    }

    async fn next_due(
        &self,
        integration: &IntegrationName,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        read!(self, "reading the next due", |conn, action| read::next_due(
            conn,
            integration,
            after,
            action
        ))
    }

    async fn members(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<MemberRecord, UserId>> {
        read!(self, "listing members", |conn, action| read::members(
            conn,
            integration,
            after,
            limit,
            action
        ))
    }

    async fn subjects(
        &self,
        integration: &IntegrationName,
        target: Option<&Target>,
    ) -> Result<Vec<MemberKey>> {
        read!(self, "listing subjects", |conn, action| read::subjects(
            conn,
            integration,
            target,
            action
        ))
    }

    async fn append(&self, events: Vec<AuditEvent>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(Work::Append(EventRow::all(&events)))
            .await
            .map(drop)
    }

    async fn events(
        &self,
        filter: &EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        read!(self, "reading audit events", |conn, action| read::events(
            conn, filter, after, limit, action
        ))
    }

    async fn last_sequence(&self) -> Result<u64> {
        read!(self, "reading the last sequence", |conn, action| async {
            read::last_sequence(conn).await.map(Ok)
        })
    }

    async fn claim_organization(
        &self,
        integration: &IntegrationName,
        organization: &OrganizationId,
    ) -> Result<()> {
        // Once bound, for good: after the first start there is nothing to write, and no commit to wait for.
        let is_bound = read!(self, "reading a claim", |conn, _action| async {
            read::is_claimed(conn, integration, organization)
                .await
                .map(Ok)
        })?;
        if is_bound {
            return Ok(());
        }
        self.write(Work::Claim(integration.clone(), organization.clone()))
            .await
            .map(drop)
    }

    async fn prune(
        &self,
        requests_before: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let work = Work::Prune {
            requests_before: rows::micros(requests_before),
            ended_before: rows::micros(ended_before),
            limit: rows::count(limit),
        };
        let action = work.action();
        let Reply::Number(count) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(count)
    }

    async fn census(&self, now: Timestamp) -> Result<Census> {
        read!(self, "counting", |conn, action| census::census(
            conn, now, action
        ))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.last_sequence.clone()
    }

    async fn check(&self) -> Result<()> {
        self.write(Work::Check).await.map(drop)
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // The writer may be gone already; then there is nothing left to flush.
            drop(closed.await);
        }
    }

    async fn receipt(&self, id: GrantId) -> Result<Option<Receipt>> {
        read!(self, "reading a receipt", |conn, action| {
            operations::receipt(conn, id, action)
        })
    }

    async fn list_receipts(
        &self,
        filter: &ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        read!(self, "listing receipts", |conn, action| {
            operations::list_receipts(conn, filter, before, limit, action)
        })
    }

    async fn late(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<MemberRecord, LateCursor>> {
        read!(self, "listing late removals", |conn, action| {
            operations::late(conn, integration, until, after, limit, action)
        })
    }

    async fn hidden_removals(
        &self,
        integration: &IntegrationName,
        until: Timestamp,
        after: Option<&LateCursor>,
        limit: usize,
    ) -> Result<Page<LateCursor, LateCursor>> {
        read!(self, "listing hidden removals", |conn, action| {
            operations::hidden_removals(conn, integration, until, after, limit, action)
        })
    }

    async fn forgotten(&self, integration: &IntegrationName) -> Result<Vec<MemberKey>> {
        read!(self, "listing forgotten access", |conn, action| {
            operations::forgotten(conn, integration, action)
        })
    }

    async fn endings(
        &self,
        integration: &IntegrationName,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(Timestamp, u64)>> {
        read!(self, "counting ends", |conn, action| read::endings(
            conn,
            integration,
            from,
            until,
            action
        ))
    }

    async fn identity(&self) -> Result<Identity> {
        read!(self, "reading the identity", |conn, action| {
            recovery::identity(conn, action)
        })
    }

    async fn agree(&self, generation: u64, witnessed: bool) -> Result<()> {
        self.write(Work::Agree {
            generation,
            witnessed,
        })
        .await
        .map(drop)
    }

    async fn holds(&self) -> Result<Vec<HoldRecord>> {
        read!(self, "reading holds", |conn, action| recovery::holds(
            conn, action
        ))
    }

    async fn put_hold(&self, hold: HoldRecord, audit: Vec<AuditEvent>) -> Result<()> {
        let row = recovery::HoldRow::new(&hold);
        self.write(Work::PutHold(row, EventRow::all(&audit)))
            .await
            .map(drop)
    }

    async fn end_hold(
        &self,
        integration: &IntegrationName,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let work = Work::EndHold(integration.clone(), EventRow::all(&audit));
        let action = work.action();
        let Reply::Number(ended) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(ended > 0)
    }

    async fn latest_instant(&self) -> Result<Option<Timestamp>> {
        read!(self, "reading the latest instant", |conn, action| {
            recovery::latest_instant(conn, action)
        })
    }

    async fn sights(
        &self,
        integration: &IntegrationName,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Page<Sighted, UserId>> {
        read!(self, "listing sights", |conn, action| {
            sights::sights(conn, integration, after, limit, action)
        })
    }

    fn stamp(&self) -> Option<u64> {
        engine::stamp(&self.counters)
    }

    async fn version(&self, key: &MemberKey) -> Result<u64> {
        read!(self, "reading a version", |conn, _action| read::version(
            conn, key
        ))
    }

    async fn rotation(&self, integration: &IntegrationName) -> Result<Option<KeyRotation>> {
        read!(self, "reading a rotation", |conn, action| {
            rotations::rotation(conn, integration, action)
        })
    }

    async fn put_rotation(&self, rotation: KeyRotation, audit: Vec<AuditEvent>) -> Result<bool> {
        let row = rotations::RotationRow::new(&rotation);
        let work = Work::PutRotation(row, EventRow::all(&audit));
        let action = work.action();
        let Reply::Number(put) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(put > 0)
    }

    async fn review(&self, id: GrantId) -> Result<Option<Review>> {
        read!(self, "reading a review", |conn, action| {
            reviews::review(conn, id, action)
        })
    }

    async fn reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>> {
        read!(self, "listing reviews", |conn, action| {
            reviews::list(conn, open_only, before, limit, action)
        })
    }

    async fn close_review(
        &self,
        id: GrantId,
        closing: Closing,
        audit: Vec<AuditEvent>,
    ) -> Result<bool> {
        let work = Work::CloseReview(id, Box::new(closing), EventRow::all(&audit));
        let action = work.action();
        let Reply::Number(closed) = self.write(work).await? else {
            return unexpected(action);
        };
        Ok(closed > 0)
    }

    async fn used(&self, tokens: &[String]) -> Result<Option<String>> {
        read!(self, "looking for used texts", |conn, _action| {
            reviews::known(conn, tokens)
        })
    }

    async fn restore_review(&self, review: Review) -> Result<()> {
        let token = TokenRow::of_review(&review);
        let work = Work::RestoreReview(Box::new((token, ReviewRow::new(&review))));
        self.write(work).await.map(drop)
    }
}
