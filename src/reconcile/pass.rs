//! One pass over one member: load, plan, write the intent, send once, write the outcome, look again.
//!
//! Owns the order of durable writes and upstream calls. Never sends a mutation twice in one pass, never sends
//! without a durable intent (removals on a ledger that cannot be written excepted: those only ever take away),
//! and never runs twice at once for one member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::Mutex;

use super::plan::{Expected, OWNER_ROLE, Plan, Snapshot, View, must_survive, plan};
use super::settle::{Draft, pause};
use super::{Observer, Settings};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{GrantState, LastError};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{
    Backoff, Due, DueKind, MemberKey, MemberRecord, Subject, WriteKind, WriteOutcome,
};
use crate::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember};
use crate::ports::ledger::{LedgerError, MemberCommit};
use crate::ports::provider::{KeyPin, Outcome, Priority, ReadError, Refusal};
use crate::ports::{AccessProvider, Clock, Ledger, Wake};

/// Marks a pause that a failed or useless read caused.
const READ_FAILURE: &str = "read/";

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
    /// Changes of organization owners go one at a time, so that two removals cannot each leave "another" owner.
    owner_writes: Mutex<()>,
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
    snapshot: Option<Snapshot>,
    sent: BTreeSet<(WriteKind, Assignment)>,
    refused_alone: BTreeMap<Assignment, String>,
    removed_one: bool,
    must_read: bool,
    stop: Option<String>,
    report: Report,
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
            owner_writes: Mutex::new(()),
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
            draft.advance(now, &self.settings);
            let plan = self.plan(&draft.record, &progress, now);
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
            let plan = self.plan(&record, &progress, now);
            if self
                .observe(record.clone(), &plan, user, &mut progress, now)
                .await?
            {
                continue;
            }
            return self.rest(record, &plan, progress, now).await;
        }
        progress.report.next = Some(Due {
            at: self.clock.now(),
            kind: DueKind::Verify,
            weight: 0,
        });
        Ok(progress.report)
    }

    fn plan(&self, record: &MemberRecord, progress: &Progress, now: Timestamp) -> Plan {
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
        // Once per pass: what was sent is not sent again, the next pass observes and decides.
        let waiting = record
            .backoff
            .as_ref()
            .is_some_and(|backoff| backoff.until > now);
        let repeats = |kind: WriteKind, assignment: &Assignment| {
            waiting
                && record
                    .owned(assignment)
                    .is_some_and(|row| row.last_write.kind == kind && row.attempts > 0)
        };
        plan.add
            .retain(|assignment| !repeats(WriteKind::Add, assignment));
        plan.remove
            .retain(|assignment| !repeats(WriteKind::Remove, assignment));
        plan.add.retain(|assignment| {
            !progress
                .sent
                .contains(&(WriteKind::Add, assignment.clone()))
        });
        plan.restore.retain(|assignment| {
            !progress
                .sent
                .contains(&(WriteKind::Add, assignment.clone()))
        });
        plan.remove.retain(|assignment| {
            !progress
                .sent
                .contains(&(WriteKind::Remove, assignment.clone()))
        });
        if record.isolate_adds {
            plan.add.truncate(1);
        }
        plan
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
        if !plan.add.is_empty() {
            self.send(record, WriteKind::Add, &plan.add, user, pin, progress)
                .await?;
            return Ok(true);
        }
        if !plan.restore.is_empty() {
            self.restore(record, &plan.restore, user, pin, progress)
                .await?;
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
        let _owners = self.lock_owners(assignments).await;
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
    async fn take_back(
        &self,
        before: &MemberRecord,
        assignments: &[Assignment],
    ) -> Result<(), LedgerError> {
        self.update(&before.key, |draft, now| {
            draft.undo_intent(before, assignments, now)
        })
        .await
    }

    async fn record_outcome(
        &self,
        key: &MemberKey,
        kind: WriteKind,
        assignments: &[Assignment],
        before: &MemberRecord,
        outcome: &Outcome<()>,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        let event = EventKind::CallEnded {
            write: kind,
            assignments: assignments.iter().map(ToString::to_string).collect(),
            outcome: outcome.name().to_owned(),
            evidence: outcome.evidence().clone(),
        };
        let alone = assignments.len() == 1;
        let proven_elsewhere = progress.removed_one;
        match outcome {
            Outcome::Done(..) => {
                let accused = match kind {
                    WriteKind::Remove => {
                        progress.removed_one = true;
                        std::mem::take(&mut progress.refused_alone)
                    }
                    WriteKind::Add => BTreeMap::new(),
                };
                let repeated = assignments.iter().any(|assignment| {
                    before
                        .owned(assignment)
                        .is_some_and(|row| row.last_write.kind == kind)
                });
                self.update(key, |draft, now| {
                    draft
                        .audit
                        .push(AuditEvent::member(now, key, event.clone()));
                    draft.sent(
                        kind,
                        WriteOutcome::Done,
                        before,
                        assignments,
                        now,
                        &self.settings,
                    );
                    draft.record.backoff = None;
                    if repeated {
                        self.back_off(&mut draft.record, "not_applied", now);
                    }
                    for (assignment, code) in &accused {
                        draft.block(assignment, code, now, &self.settings);
                    }
                })
                .await
            }
            Outcome::Unknown(evidence) => {
                let code = evidence
                    .code
                    .clone()
                    .unwrap_or_else(|| "no_answer".to_owned());
                let error = explain_unknown(&code, self.clock.now());
                self.update(key, |draft, now| {
                    draft
                        .audit
                        .push(AuditEvent::member(now, key, event.clone()));
                    draft.sent(
                        kind,
                        WriteOutcome::Unknown,
                        before,
                        assignments,
                        now,
                        &self.settings,
                    );
                    draft.blame(kind, assignments, &error, now);
                    self.back_off(&mut draft.record, &code, now);
                })
                .await
            }
            Outcome::Refused(refusal, _) => {
                let error = explain(refusal, self.clock.now());
                let definite = !refusal.is_transient();
                if definite {
                    progress.must_read = true;
                    if alone && kind == WriteKind::Remove && !progress.removed_one {
                        let code = refusal.code().to_owned();
                        progress
                            .refused_alone
                            .extend(assignments.iter().map(|one| (one.clone(), code.clone())));
                    }
                    if !alone {
                        // It certainly had no effect: each may be tried alone.
                        progress.sent.retain(|(sent, assignment)| {
                            *sent != kind || !assignments.contains(assignment)
                        });
                    }
                } else {
                    progress.stop = Some(error.code.clone());
                }
                self.update(key, |draft, now| {
                    draft
                        .audit
                        .push(AuditEvent::member(now, key, event.clone()));
                    draft.undo_intent(before, assignments, now);
                    draft.blame(kind, assignments, &error, now);
                    self.back_off(&mut draft.record, &error.code, now);
                    if !definite {
                        return;
                    }
                    match (kind, alone) {
                        (WriteKind::Add, false) => draft.record.isolate_adds = true,
                        (WriteKind::Add, true) => draft.fail_activation(assignments, &error, now),
                        (WriteKind::Remove, false) => {
                            for row in &mut draft.record.owned {
                                row.isolate |= assignments.contains(&row.assignment);
                            }
                        }
                        (WriteKind::Remove, true) => {
                            for assignment in assignments {
                                if let Some(row) = draft.record.owned_mut(assignment) {
                                    row.isolate = true;
                                    row.attempts += 1;
                                }
                                // One that fails while a sibling on the same key succeeds is blocked by the provider;
                                // where all fail the key has lost rights, and the pairs are not to blame.
                                if proven_elsewhere || self.key_works(before) {
                                    draft.block(assignment, &error.code, now, &self.settings);
                                }
                            }
                        }
                    }
                })
                .await
            }
        }
    }

    /// Whether the key in use is known to work since the member's trouble began.
    fn key_works(&self, record: &MemberRecord) -> bool {
        let status = self.provider.key_status();
        status.sees_owners == Some(true)
            && record
                .backoff
                .as_ref()
                .is_some_and(|backoff| backoff.failures >= 2)
    }

    async fn restore(
        &self,
        before: MemberRecord,
        assignments: &[Assignment],
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        let key = before.key.clone();
        let texts: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        let mut draft = Draft::new(before);
        let now = self.clock.now();
        for row in &mut draft.record.owned {
            for survivor in &mut row.must_survive {
                if assignments.contains(&survivor.assignment) {
                    survivor.restored_at = Some(now);
                    survivor.restores += 1;
                }
            }
        }
        for assignment in assignments {
            draft.drift(now, "survivor_missing", assignment, "put back as it was");
        }
        let intent = EventKind::CallIntended {
            write: WriteKind::Add,
            assignments: texts.clone(),
            must_survive: Vec::new(),
        };
        draft.audit.push(AuditEvent::member(now, &key, intent));
        draft.record.due = Some(self.due_now(&draft.record, now));
        match self.commit(draft).await {
            Ok(_) => {}
            Err(LedgerError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let outcome = self.provider.add(pin, user, assignments).await;
        for assignment in assignments {
            progress.sent.insert((WriteKind::Add, assignment.clone()));
        }
        let event = EventKind::CallEnded {
            write: WriteKind::Add,
            assignments: texts,
            outcome: outcome.name().to_owned(),
            evidence: outcome.evidence().clone(),
        };
        let transient = matches!(&outcome, Outcome::Refused(refusal, _) if refusal.is_transient());
        self.update(&key, |draft, now| {
            draft
                .audit
                .push(AuditEvent::member(now, &key, event.clone()));
            draft.changed = true;
            for survivor in draft
                .record
                .owned
                .iter_mut()
                .flat_map(|row| &mut row.must_survive)
            {
                if transient && assignments.contains(&survivor.assignment) {
                    survivor.restores = survivor.restores.saturating_sub(1);
                }
            }
        })
        .await
    }

    /// The ledger cannot be written, and access is due to go: taking away what is ours needs no further proof. The
    /// record is written by a later pass, once the ledger can be written again.
    async fn remove_unrecorded(
        &self,
        record: &MemberRecord,
        assignments: &[Assignment],
        user: &UserId,
        pin: KeyPin,
        error: LedgerError,
    ) -> LedgerError {
        let now = self.clock.now();
        let held = record
            .last_seen
            .as_ref()
            .map(|seen| seen.assignments.clone())
            .unwrap_or_default();
        let neighbours = must_survive(
            assignments,
            &held,
            &record.owned,
            &Expected::of(record, now),
        );
        let unavailable = matches!(error, LedgerError::Unavailable { .. });
        if unavailable
            && !assignments.is_empty()
            && neighbours.is_empty()
            && !self.is_own_identity(user)
        {
            let outcome = self.provider.remove(pin, user, assignments).await;
            tracing::error!(
                integration = %self.integration,
                error = error.code(),
                outcome = outcome.name(),
                "Ledger cannot be written; removed due access without a record"
            );
        }
        error
    }

    /// Makes or joins a read if one would settle something. Answers whether it changed what is known.
    async fn observe(
        &self,
        record: MemberRecord,
        plan: &Plan,
        user: &UserId,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        let absent_due = record
            .absent_since
            .map(|since| since + self.settings.absence_confirm);
        let wanted = [plan.observe_at, absent_due, record.check_at]
            .into_iter()
            .flatten()
            .min();
        let due = progress.must_read || wanted.is_some_and(|at| at <= now);
        if !due || plan.blind || progress.stop.is_some() || self.nothing_to_look_at(&record) {
            return Ok(false);
        }
        progress.must_read = false;
        let read = self
            .observer
            .observe(Interest::user(user.clone()), Priority::Verify)
            .await;
        progress.report.reads += 1;
        match read {
            Ok(read) => {
                progress.snapshot = self.take_in(&record.key, user, &read).await?;
                Ok(true)
            }
            Err(error) => {
                progress.stop = Some(error.code().to_owned());
                let last_error = explain_read(&error, self.clock.now());
                self.update(&record.key, |draft, now| {
                    draft.each_grant(now, |grant| {
                        let waiting = matches!(
                            grant.state,
                            GrantState::Activating { .. } | GrantState::Revoking { .. }
                        );
                        if waiting {
                            grant.last_error = Some(last_error.clone());
                            grant.attempts += 1;
                        }
                        waiting
                    });
                    self.back_off(
                        &mut draft.record,
                        &format!("{READ_FAILURE}{}", last_error.code),
                        now,
                    );
                })
                .await?;
                Ok(true)
            }
        }
    }

    fn nothing_to_look_at(&self, record: &MemberRecord) -> bool {
        record.grants.is_empty() && record.owned.is_empty()
    }

    /// Turns a read into a snapshot of the member; notices joining, leaving and keys that see too little.
    async fn take_in(
        &self,
        key: &MemberKey,
        user: &UserId,
        read: &MembersRead,
    ) -> Result<Option<Snapshot>, LedgerError> {
        let member = read.member(user);
        let snapshot = Snapshot {
            started_at: read.started_at,
            complete: read.is_complete(),
            shown: member.is_some(),
            assignments: member
                .map(|member| member.assignments.clone())
                .unwrap_or_default(),
            owners: read.owners,
        };
        self.update(key, |draft, now| {
            let checked = draft.record.check_at.take();
            draft.changed |= checked.is_some();
            if checked.is_some_and(|at| at > now) {
                draft.record.check_at = checked;
            } else if checked.is_some() {
                draft.record.check_at = self.next_check(&draft.record, now);
            }
            match member {
                Some(member) => self.take_in_shown(draft, member, read, now),
                None if read.is_complete() => self.take_in_absent(draft, read, now),
                None => {}
            }
            if let Some(incomplete) = read.incomplete {
                self.fail_blind(draft, incomplete, now);
            }
        })
        .await?;
        Ok(Some(snapshot))
    }

    fn take_in_shown(
        &self,
        draft: &mut Draft,
        member: &ObservedMember,
        read: &MembersRead,
        now: Timestamp,
    ) {
        if draft.record.absent_since.take().is_some() {
            draft.changed = true;
        }
        match draft.record.member_since {
            Some(known) if known < member.member_since => {
                draft.member_left(read.started_at, member.member_since, now, &self.settings);
                draft.record.member_since = Some(member.member_since);
            }
            Some(_) => {}
            None => {
                draft.record.member_since = Some(member.member_since);
                draft.changed = true;
            }
        }
    }

    fn take_in_absent(&self, draft: &mut Draft, read: &MembersRead, now: Timestamp) {
        match draft.record.absent_since {
            Some(since) if read.started_at >= since + self.settings.absence_confirm => {
                draft.member_left(read.started_at, now, now, &self.settings);
            }
            Some(_) => {}
            None if draft.record.grants.is_empty() => {}
            None => {
                draft.record.absent_since = Some(read.started_at);
                draft.changed = true;
            }
        }
    }

    /// A key that does not see what an owner sees can prove nothing, so nothing new is given with it.
    fn fail_blind(&self, draft: &mut Draft, incomplete: Incomplete, now: Timestamp) {
        let error = explain_incomplete(incomplete, now);
        let untouched: Vec<Assignment> = draft
            .record
            .grants
            .iter()
            .flat_map(|grant| &grant.assignments)
            .map(|held| held.assignment.clone())
            .filter(|assignment| draft.record.owned(assignment).is_none())
            .collect();
        draft.fail_activation(&untouched, &error, now);
        draft.blame(
            WriteKind::Remove,
            &owned_assignments(&draft.record),
            &error,
            now,
        );
        self.back_off(
            &mut draft.record,
            &format!("{READ_FAILURE}{}", error.code),
            now,
        );
    }

    fn next_check(&self, record: &MemberRecord, now: Timestamp) -> Option<Timestamp> {
        record
            .grants
            .iter()
            .filter_map(|grant| match grant.state {
                GrantState::Active { activated_at, .. } => {
                    Some(activated_at + self.settings.second_check)
                }
                _ => None,
            })
            .filter(|at| *at > now)
            .min()
    }

    /// Nothing can be done now: writes down when the member is due again.
    async fn rest(
        &self,
        record: MemberRecord,
        plan: &Plan,
        progress: Progress,
        now: Timestamp,
    ) -> Result<Report, LedgerError> {
        let Progress {
            mut report, stop, ..
        } = progress;
        let next = self.next_due(&record, plan, now);
        report.next = next;
        report.failure = stop;
        if record.due != next || (record.isolate_adds && plan.add.is_empty()) {
            let mut draft = Draft::new(record);
            draft.record.due = next;
            draft.record.isolate_adds &= !plan.add.is_empty();
            match self.commit(draft).await {
                Ok(_) => {}
                Err(LedgerError::Conflict { .. }) => {
                    report.next = Some(Due {
                        at: now,
                        kind: DueKind::Verify,
                        weight: 0,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// When the member is due next, and for what.
    fn next_due(&self, record: &MemberRecord, plan: &Plan, now: Timestamp) -> Option<Due> {
        let mut dues = Vec::new();
        for grant in &record.grants {
            let weight = grant.weight();
            if let Some(at) = grant.next_deadline() {
                let kind = match grant.state {
                    GrantState::Scheduled { .. } => DueKind::Grant,
                    GrantState::AwaitingMember { .. } => DueKind::Look,
                    _ => DueKind::Remove,
                };
                dues.push(Due { at, kind, weight });
            }
            if let GrantState::Activating { since, .. } = grant.state {
                dues.push(Due {
                    at: since + self.settings.activation_timeout,
                    kind: DueKind::Grant,
                    weight,
                });
            }
        }
        let weight = record
            .owned
            .iter()
            .map(|row| row.assignment.weight())
            .max()
            .unwrap_or(0);
        let soonest = record
            .backoff
            .as_ref()
            .map_or(now, |backoff| backoff.until.max(now));
        if let Some(at) = plan.observe_at {
            let settling = record.owned.iter().any(|row| !row.seen)
                || record
                    .grants
                    .iter()
                    .any(|grant| matches!(grant.state, GrantState::Revoking { .. }));
            let kind = if settling {
                DueKind::Verify
            } else {
                DueKind::Look
            };
            dues.push(Due {
                at: if at <= now { soonest } else { at },
                kind,
                weight,
            });
        }
        if !plan.remove.is_empty() || self.has_unsent_removal(record, now) {
            dues.push(Due {
                at: soonest,
                kind: DueKind::Remove,
                weight,
            });
        }
        if !plan.add.is_empty()
            || !plan.restore.is_empty()
            || self.has_unverified_activation(record)
        {
            dues.push(Due {
                at: soonest.max(now + self.settings.retry_floor),
                kind: DueKind::Grant,
                weight,
            });
        }
        for row in &record.owned {
            if let Some(blocked) = &row.blocked {
                dues.push(Due {
                    at: blocked.retry_at,
                    kind: DueKind::Remove,
                    weight,
                });
            }
        }
        for at in [
            record.check_at,
            record
                .absent_since
                .map(|since| since + self.settings.absence_confirm),
        ]
        .into_iter()
        .flatten()
        {
            dues.push(Due {
                at: at.max(soonest),
                kind: DueKind::Look,
                weight,
            });
        }
        dues.into_iter().min()
    }

    /// Removals that this pass sent and that still have to be sent again, by what the ledger knows.
    fn has_unsent_removal(&self, record: &MemberRecord, now: Timestamp) -> bool {
        let expected = Expected::of(record, now);
        record.owned.iter().any(|row| {
            row.phase == crate::domain::member::Phase::Live
                && row.last_write.kind == WriteKind::Add
                && row.blocked.is_none()
                && !expected.0.contains_key(&row.assignment)
        })
    }

    fn has_unverified_activation(&self, record: &MemberRecord) -> bool {
        record
            .grants
            .iter()
            .any(|grant| matches!(grant.state, GrantState::Activating { .. }))
    }

    pub(super) fn back_off(&self, record: &mut MemberRecord, code: &str, now: Timestamp) {
        let failures = record
            .backoff
            .as_ref()
            .map_or(0, |backoff| backoff.failures)
            + 1;
        let cap = self.settings.backoff_cap;
        let spread = spread_of(&record.key);
        let until = now + pause(failures, self.settings.backoff_base, cap, spread);
        record.backoff = Some(Backoff {
            failures,
            until,
            code: code.to_owned(),
        });
    }

    pub(super) fn due_now(&self, record: &MemberRecord, now: Timestamp) -> Due {
        let weight = record
            .owned
            .iter()
            .map(|row| row.assignment.weight())
            .max()
            .unwrap_or(0);
        let revoking = record
            .grants
            .iter()
            .any(|grant| matches!(grant.state, GrantState::Revoking { .. }));
        Due {
            at: now,
            kind: if revoking {
                DueKind::Remove
            } else {
                DueKind::Verify
            },
            weight,
        }
    }

    fn is_own_identity(&self, user: &UserId) -> bool {
        self.provider.key_status().own_user_id.as_ref() == Some(user)
    }

    async fn lock_owners(
        &self,
        assignments: &[Assignment],
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
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
            .filter_map(|grant| match &grant.state {
                GrantState::Ended { at, cause } => {
                    Some((cause.code(), grant.removal_sent_at.map(|sent| *at - sent)))
                }
                _ => None,
            })
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
        Ok(version)
    }

    /// Lateness counts to the moment the first byte left, waiting for the rate budget included.
    fn count_lateness(
        &self,
        record: &MemberRecord,
        kind: WriteKind,
        assignments: &[Assignment],
        elapsed_ms: u64,
    ) {
        if kind != WriteKind::Remove {
            return;
        }
        let now =
            self.clock.now() - TimeDelta::milliseconds(i64::try_from(elapsed_ms).unwrap_or(0));
        for grant in &record.grants {
            let GrantState::Revoking { since, .. } = &grant.state else {
                continue;
            };
            let concerned = grant
                .assignments
                .iter()
                .any(|held| assignments.contains(&held.assignment));
            if concerned && grant.removal_sent_at.is_none() {
                super::metrics::removal_sent(&self.integration, now - *since);
            }
        }
    }
}

fn owned_assignments(record: &MemberRecord) -> Vec<Assignment> {
    record
        .owned
        .iter()
        .map(|row| row.assignment.clone())
        .collect()
}

/// A number that differs from member to member and stays the same for one, to spread retries.
fn spread_of(key: &MemberKey) -> u64 {
    key.to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

fn explain(refusal: &Refusal, at: Timestamp) -> LastError {
    let remedy = match refusal {
        Refusal::Unauthenticated { .. } => "check the key in the secret store, or rotate it",
        Refusal::Forbidden { .. } => {
            "the key needs the organization-admin role, and a deployment that is shut down refuses changes"
        }
        Refusal::NotFound { .. } => "check the base URL and the organization of the integration",
        Refusal::Invalid { .. } => {
            "check member, role and target; Elastic Cloud rejects the request as it is"
        }
        Refusal::Throttled { .. } => "it is tried again once the rate limit allows",
        Refusal::NotSent { .. } => "it is tried again; check that Elastic Cloud can be reached",
        Refusal::KeyRotated => "it is tried again with the new key",
    };
    LastError {
        code: refusal.code().to_owned(),
        message: format!("{refusal}: {remedy}"),
        at,
    }
}

fn explain_unknown(code: &str, at: Timestamp) -> LastError {
    LastError {
        code: code.to_owned(),
        message: "Elastic Cloud did not answer; what happened is found out by reading".to_owned(),
        at,
    }
}

fn explain_read(error: &ReadError, at: Timestamp) -> LastError {
    LastError {
        code: error.code().to_owned(),
        message: format!("{error}; the read is tried again, and removals are sent without it"),
        at,
    }
}

fn explain_incomplete(incomplete: Incomplete, at: Timestamp) -> LastError {
    let (code, message) = match incomplete {
        Incomplete::KeyIsNotOwner => (
            "key_not_owner",
            "the key does not see the organization's owners: give it the organization-admin role",
        ),
        Incomplete::OtherOrganization => (
            "other_organization",
            "the key sees another organization: check organization_id and the key",
        ),
        Incomplete::MorePages => (
            "more_pages",
            "Elastic Cloud hints at more members than it showed: update the connector",
        ),
        Incomplete::Ambiguous => (
            "ambiguous_members",
            "Elastic Cloud showed members that cannot be told apart",
        ),
    };
    LastError {
        code: code.to_owned(),
        message: message.to_owned(),
        at,
    }
}
