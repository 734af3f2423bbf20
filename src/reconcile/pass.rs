//! One pass over one member: load, plan, write the intent, send once, write the outcome, look again.
//!
//! Owns the order of durable writes and upstream calls. Never sends a mutation twice in one pass, never sends
//! without a durable intent (removals on a ledger that cannot be written excepted: those only ever take away),
//! and never runs twice at once for one member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::due::{Later, NO_TURN};
use super::explain::explain_own_identity;
use super::look::READ_FAILURE;
use super::outage::{Outage, Reading};
use super::owners::{OwnerWrites, Quorum};
use super::plan::{Expected, OWNER_ROLE, Plan, Snapshot, View, plan};
use super::settle::Draft;
use super::unrecorded::Unrecorded;
use super::{Observer, Settings};
use crate::domain::Timestamp;
use crate::domain::assignment::{Assignment, total_weight};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{Due, DueKind, MemberKey, MemberRecord, Subject, WriteKind};
use crate::ports::ledger::{LedgerError, NotOwner};
use crate::ports::ownership::Standing;
use crate::ports::provider::{Claim, KeyPin, Outcome, Priority, Turn};
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
    pub(super) hold: Option<Arc<super::Hold>>,
    /// The claim under which this process works, where there are several.
    pub(super) standing: Option<Arc<Standing>>,
    /// What goes on without the ledger; absent where nothing does.
    pub(super) outage: Option<Arc<Outage>>,
    /// Only takes access away: for a sweep, after which nobody would be there to remove what was added.
    takes_only: bool,
    /// Changes of organization owners go one at a time, so that two removals cannot each leave "another" owner.
    pub(super) owner_writes: Mutex<OwnerWrites>,
    /// What was sent while the ledger could not be written.
    pub(super) unrecorded: Unrecorded,
    /// The key that members were last woken for.
    pub(super) known_key: std::sync::Mutex<Option<KeyPin>>,
    /// When members were last read of whom something is only watched.
    pub(super) watched_at: std::sync::Mutex<Option<Timestamp>>,
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
    /// Members whose removal as an owner may still land, and whom that read does not count among the owners.
    pub(super) not_owners: BTreeSet<UserId>,
    pub(super) sent: BTreeSet<(WriteKind, Assignment)>,
    pub(super) refused_alone: BTreeMap<Assignment, String>,
    pub(super) removed_one: bool,
    pub(super) must_read: bool,
    pub(super) stop: Option<String>,
    /// A place in the rate budget, taken before it is decided what to send.
    pub(super) turn: Option<Turn>,
    pub(super) report: Report,
    /// How far the claim reached before the member was loaded.
    pub(super) reading: Option<Reading>,
}

