//! What is known of members whose access is about to end, for when the ledger cannot be asked any more.
//!
//! Owns for how long a record that was read may be acted on: no longer than the claim that stood when it was read, and
//! only for ends that nobody but the owner can have moved since ([ADR 23](../../docs/adr/0023-removals-without-the-ledger.md)).
//! Never sends anything, and never takes what the journal says for what is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics;
use super::plan::OWNER_ROLE;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::grant::GrantState;
use crate::domain::member::{MemberKey, MemberRecord, Owned, Phase};
use crate::domain::overdue::{GRACE, removal_due_at};
use crate::ports::journal::{Answer, Ending, Entry, Removal, Result};
use crate::ports::ledger::LedgerError;
use crate::ports::ownership::{Reach, Standing};
use crate::ports::{Journal, Ledger};

/// Most members that are known ahead. More than can be sent to Elastic Cloud in the life of a claim.
const KNOWN: usize = 256;

/// Wall clocks of replicas differ by less than this.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::seconds(5);

/// How often one assignment is tried without the ledger.
const TRIES: usize = 3;

/// Writes that are remembered before old ones are forgotten.
const WRITES: usize = 4_096;

/// No read of the ledger takes longer.
const LONGEST_READ: Duration = Duration::from_secs(60);

/// How far the claim reached before something was read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// How far.
    pub reach: Reach,
    /// Writes of this process that began before.
    turn: u64,
    /// The latest instant at which what is read may be acted on.
    latest: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    /// Under which claim all of this was learnt.
    epoch: u64,
    turn: u64,
    known: BTreeMap<MemberKey, (MemberRecord, Reading)>,
    /// The last write of this process for a member: its turn, and when since boot.
    written: BTreeMap<MemberKey, (u64, Duration)>,
    /// The same of those that callers asked for.
    decided: BTreeMap<MemberKey, (u64, Duration)>,
    /// Writes without an answer yet, by their number; where nobody knows what became of one, since when.
    under_way: BTreeMap<MemberKey, BTreeMap<u64, Option<Duration>>>,
}

impl State {
    fn is_untouched(
        &self,
        by: &BTreeMap<MemberKey, (u64, Duration)>,
        key: &MemberKey,
        reading: &Reading,
    ) -> bool {
        let newer = |(turn, _): &(u64, Duration)| *turn > reading.turn;
        !by.get(key).is_some_and(newer) && !self.under_way.contains_key(key)
    }

    /// The member changes: what was read of it before, or is being read, is not acted on.
    fn touch(&mut self, key: &MemberKey, is_decision: bool, since_boot: Duration) {
        if self.written.len() > WRITES {
            // Whatever was being read then has been read.
            for writes in [&mut self.written, &mut self.decided] {
                writes.retain(|_, (_, at)| *at + LONGEST_READ > since_boot);
            }
        }
        self.turn += 1;
        self.known.remove(key);
        self.written.insert(key.clone(), (self.turn, since_boot));
        if is_decision {
            self.decided.insert(key.clone(), (self.turn, since_boot));
        }
    }

    /// Forgets what was in doubt so long ago that it has happened or never will; whatever was read meanwhile may be from
    /// before it.
    fn settle_doubts(&mut self, since_boot: Duration) {
        let is_over = |since: &Option<Duration>| {
            since.is_some_and(|since| since + LONGEST_READ <= since_boot)
        };
        let over: Vec<MemberKey> = self
            .under_way
            .iter()
            .filter(|(_, writes)| writes.values().any(is_over))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.touch(&key, true, since_boot);
            if let Some(writes) = self.under_way.get_mut(&key) {
                writes.retain(|_, since| !is_over(since));
                if writes.is_empty() {
                    self.under_way.remove(&key);
                }
            }
        }
    }
}

