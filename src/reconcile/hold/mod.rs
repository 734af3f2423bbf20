//! Hold: what happens while ledger and witness disagree, and telling the witness while they agree.
//!
//! Owns rule 10: every intent to add is witnessed before its first byte, a ledger that was restored or lost is
//! noticed at start, and until an operator has looked nothing is added and only what is proven is taken away. Never
//! removes anything itself: passes do, with what this leaves of their plan.

mod accord;
mod plan;
mod recover;
mod release;
mod shapes;
mod start;
mod story;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::TimeDelta;
use metrics::{describe_gauge, gauge};

use super::pass::{Progress, Reconciler};
use super::plan::{Expected, Plan};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, GrantState};
use crate::domain::ids::IntegrationName;
use crate::domain::member::{Due, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind};
use crate::ports::ledger::{Evidence, HoldRecord, LedgerError};
use crate::ports::witness::Intent;

use self::accord::Accord;
pub(super) use self::accord::Ending;
pub use plan::{HeldAction, HeldItem, HoldPlan};
pub use recover::{RECOVERED_CALLER, Rebuilt, RebuiltAssignment, rebuild};
pub use release::ReleaseError;
pub use start::{compare, settle_at_start};

/// How often a member is looked at whose work is withheld.
const PACE: TimeDelta = TimeDelta::seconds(10);

const HOLD: &str = "latchkey_hold";
const WITNESS: &str = "latchkey_witness_writable";

/// Registers help texts.
pub fn describe_metrics() {
    describe_gauge!(
        HOLD,
        "1 while the integration is in hold: nothing is granted, only what is proven is removed"
    );
    describe_gauge!(
        WITNESS,
        "1 when the witness can be written, 0 when nothing is granted because it cannot"
    );
}

/// What an integration in hold goes by.
#[derive(Debug)]
struct Held {
    record: HoldRecord,
    /// What the witness holds open; `None` where it cannot be asked, which proves nothing and contradicts nothing.
    open: Option<Open>,
    /// Whether the witness is there and could not be read, so that it is asked again.
    is_unread: bool,
}

/// Assignments that a witness holds open.
type Open = BTreeSet<(Subject, Assignment)>;

/// Why nothing is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The integration is in hold.
    Held(HoldRecord),
    /// The witness cannot be written.
    Unwitnessed,
}

/// One integration: whether it is in hold, and its side of the witness.
#[derive(Debug)]
pub struct Hold {
    integration: IntegrationName,
    accord: Arc<Accord>,
    held: RwLock<Option<Arc<Held>>>,
}

impl Hold {
    fn new(integration: IntegrationName, accord: Arc<Accord>, held: Option<Held>) -> Self {
        let hold = Self {
            integration,
            accord,
            held: RwLock::new(held.map(Arc::new)),
        };
        hold.show();
        hold
    }

