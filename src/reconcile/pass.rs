//! One pass over one member: load, plan, write the intent, send once, write the outcome, look again.
//!
//! Owns the order of durable writes and upstream calls. Never sends a mutation twice in one pass, never sends
//! without a durable intent (removals on a ledger that cannot be written excepted: those only ever take away),
//! and never runs twice at once for one member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::due::Later;
use super::explain::explain_own_identity;
use super::look::READ_FAILURE;
use super::plan::{Expected, OWNER_ROLE, Plan, Snapshot, View, plan};
use super::settle::Draft;
use super::{Observer, Settings};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, GrantState};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{Backoff, Due, DueKind, MemberKey, MemberRecord, Subject, WriteKind};
use crate::ports::ledger::{LedgerError, MemberCommit};
use crate::ports::provider::{KeyPin, Outcome};
use crate::ports::{AccessProvider, Clock, Ledger, Wake};

/// Steps of one pass before it gives way to others; every step is durable, so the next pass goes on from there.
const MAX_STEPS: usize = 40;

/// Reconciles the members of one organization.
#[derive(Debug)]
pub struct Reconciler {
    pub(super) integration: IntegrationName,
    pub(super) provider: Arc<dyn AccessProvider>,
    pub(super) observer: Arc<Observer>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wake: Arc<dyn Wake>,
    pub(super) settings: Settings,
    /// Changes of organization owners go one at a time, so that two removals cannot each leave "another" owner. Holds
    /// the instant from which a read must have started to count the owners that the last removal left.
    owner_writes: Mutex<Option<Timestamp>>,
    /// Removals without a record whose outcome is unknown, and until when they may still land.
    pub(super) unrecorded: std::sync::Mutex<BTreeMap<MemberKey, (BTreeSet<Assignment>, Timestamp)>>,
}

/// What a pass did, for logs, metrics and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Assignments added, or possibly added.
    pub added: usize,
    /// Assignments removed, or possibly removed.
    pub removed: usize,
    /// Reads made or shared.
    pub reads: usize,
    /// When the member is due again.
    pub next: Option<Due>,
    /// Code of the failure that ended the pass early, if one did.
    pub failure: Option<String>,
}

/// What one pass has done so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) sent: BTreeSet<(WriteKind, Assignment)>,
    pub(super) refused_alone: BTreeMap<Assignment, String>,
    pub(super) removed_one: bool,
    pub(super) must_read: bool,
    pub(super) stop: Option<String>,
    pub(super) report: Report,
}

impl Reconciler {
    /// A reconciler for one organization.
    #[must_use]
    pub fn new(
        integration: IntegrationName,
        provider: Arc<dyn AccessProvider>,
        observer: Arc<Observer>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        wake: Arc<dyn Wake>,
        settings: Settings,
    ) -> Self {
        Self {
            integration,
            provider,
            observer,
            ledger,
            clock,
            wake,
            settings,
            owner_writes: Mutex::new(None),
            unrecorded: std::sync::Mutex::default(),
        }
    }

    /// The organization that this reconciler works on.
    #[must_use]
    pub fn integration(&self) -> &IntegrationName {
        &self.integration
    }

    /// Brings one member as close to what the ledger expects as can be done now.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read or written; the caller tries again later.
    pub async fn pass(&self, key: &MemberKey) -> Result<Report, LedgerError> {
        match &key.subject {
            Subject::Member(user) => self.member_pass(key, user).await,
            Subject::Invitee(email) => self.invitee_pass(key, email).await,
        }
    }