/// Members of one organization that may be acted on without the ledger, and the journal of what was sent then.
pub struct Outage {
    journal: Arc<dyn Journal>,
    /// The ledger as anybody writes it: what was sent is told also once somebody else owns the organization.
    pub(super) ledger: Arc<dyn Ledger>,
    standing: Arc<Standing>,
    /// How long a read of the ledger is waited for where something is to be removed; `None` for ever.
    pub(super) patience: Option<Duration>,
    state: Mutex<State>,
    /// The last intent of an earlier process: what it left without an ending will not get one any more.
    earlier: u64,
    /// One at a time tells the ledger.
    pub(super) telling: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outage")
            .field("journal", &self.journal)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Outage {
    /// Nothing known yet. `ledger` is not bound to a claim.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        ledger: Arc<dyn Ledger>,
        standing: Arc<Standing>,
        patience: Option<Duration>,
    ) -> Self {
        let left = journal.waiting();
        let earlier = left.iter().map(|entry| entry.number).max().unwrap_or(0);
        Self {
            journal,
            ledger,
            standing,
            patience,
            earlier,
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Changed in single steps, so a panic elsewhere cannot leave it half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the ledger is read; `None` without a claim.
    #[must_use]
    pub fn begin_read(&self, now: Timestamp, since_boot: Duration) -> Option<Reading> {
        let reach = self.standing.reach()?;
        let mut state = self.lock();
        if state.epoch < reach.epoch {
            // Not what is under way: a write that was begun under an earlier claim may be committed under this one.
            state.known.clear();
            state.epoch = reach.epoch;
        }
        state.settle_doubts(since_boot);
        let left = reach.until.saturating_sub(since_boot);
        Some(Reading {
            reach,
            turn: state.turn,
            latest: now + chrono::TimeDelta::from_std(left).unwrap_or_default(),
        })
    }

    /// Takes note of a record that was read, unless this process has begun to change it since.
    pub fn learn(&self, reading: &Reading, record: &MemberRecord) {
        let mut state = self.lock();
        let key = &record.key;
        let older = |(_, known): &(MemberRecord, Reading)| known.turn > reading.turn;
        if state.epoch != reading.reach.epoch
            || !state.is_untouched(&state.written, key, reading)
            || state.known.get(key).is_some_and(older)
        {
            return;
        }
        let matters = record
            .owned
            .iter()
            .any(|row| removal_due_at(record, row).is_some_and(|at| at <= reading.reach.deadline));
        if !matters {
            state.known.remove(key);
        } else if state.known.len() < KNOWN || state.known.contains_key(key) {
            state.known.insert(key.clone(), (record.clone(), *reading));
        }
    }

    /// Forgets those that may not be acted on any longer.
    pub(super) fn prune(&self, since_boot: Duration) {
        let mut state = self.lock();
        state
            .known
            .retain(|_, (_, reading)| since_boot < reading.reach.until);
    }

    /// The member as last read, while that may be acted on.
    pub(super) fn remember(
        &self,
        key: &MemberKey,
        since_boot: Duration,
    ) -> Option<(MemberRecord, Reading)> {
        let state = self.lock();
        let (record, reading) = state.known.get(key)?;
        let stands = self.standing.epoch() == reading.reach.epoch
            && since_boot < reading.reach.until
            && state.is_untouched(&state.written, key, reading);
        stands.then(|| (record.clone(), *reading))
    }

    /// Before a caller's decision about a member is written: what was read before is not acted on any more.
    pub fn deciding(&self, key: &MemberKey, since_boot: Duration) -> Writing<'_> {
        self.writing(key, true, since_boot)
    }

    /// Before a pass writes what it found: it knows what it wrote, and nobody else acts on what was read before.
    pub(super) fn committing(&self, key: &MemberKey, since_boot: Duration) -> Writing<'_> {
        self.writing(key, false, since_boot)
    }