    fn held(&self) -> Option<Arc<Held>> {
        // A panic elsewhere leaves a whole value behind.
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it is in hold, and why.
    #[must_use]
    pub fn record(&self) -> Option<HoldRecord> {
        self.held().map(|held| held.record.clone())
    }

    /// Why nothing may be granted or extended now; `None` when it may.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        if let Some(held) = self.held() {
            return Some(Closed::Held(held.record.clone()));
        }
        (!self.accord.writable.load(Ordering::SeqCst)).then_some(Closed::Unwitnessed)
    }

    /// Where the witness is; `None` when there is none.
    #[must_use]
    pub fn witness_place(&self) -> Option<String> {
        Some(self.accord.witness.as_ref()?.place())
    }

    /// Looks after the witness: tries again what failed, notes how far the ledger is, shows the metrics. Without one
    /// there may be other replicas, one of which was asked to release the hold.
    pub async fn tend(&self) {
        self.show();
        let Some(witness) = &self.accord.witness else {
            self.hear_of_release().await;
            return;
        };
        let works = self.accord.settle().await.is_ok()
            && (!self.accord.agreed.load(Ordering::SeqCst) || witness.check().await.is_ok());
        self.accord.writable.store(works, Ordering::SeqCst);
        gauge!(WITNESS).set(if works { 1.0 } else { 0.0 });
        let mark = self.accord.mark();
        if works && mark > self.accord.ticked.fetch_max(mark, Ordering::SeqCst) {
            witness.tick(mark);
        }
        if let Err(error) = self.learn().await {
            tracing::warn!(
                integration = %self.integration,
                error = error.code(),
                "What the witness knows was not taken over; it is tried again"
            );
        }
    }

    async fn hear_of_release(&self) {
        if self.held().is_none() {
            return;
        }
        match self.accord.ledger.holds().await {
            Ok(holds)
                if holds
                    .iter()
                    .any(|hold| hold.integration == self.integration) => {}
            Ok(_) => {
                tracing::warn!(integration = %self.integration, "Hold was released by another replica");
                self.keep(None);
            }
            Err(error) => tracing::warn!(
                integration = %self.integration,
                error = error.code(),
                "Whether the hold was released cannot be read; it is tried again"
            ),
        }
    }

    /// What the hold goes by from now on; `None` ends it.
    fn keep(&self, held: Option<Held>) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held.map(Arc::new);
        self.show();
    }

    fn show(&self) {
        let held = self.held().is_some();
        gauge!(HOLD, "integration" => self.integration.to_string()).set(if held {
            1.0
        } else {
            0.0
        });
    }

    /// Tells the witness of later ends. What it does not take is logged: it only makes a hold remove earlier.
    pub async fn note_extension(&self, record: &MemberRecord, assignments: &[Assignment]) {
        let intents = intents(WriteKind::Add, record, assignments);
        if let Err(error) = self.accord.intend(intents).await {
            tracing::error!(
                integration = %self.integration,
                error = error.chain(),
                "Extension was not witnessed"
            );
        }
    }

    /// Tells the witness that the ledger gave an assignment up which may still be there. After the commit: a crash in
    /// between leaves it open, and repeating the decision tells it once more.
    pub async fn note_given_up(&self, key: &MemberKey, assignment: &Assignment) {
        let accord = &self.accord;
        if accord.witness.is_none() {
            return;
        }
        accord.end(key, vec![assignment.clone()]);
        // A grant may have made it ours again before the witness was told.
        let told = match accord.ledger.member(key).await {
            Ok(record) => {
                let again = record.owned(assignment).map(|row| intent_of(key, row));
                let again = again.into_iter().collect();
                accord.intend(again).await.map_err(|error| error.chain())
            }
            Err(error) => Err(error.code().to_owned()),
        };
        if let Err(error) = told {
            tracing::error!(
                integration = %self.integration,
                error,
                "Witness may not know of access that was given again"
            );
        }
    }

    fn ends(&self, key: &MemberKey, assignments: Vec<Assignment>) -> Option<Ending> {
        self.accord.end_before_commit(key, assignments)
    }
}

impl Held {
    /// Whether taking this away is proven: it is ours beyond what the ledger alone says.
    fn permits(&self, record: &MemberRecord, row: &Owned) -> bool {
        match (self.record.evidence, &self.open) {
            (Evidence::Ledger, _) => true,
            (Evidence::Witness, Some(open)) => open.contains(&name_of(record, row)),
            // Somebody asked for this end since: that is no guess of an old ledger.
            (Evidence::Witness, None) | (Evidence::Nothing, _) => record.grants.iter().any(|grant| {
                matches!(&grant.state, GrantState::Revoking { since, cause: EndCause::Revoked { .. } }
                    if *since >= self.record.since)
                    && grant
                        .assignments
                        .iter()
                        .any(|held| held.assignment == row.assignment)
            }),
        }
    }

    /// Whether the witness knows that it is not ours any more. One that cannot be asked knows nothing.
    fn contradicts(&self, record: &MemberRecord, row: &Owned) -> bool {
        self.record.evidence == Evidence::Witness
            && self
                .open
                .as_ref()
                .is_some_and(|open| !open.contains(&name_of(record, row)))
    }

    fn permits_removal(&self, record: &MemberRecord, assignment: &Assignment) -> bool {
        record
            .owned(assignment)
            .is_some_and(|row| self.permits(record, row))
    }

    /// What is put back must have been taken along by a removal of this hold.
    fn permits_restore(&self, record: &MemberRecord, assignment: &Assignment) -> bool {
        record.owned.iter().any(|row| {
            row.last_write.kind == WriteKind::Remove
                && row.last_write.at >= self.record.since
                && row
                    .must_survive
                    .iter()
                    .any(|survivor| survivor.assignment == *assignment)
        })
    }

    /// Leaves of a plan what may be done in hold.
    fn restrain(&self, plan: &mut Plan, record: &MemberRecord) {
        plan.add.clear();
        plan.restore
            .retain(|assignment| self.permits_restore(record, assignment));
        for list in [&mut plan.remove, &mut plan.held_back] {
            list.retain(|assignment| self.permits_removal(record, assignment));
        }
    }

    /// Whether something that may be done is under way or waits for its turn.
    fn is_at_work(&self, plan: &Plan, record: &MemberRecord, now: Timestamp) -> bool {
        let expected = Expected::of(record, now);
        !plan.remove.is_empty()
            || record.owned.iter().any(|row| {
                row.phase == Phase::Live
                    && !expected.0.contains_key(&row.assignment)
                    && self.permits(record, row)
            })
    }
}