    async fn member_pass(&self, key: &MemberKey, user: &UserId) -> Result<Report, LedgerError> {
        let pin = self.provider.pin();
        let mut progress = Progress::default();
        for _ in 0..MAX_STEPS {
            let record = self.ledger.member(key).await?;
            if record.version == 0 {
                return Ok(progress.report);
            }
            let now = self.clock.now();
            let mut draft = Draft::new(record);
            draft.rewind(now, &self.settings);
            self.recall_unrecorded(&mut draft, now);
            if progress
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.started_at > now)
            {
                // The clock was set back since: nobody can tell any more what the read came after.
                progress.snapshot = None;
            }
            draft.advance(now, &self.settings);
            if self.is_own_identity(user) {
                let wanted: Vec<Assignment> =
                    Expected::of(&draft.record, now).0.into_keys().collect();
                draft.fail_activation(&wanted, &explain_own_identity(now), now);
            }
            let (plan, _) = self.plan(&draft.record, &progress, now);
            draft.settle(&plan, progress.snapshot.as_ref(), now, &self.settings);
            if self.is_own_identity(user) {
                for assignment in &plan.remove {
                    draft.block(assignment, "own_identity", now, &self.settings);
                }
            }
            if draft.changed {
                // Facts first; the next round decides on them.
                draft.record.due = Some(self.due_now(&draft.record, now));
                let unrecorded = draft.record.clone();
                match self.commit(draft).await {
                    Ok(_) | Err(LedgerError::Conflict { .. }) => continue,
                    Err(error) => {
                        return Err(self
                            .remove_unrecorded(&unrecorded, &plan.remove, user, pin, error)
                            .await);
                    }
                }
            }
            if self
                .act(draft.record, &plan, user, pin, &mut progress)
                .await?
            {
                continue;
            }
            let record = self.ledger.member(key).await?;
            let now = self.clock.now();
            let (plan, later) = self.plan(&record, &progress, now);
            if self
                .observe(record.clone(), &plan, user, &mut progress, now)
                .await?
            {
                continue;
            }
            return self.rest(record, &plan, later, progress, now).await;
        }
        progress.report.next = Some(Due {
            at: self.clock.now(),
            kind: DueKind::Verify,
            weight: 0,
        });
        Ok(progress.report)
    }

    /// The plan, less what this pass must not do, and whether that leaves anything owed.
    fn plan(&self, record: &MemberRecord, progress: &Progress, now: Timestamp) -> (Plan, Later) {
        let expected = Expected::of(record, now);
        let view = View {
            expected: &expected,
            owned: &record.owned,
            snapshot: progress.snapshot.as_ref(),
            last_seen: record.last_seen.as_ref().map(|seen| &seen.assignments),
            reads_fail: record
                .backoff
                .as_ref()
                .is_some_and(|backoff| backoff.code.starts_with(READ_FAILURE)),
        };
        let mut plan = plan(&view, now, &self.settings.bounds);
        // Once per pass: what was sent is not sent again, the next pass observes and decides. What failed before
        // waits for its pause.
        let waiting = record
            .backoff
            .as_ref()
            .is_some_and(|backoff| backoff.until > now);
        let goes = |kind: WriteKind, assignment: &Assignment| {
            let failed = record
                .owned(assignment)
                .is_some_and(|row| row.last_write.kind == kind && row.attempts > 0);
            let sent = progress.sent.contains(&(kind, assignment.clone()));
            !(sent || (waiting && failed))
        };
        let mut later = Later::default();
        let keep = |kind: WriteKind, list: &mut Vec<Assignment>, put_off: &mut bool| {
            let before = list.len();
            list.retain(|assignment| goes(kind, assignment));
            *put_off |= list.len() != before;
        };
        keep(WriteKind::Add, &mut plan.add, &mut later.add);
        keep(WriteKind::Add, &mut plan.restore, &mut later.add);
        keep(WriteKind::Remove, &mut plan.remove, &mut later.remove);
        keep(WriteKind::Remove, &mut plan.held_back, &mut later.remove);
        if waiting && !plan.restore.is_empty() {
            plan.restore.clear();
            later.add = true;
        }
        plan.next_suspect();
        later.remove |= !plan.held_back.is_empty();
        if record.isolate_adds {
            later.add |= plan.add.len() > 1;
            plan.add.truncate(1);
        }
        (plan, later)
    }

    /// Sends at most one mutation. Answers whether it did.
    async fn act(
        &self,
        record: MemberRecord,
        plan: &Plan,
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
    ) -> Result<bool, LedgerError> {
        if progress.must_read || self.is_own_identity(user) || progress.stop.is_some() {
            return Ok(false);
        }
        // Additions go first, so that overlapping access has no gap; but not before the removal of a neighbour, which
        // might take them along again.
        let neighbours = plan.add.iter().any(|added| {
            plan.remove
                .iter()
                .any(|removed| added.is_neighbour_of(removed))
        });
        if !plan.add.is_empty() && !neighbours {
            self.send(record, WriteKind::Add, &plan.add, user, pin, progress)
                .await?;
            return Ok(true);
        }
        // One by one, the least recently tried first: one that is refused must not keep the others away.
        let last_try = |assignment: &&Assignment| {
            let survivors = record.owned.iter().flat_map(|row| &row.must_survive);
            survivors
                .filter(|survivor| survivor.assignment == **assignment)
                .filter_map(|survivor| survivor.restored_at)
                .max()
        };
        if let Some(next) = plan.restore.iter().min_by_key(last_try).cloned() {
            self.restore(record, &[next], user, pin, progress).await?;
            return Ok(true);
        }
        if !plan.remove.is_empty() {
            self.send(record, WriteKind::Remove, &plan.remove, user, pin, progress)
                .await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn send(
        &self,
        before: MemberRecord,
        kind: WriteKind,
        assignments: &[Assignment],
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        let mut owners = self.lock_owners(assignments).await;
        // Never further ahead than a clock that was not set back would have put it.
        let latest = self.clock.now() + self.settings.bounds.read_staleness;
        let counts_from = owners.as_deref().copied().flatten();
        if kind == WriteKind::Remove
            && let Some(counts_from) = counts_from.map(|from| from.min(latest))
            && progress
                .snapshot
                .as_ref()
                .is_none_or(|snapshot| snapshot.started_at < counts_from)
        {
            // Another owner was removed since the read that counted them.
            return self
                .recount_owners(&before.key, counts_from, progress)
                .await;
        }
        let mut draft = Draft::new(before.clone());
        let now = self.clock.now();
        draft.intend(kind, assignments, now, &self.settings);
        draft.record.due = Some(self.due_now(&draft.record, now));
        let key = before.key.clone();
        match self.commit(draft).await {
            Ok(version) => {
                // A grant or extension that was accepted since then is decided on before anything is sent.
                if self.ledger.member(&key).await?.version != version {
                    return self.take_back(&before, assignments).await;
                }
            }
            Err(LedgerError::Conflict { .. }) => return Ok(()),
            Err(error) if kind == WriteKind::Remove => {
                return Err(self
                    .remove_unrecorded(&before, assignments, user, pin, error)
                    .await);
            }
            Err(error) => return Err(error),
        }
        let outcome = self.call(kind, pin, user, assignments).await;
        if let (WriteKind::Remove, Some(counts_from), false) = (
            kind,
            owners.as_deref_mut(),
            matches!(outcome, Outcome::Refused(..)),
        ) {
            *counts_from = Some(self.clock.now() + self.settings.bounds.read_staleness);
        }
        self.count_lateness(&before, kind, assignments, outcome.evidence().elapsed_ms);
        for assignment in assignments {
            progress.sent.insert((kind, assignment.clone()));
        }
        match kind {
            WriteKind::Add => progress.report.added += assignments.len(),
            WriteKind::Remove => progress.report.removed += assignments.len(),
        }
        self.record_outcome(&key, kind, assignments, &before, &outcome, progress)
            .await
    }

    /// Ends the pass; the next one reads late enough to count the owners that are left.
    async fn recount_owners(
        &self,
        key: &MemberKey,
        counts_from: Timestamp,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        const CODE: &str = "owner_change";
        progress.snapshot = None;
        progress.stop = Some(CODE.to_owned());
        self.update(key, |draft, _| {
            draft.record.backoff = Some(Backoff {
                failures: draft
                    .record
                    .backoff
                    .as_ref()
                    .map_or(0, |backoff| backoff.failures),
                until: counts_from,
                code: CODE.to_owned(),
            });
            draft.changed = true;
        })
        .await
    }

    async fn call(
        &self,
        kind: WriteKind,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        match kind {
            WriteKind::Add => self.provider.add(pin, user, assignments).await,
            WriteKind::Remove => self.provider.remove(pin, user, assignments).await,
        }
    }

    /// The intent was overtaken before a byte left: ownership goes back to what it was.
    pub(super) async fn take_back(
        &self,
        before: &MemberRecord,
        assignments: &[Assignment],
    ) -> Result<(), LedgerError> {
        self.update(&before.key, |draft, now| {
            draft.undo_intent(before, assignments, now)
        })
        .await
    }

    pub(super) fn is_own_identity(&self, user: &UserId) -> bool {
        self.provider.key_status().own_user_id.as_ref() == Some(user)
    }

    async fn lock_owners(
        &self,
        assignments: &[Assignment],
    ) -> Option<MutexGuard<'_, Option<Timestamp>>> {
        if assignments
            .iter()
            .any(|assignment| assignment.role == OWNER_ROLE)
        {
            Some(self.owner_writes.lock().await)
        } else {
            None
        }
    }

    /// Loads, changes and stores a member until nobody was in between.
    pub(super) async fn update(
        &self,
        key: &MemberKey,
        mut change: impl FnMut(&mut Draft, Timestamp) + Send,
    ) -> Result<(), LedgerError> {
        loop {
            let now = self.clock.now();
            let mut draft = Draft::new(self.ledger.member(key).await?);
            change(&mut draft, now);
            if !draft.changed && draft.audit.is_empty() {
                return Ok(());
            }
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn commit(&self, draft: Draft) -> Result<u64, LedgerError> {
        let Draft { record, audit, .. } = draft;
        let ended: Vec<_> = record
            .grants
            .iter()
            .filter_map(|grant| {
                if let GrantState::Ended { at, cause } = &grant.state {
                    Some((cause.code(), grant.removal_sent_at.map(|sent| *at - sent)))
                } else {
                    None
                }
            })
            .collect();
        let changes: Vec<AuditEvent> = audit
            .iter()
            .filter(|event| event.kind.name() == "grant_changed")
            .cloned()
            .collect();
        let version = self
            .ledger
            .commit(MemberCommit {
                record,
                audit,
                request: None,
            })
            .await?;
        for (cause, verified) in ended {
            super::metrics::grant_ended(&self.integration, cause, verified);
        }
        for event in changes {
            log_change(&event);
        }
        Ok(version)
    }
}

/// One line for each change of the state of access.
fn log_change(event: &AuditEvent) {
    let EventKind::GrantChanged {
        from, to, cause, ..
    } = &event.kind
    else {
        return;
    };
    let grant = event.grant_id.map(|id| id.to_string()).unwrap_or_default();
    let cause = cause.as_ref().map(EndCause::code);
    tracing::info!(
        grant.id = grant,
        grant.from = from,
        grant.state = to,
        cause,
        "Grant changed"
    );
}