    fn writing(&self, key: &MemberKey, is_decision: bool, since_boot: Duration) -> Writing<'_> {
        let mut state = self.lock();
        state.touch(key, is_decision, since_boot);
        let number = state.turn;
        let writes = state.under_way.entry(key.clone()).or_default();
        writes.insert(number, None);
        drop(state);
        Writing {
            outage: self,
            key: key.clone(),
            number,
            is_decision,
            since_boot,
            in_doubt: false,
        }
    }

    /// Makes the intent durable. Answers its number, which [`Self::ended`] takes.
    pub(super) async fn intend(&self, removal: Removal) -> Result<u64> {
        let number = self.journal.intend(removal).await?;
        self.count();
        Ok(number)
    }

    /// Whether nobody here has decided anything about the member since, right before something is sent.
    pub(super) fn is_undecided(&self, key: &MemberKey, reading: &Reading) -> bool {
        let state = self.lock();
        state.is_untouched(&state.decided, key, reading)
    }

    pub(super) async fn ended(&self, number: u64, ending: Ending) -> Result<()> {
        self.journal.ended(number, ending).await
    }

    /// What is to be told: of one member or of all, without what is under way.
    pub(super) fn to_tell(&self, only: Option<&MemberKey>) -> Vec<Entry> {
        let mut waiting = self.journal.waiting();
        waiting.retain(|entry| {
            let is_over = entry.ending.is_some() || entry.number <= self.earlier;
            is_over && only.is_none_or(|key| entry.removal.key == *key)
        });
        waiting
    }

    pub(super) async fn told(&self, number: u64) -> Result<()> {
        let forgotten = self.journal.told(number).await;
        self.count();
        forgotten
    }

    /// Whether an assignment was removed without the ledger, or is being removed, and the ledger does not know yet.
    #[must_use]
    pub fn is_removing(&self, key: &MemberKey, assignment: &Assignment) -> bool {
        self.journal.waiting().iter().any(|entry| {
            entry.removal.key == *key && entry.removal.assignments.contains(assignment)
        })
    }

    /// Whether it is to be sent once more: not after "done", not beside itself, not without end.
    pub(super) fn may_send(&self, key: &MemberKey, assignment: &Assignment) -> bool {
        let waiting = self.journal.waiting();
        let of_it = waiting.iter().filter(|entry| {
            entry.removal.key == *key && entry.removal.assignments.contains(assignment)
        });
        let mut tries = 0;
        for entry in of_it {
            tries += 1;
            let settled = entry
                .ending
                .as_ref()
                .is_none_or(|ending| ending.answer == Answer::Done);
            if settled || tries >= TRIES {
                return false;
            }
        }
        true
    }

    /// Shows how much the ledger does not know yet.
    pub fn count(&self) {
        metrics::journal_waiting(self.journal.waiting().len());
    }
}

/// Whether an assignment may be removed on the strength of a record that was read: ours, due, and nobody else can have
/// moved its end, given it up or taken it over since.
pub(super) fn may_go(
    record: &MemberRecord,
    assignment: &Assignment,
    reading: &Reading,
    now: Timestamp,
) -> bool {
    let Some(row) = record.owned(assignment) else {
        return false;
    };
    // An owner goes only where a read counts the others; what was refused waits for whoever can write that down.
    if row.phase != Phase::Live || row.blocked.is_some() || assignment.role == OWNER_ROLE {
        return false;
    }
    let Some(at) = is_ending(record, row)
        .then(|| removal_due_at(record, row))
        .flatten()
    else {
        return false;
    };
    // What is overdue may be given up by an operator at any replica.
    at <= now && at <= reading.reach.deadline && at + GRACE > reading.latest + SKEW
}

/// Whether a grant is on its way out because of which it goes.
fn is_ending(record: &MemberRecord, row: &Owned) -> bool {
    record.grants.iter().any(|grant| {
        matches!(grant.state, GrantState::Revoking { .. })
            && grant
                .assignments
                .iter()
                .any(|held| held.assignment == row.assignment)
    })
}

/// A change of a member by this process. Dropped while nobody knows whether it happened, the member is not acted on
/// without the ledger until it has happened or never will.
#[derive(Debug)]
pub struct Writing<'a> {
    outage: &'a Outage,
    key: MemberKey,
    number: u64,
    is_decision: bool,
    /// When it began.
    since_boot: Duration,
    in_doubt: bool,
}

impl Writing<'_> {
    /// It is sent to the ledger now.
    pub fn begins(&mut self) {
        self.in_doubt = true;
    }

    /// The ledger said what became of it.
    pub fn ends<T>(&mut self, answer: &std::result::Result<T, LedgerError>) {
        self.in_doubt = matches!(answer, Err(LedgerError::CommitUnknown { .. }));
    }

    /// Whether an assignment was or is being removed without the ledger.
    #[must_use]
    pub fn is_removing(&self, assignment: &Assignment) -> bool {
        self.outage.is_removing(&self.key, assignment)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.outage.lock();
        // A read that began during the write may show what was before it.
        state.touch(&self.key, self.is_decision, self.since_boot);
        let Some(writes) = state.under_way.get_mut(&self.key) else {
            return;
        };
        if self.in_doubt {
            writes.insert(self.number, Some(self.since_boot));
            return;
        }
        writes.remove(&self.number);
        if writes.is_empty() {
            state.under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