impl Progress {
    /// The clock may have been set back since a read: nobody can tell any more what that read came after.
    fn forget_the_future(&mut self, now: Timestamp) {
        self.snapshot.take_if(|snapshot| snapshot.started_at > now);
    }
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
            hold: None,
            standing: None,
            outage: None,
            takes_only: false,
            owner_writes: Mutex::default(),
            unrecorded: Unrecorded::default(),
            known_key: std::sync::Mutex::default(),
            watched_at: std::sync::Mutex::default(),
        }
    }

    /// The same, which adds nothing for grants: it removes, puts back neighbours, and looks.
    #[must_use]
    pub fn taking_only(mut self) -> Self {
        self.takes_only = true;
        self
    }

    /// The same, which works only while this claim stands.
    #[must_use]
    pub fn under(mut self, standing: Arc<Standing>) -> Self {
        self.standing = Some(standing);
        self
    }

    /// The same, which goes on with removals for a while when the ledger is away.
    #[must_use]
    pub fn with_outage(mut self, outage: Arc<Outage>) -> Self {
        self.outage = Some(outage);
        self
    }

    /// The claim under which this process works; always the same where there is only one.
    pub(super) fn epoch(&self) -> u64 {
        self.standing
            .as_ref()
            .map_or(0, |standing| standing.epoch())
    }

    /// Refuses to go on once another process may have taken over.
    pub(super) fn must_own(&self) -> Result<(), LedgerError> {
        match &self.standing {
            Some(standing) if !standing.covers(self.clock.since_boot(), Duration::ZERO) => {
                Err(LedgerError::Unavailable {
                    action: "going on with a pass",
                    source: Box::new(NotOwner {
                        integration: self.integration.to_string(),
                        epoch: standing.epoch(),
                    }),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this process may work on the organization now.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.must_own().is_ok()
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
        self.must_own()?;
        self.unrecorded.flush(&*self.ledger).await;
        let report = match &key.subject {
            Subject::Member(user) => self.member_pass(key, user).await,
            Subject::Invitee(email) => self.invitee_pass(key, email).await,
        };
        self.notice_key().await;
        report
    }

    async fn member_pass(&self, key: &MemberKey, user: &UserId) -> Result<Report, LedgerError> {
        let pin = self.provider.pin();
        let mut progress = Progress::default();
        for _ in 0..MAX_STEPS {
            self.must_own()?;
            let record = match self.load_knowing(key, &mut progress).await {
                Ok(record) => record,
                Err(error) => {
                    return Err(self
                        .remove_remembered(key, user, pin, &mut progress, error)
                        .await);
                }
            };
            if record.version == 0 {
                return Ok(progress.report);
            }
            let now = self.clock.now();
            let mut draft = Draft::new(record);
            draft.rewind(now, &self.settings);
            self.doubt_unrecorded(&mut draft, now);
            self.doubt_earlier_owner(&mut draft, now);
            progress.forget_the_future(now);
            draft.advance(now, &self.settings);
            if self.is_own_identity(user) {
                let wanted: Vec<Assignment> =
                    Expected::of(&draft.record, now).0.into_keys().collect();
                draft.fail_activation(&wanted, &explain_own_identity(now), now);
            }
            let (plan, _) = self.plan(&draft.record, &progress, now);
            draft.verdict = self.judge_missing(&mut draft, &plan, progress.snapshot.as_ref(), now);
            self.learn_of_neighbours(&draft.record, &plan, progress.snapshot.as_ref());
            draft.settle(&plan, progress.snapshot.as_ref(), now, &self.settings);
            if self.is_own_identity(user) {
                for assignment in &plan.remove {
                    draft.block(assignment, "own_identity", now, &self.settings);
                }
            }
            if draft.changed {
                if let Some(due) = self.due_at_once(&draft.record, &mut progress, now) {
                    // The intent is of the same transaction as what makes it due.
                    self.send(draft, WriteKind::Remove, &due, user, pin, &mut progress)
                        .await?;
                    continue;
                }
                // Facts first; the next round decides on them.
                draft.record.due = Some(self.due_now(&draft.record, now));
                let unrecorded = draft.record.clone();
                match self.commit(draft).await {
                    Ok(_) | Err(LedgerError::Conflict { .. }) => continue,
                    Err(error) => {
                        return Err(self
                            .remove_unrecorded(&unrecorded, user, pin, &mut progress, error)
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
                .observe(&record, &plan, user, &mut progress, now)
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
    pub(super) fn plan(
        &self,
        record: &MemberRecord,
        progress: &Progress,
        now: Timestamp,
    ) -> (Plan, Later) {
        let expected = Expected::of(record, now);
        let view = View {
            expected: &expected,
            owned: &record.owned,
            snapshot: progress.snapshot.as_ref(),
            last_seen: record.last_seen.as_ref(),
            reads_fail: record
                .backoff
                .as_ref()
                .is_some_and(|backoff| backoff.code.starts_with(READ_FAILURE)),
        };
        let mut plan = plan(&view, now, &self.settings.bounds);
        self.restrain(&mut plan, record);
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
        if self.takes_only {
            later.add = !plan.add.is_empty();
            plan.add.clear();
        }
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
        if self.settings.one_pair_per_call {
            later.add |= plan.add.len() > 1;
            later.remove |= plan.remove.len() > 1;
            plan.add.truncate(1);
            plan.remove.truncate(1);
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
            if let Some(again) = self.take_turn(Claim::of(Priority::Grant), progress).await {
                return Ok(again);
            }
            let draft = Draft::new(record);
            self.send(draft, WriteKind::Add, &plan.add, user, pin, progress)
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
            // It repairs what a removal of ours took along, so it goes with removals, after all that leave anything
            // open; and a try that finds no room is not one of the few that are made.
            if let Some(again) = self.take_turn(Claim::removal(0, None), progress).await {
                return Ok(again);
            }
            self.restore(record, &[next], user, pin, progress).await?;
            return Ok(true);
        }
        if !plan.remove.is_empty() {
            let claim = claim_of_removal(&record, &plan.remove);
            if let Some(again) = self.take_turn(claim, progress).await {
                return Ok(again);
            }
            let draft = Draft::new(record);
            self.send(draft, WriteKind::Remove, &plan.remove, user, pin, progress)
                .await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits for a turn. `None` means go on; otherwise whether the pass is to be decided anew, with what became due
    /// during the wait, or to end because the turn did not come.
    async fn take_turn(&self, claim: Claim, progress: &mut Progress) -> Option<bool> {
        if progress.turn.is_some() {
            return None;
        }
        match self.provider.turn(claim).await {
            Some(turn) => {
                let waited = !turn.is_free();
                progress.turn = Some(turn);
                waited.then_some(true)
            }
            None => {
                progress.stop = Some(NO_TURN.to_owned());
                Some(false)
            }
        }
    }

    /// Sends one mutation, with what the draft holds already in the transaction of its intent.
    async fn send(
        &self,
        mut draft: Draft,
        kind: WriteKind,
        assignments: &[Assignment],
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        let before = draft.record.clone();
        let mut owners = self.lock_owners(assignments).await;
        if kind == WriteKind::Remove
            && let Some(owners) = owners.as_deref_mut()
        {
            match self
                .quorum(owners, user, progress, self.clock.now())
                .await?
            {
                Quorum::Kept => {}
                Quorum::Recount(from) => {
                    return self.recount_owners(&before.key, from, progress).await;
                }
                Quorum::Last => {
                    return self
                        .update(&before.key, |draft, now| {
                            for owner in assignments.iter().filter(|one| one.role == OWNER_ROLE) {
                                draft.block(owner, "last_owner", now, &self.settings);
                            }
                        })
                        .await;
                }
            }
        }
        let now = self.clock.now();
        draft.intend(kind, assignments, now, &self.settings);
        draft.record.due = Some(self.due_now(&draft.record, now));
        let key = before.key.clone();
        let intents = super::hold::intents(kind, &draft.record, assignments);
        match self.commit(draft).await {
            Ok(version) => {
                if !self
                    .witness(intents, &before, assignments, progress)
                    .await?
                {
                    return Ok(());
                }
                // A grant or extension that was accepted since then is decided on before anything is sent.
                match self.answered(&key, self.ledger.version(&key)).await {
                    Ok(found) if found == version => {}
                    Ok(_) => return self.take_back(kind, &before, assignments).await,
                    Err(error) if kind == WriteKind::Remove => {
                        drop(owners);
                        return Err(self
                            .remove_journaled(&before, user, pin, progress, error)
                            .await);
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(LedgerError::Conflict { .. }) => return Ok(()),
            Err(error) if kind == WriteKind::Remove => {
                drop(owners);
                return Err(self
                    .remove_unrecorded(&before, user, pin, progress, error)
                    .await);
            }
            Err(error) => return Err(error),
        }
        let turn = progress.turn.take();
        let outcome = self.call(kind, pin, user, assignments, turn, &before).await;
        if kind == WriteKind::Remove
            && let Some(owners) = owners.as_deref_mut()
        {
            let now = self.clock.now();
            owners.sent(
                user,
                &outcome,
                now + self.settings.bounds.read_staleness,
                now + self.settings.unknown_look_after,
            );
        }
        if matches!(outcome, Outcome::Done(..)) {
            self.observer.board().note_done();
        }
        let _ending =
            matches!(outcome, Outcome::Refused(..)).then(|| self.unwitness(&before, assignments));
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

    pub(super) async fn call(
        &self,
        kind: WriteKind,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
        turn: Option<Turn>,
        before: &MemberRecord,
    ) -> Outcome<()> {
        let turn = turn.filter(|turn| !turn.is_free());
        match (kind, turn) {
            (WriteKind::Add, Some(turn)) => {
                self.provider
                    .add_in_turn(turn, pin, user, assignments)
                    .await
            }
            (WriteKind::Remove, Some(turn)) => {
                self.provider
                    .remove_in_turn(turn, pin, user, assignments)
                    .await
            }
            (WriteKind::Add, None) => self.provider.add(pin, user, assignments).await,
            (WriteKind::Remove, None) if refused_before(before, assignments) => {
                self.provider.remove_again(pin, user, assignments).await
            }
            (WriteKind::Remove, None) => self.provider.remove(pin, user, assignments).await,
        }
    }

    /// The intent was overtaken before a byte left: ownership goes back to what it was.
    pub(super) async fn take_back(
        &self,
        kind: WriteKind,
        before: &MemberRecord,
        assignments: &[Assignment],
    ) -> Result<(), LedgerError> {
        let _ending = self.unwitness(before, assignments);
        self.update(&before.key, |draft, now| {
            draft.take_back(kind, before, assignments, "overtaken", now)
        })
        .await
    }

    pub(super) fn is_own_identity(&self, user: &UserId) -> bool {
        let told = self.provider.key_status().own_user_id;
        self.observer.board().own_identity(told).as_ref() == Some(user)
    }
}

/// What decides when a removal gets its turn.
pub(super) fn claim_of_removal(record: &MemberRecord, assignments: &[Assignment]) -> Claim {
    Claim {
        priority: if refused_before(record, assignments) {
            Priority::Retry
        } else {
            Priority::Revoke
        },
        ..Claim::removal(total_weight(assignments), record.removal_since())
    }
}

/// What was refused before must not slow down what can be removed.
fn refused_before(record: &MemberRecord, assignments: &[Assignment]) -> bool {
    assignments.iter().all(|assignment| {
        record
            .owned(assignment)
            .is_some_and(|row| row.blocked.is_some())
    })
}

#[cfg(test)]
mod tests;