fn name_of(record: &MemberRecord, row: &Owned) -> (Subject, Assignment) {
    (record.key.subject.clone(), row.assignment.clone())
}

/// The intents of an addition as the witness keeps them, from the record that holds them.
pub(super) fn intents(
    kind: WriteKind,
    record: &MemberRecord,
    assignments: &[Assignment],
) -> Vec<Intent> {
    if kind == WriteKind::Remove {
        return Vec::new();
    }
    assignments
        .iter()
        .filter_map(|assignment| record.owned(assignment))
        .map(|row| intent_of(&record.key, row))
        .collect()
}

fn intent_of(key: &MemberKey, row: &Owned) -> Intent {
    Intent {
        integration: key.integration.clone(),
        subject: key.subject.clone(),
        assignment: row.assignment.clone(),
        must_end_by: row.must_end_by,
        at: row.since,
    }
}

/// Assignments that the events of a commit say are no longer ours.
fn closed_by(audit: &[AuditEvent]) -> Vec<Assignment> {
    audit
        .iter()
        .filter_map(|event| {
            if let EventKind::SecondLook { assignment } = &event.kind {
                Assignment::parse(assignment).ok()
            } else {
                None
            }
        })
        .collect()
}

impl Reconciler {
    /// The same with rule 10: intents are witnessed, and a hold is kept.
    #[must_use]
    pub fn with_hold(mut self, hold: Arc<Hold>) -> Self {
        self.hold = Some(hold);
        self
    }

    fn in_hold(&self) -> Option<Arc<Held>> {
        self.hold.as_ref()?.held()
    }

    /// Whether nothing may be added at present.
    pub(super) fn is_held(&self) -> bool {
        self.in_hold().is_some()
    }

    /// Leaves of a plan what may be done now.
    pub(super) fn restrain(&self, plan: &mut Plan, record: &MemberRecord) {
        if let Some(held) = self.in_hold() {
            held.restrain(plan, record);
        }
    }

    /// What is withheld is looked at again at an unhurried pace.
    pub(super) fn at_hold_pace(
        &self,
        due: Option<Due>,
        plan: &Plan,
        record: &MemberRecord,
        now: Timestamp,
    ) -> Option<Due> {
        let (Some(mut due), Some(held)) = (due, self.in_hold()) else {
            return due;
        };
        if !held.is_at_work(plan, record, now) {
            let deadline = record
                .grants
                .iter()
                .filter_map(crate::domain::grant::Grant::next_deadline)
                .filter(|at| *at > now)
                .fold(now + PACE, Timestamp::min);
            due.at = due.at.max(deadline);
        }
        Some(due)
    }

    /// Makes intents durable apart from the ledger. Answers whether the call may be sent; where it may not, ownership
    /// goes back to what it was.
    pub(super) async fn witness(
        &self,
        intents: Vec<Intent>,
        before: &MemberRecord,
        assignments: &[Assignment],
        progress: &mut Progress,
    ) -> Result<bool, LedgerError> {
        const CODE: &str = "witness_unavailable";
        let Some(hold) = &self.hold else {
            return Ok(true);
        };
        let Err(error) = hold.accord.intend(intents).await else {
            return Ok(true);
        };
        tracing::error!(
            integration = %self.integration,
            error = error.chain(),
            "Intent was not witnessed; nothing is added until it can be"
        );
        progress.stop = Some(CODE.to_owned());
        self.update(&before.key, |draft, now| {
            draft.take_back(WriteKind::Add, before, assignments, CODE, now);
            self.back_off(draft, CODE, now);
        })
        .await?;
        Ok(false)
    }

    /// Nothing was sent, or nothing came of it: what was not ours before is not ours now. The answer is kept until that
    /// is committed.
    pub(super) fn unwitness(
        &self,
        before: &MemberRecord,
        assignments: &[Assignment],
    ) -> Option<Ending> {
        let never = assignments
            .iter()
            .filter(|assignment| before.owned(assignment).is_none());
        let hold = self.hold.as_ref()?;
        hold.ends(&before.key, never.cloned().collect())
    }

    /// Tells the witness what a commit is about to give up. Before the commit: a crash in between leaves the ledger to
    /// look once more, and nothing open that is not ours. The answer is kept until the commit is done.
    pub(super) fn witness_ends(&self, key: &MemberKey, audit: &[AuditEvent]) -> Option<Ending> {
        self.hold.as_ref()?.ends(key, closed_by(audit))
    }
}

#[cfg(test)]
mod tests;
