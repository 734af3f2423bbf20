//! Removing due access while the ledger cannot be written, and telling the audit afterwards.
//!
//! Owns what was sent without a record: events are kept in memory and written as soon as the ledger takes them.
//! Never adds anything, and never removes where a neighbour could be lost that nothing durable would put back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;

use super::look::snapshot_of;
use super::owners::{Quorum, concerns_owners};
use super::pass::{Progress, Reconciler};
use super::plan::{Expected, OWNER_ROLE, must_survive};
use super::settle::{Draft, pause};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::UserId;
use crate::domain::member::{MemberKey, MemberRecord, Phase, Subject, WriteKind};
use crate::domain::observation::Interest;
use crate::ports::Ledger;
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{KeyPin, Outcome, Priority};

/// Events kept for the audit. A storm on a full disk may send more; the log has them all.
const KEPT: usize = 20_000;

/// A removal that was answered "done" is sent again only after this, since nothing was read that disagrees.
const REPEAT_DONE: TimeDelta = TimeDelta::minutes(10);

/// What was sent without a record.
#[derive(Debug, Default)]
pub(super) struct Unrecorded(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    events: VecDeque<AuditEvent>,
    dropped: u64,
    sent: BTreeMap<(MemberKey, Assignment), Sent>,
    /// Until when those of unknown outcome may still land.
    may_land: BTreeMap<MemberKey, BTreeMap<Assignment, Timestamp>>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Timestamp,
    tries: u32,
    done: bool,
}

impl Unrecorded {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Changed in single steps, so a panic elsewhere cannot leave it half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, events: impl IntoIterator<Item = AuditEvent>) {
        let mut state = self.lock();
        for event in events {
            if state.events.len() < KEPT {
                state.events.push_back(event);
            } else {
                state.dropped += 1;
            }
        }
    }

    fn waits(&self, key: &MemberKey, assignment: &Assignment, now: Timestamp) -> bool {
        let state = self.lock();
        let sent = state.sent.get(&(key.clone(), assignment.clone()));
        sent.is_some_and(|sent| {
            let wait = if sent.done {
                REPEAT_DONE
            } else {
                pause(sent.tries, TimeDelta::seconds(1), TimeDelta::minutes(1), 0)
            };
            sent.at + wait > now
        })
    }

    fn sent(&self, key: &MemberKey, assignments: &[Assignment], done: bool, now: Timestamp) {
        let mut state = self.lock();
        for assignment in assignments {
            let entry = state
                .sent
                .entry((key.clone(), assignment.clone()))
                .or_insert(Sent {
                    at: now,
                    tries: 0,
                    done,
                });
            *entry = Sent {
                at: now,
                tries: entry.tries + 1,
                done,
            };
        }
    }

    pub(super) fn doubt(&self, key: &MemberKey, assignments: &[Assignment], until: Timestamp) {
        let mut state = self.lock();
        let known = state.may_land.entry(key.clone()).or_default();
        known.extend(assignments.iter().map(|one| (one.clone(), until)));
    }

    /// Removals of a member that were sent without a record and without an answer, and until when each may still land:
    /// no later than `bound`, whatever became of the clock since.
    fn may_land(
        &self,
        key: &MemberKey,
        now: Timestamp,
        bound: Timestamp,
    ) -> BTreeMap<Assignment, Timestamp> {
        let mut state = self.lock();
        let Some(known) = state.may_land.get_mut(key) else {
            return BTreeMap::new();
        };
        for until in known.values_mut() {
            *until = bound.min(*until);
        }
        known.retain(|_, until| *until > now);
        let left = known.clone();
        if left.is_empty() {
            state.may_land.remove(key);
        }
        left
    }

    /// Organization owners among them.
    pub(super) fn owners_that_may_land(
        &self,
        now: Timestamp,
        bound: Timestamp,
    ) -> BTreeMap<UserId, Timestamp> {
        let state = self.lock();
        let owners = state.may_land.iter().filter_map(|(key, known)| {
            let Subject::Member(user) = &key.subject else {
                return None;
            };
            let until = known
                .iter()
                .filter(|(assignment, _)| assignment.role == OWNER_ROLE)
                .map(|(_, until)| bound.min(*until))
                .max()
                .filter(|until| *until > now)?;
            Some((user.clone(), until))
        });
        owners.collect()
    }

    /// Writes what was kept, if the ledger takes it. What may have been written is written again: the audit rather
    /// tells something twice than not at all.
    pub(super) async fn flush(&self, ledger: &dyn Ledger) {
        let events: Vec<AuditEvent> = {
            let mut state = self.lock();
            state.events.drain(..).collect()
        };
        if events.is_empty() {
            return;
        }
        if let Err(error) = ledger.append(events.clone()).await {
            tracing::debug!(code = error.code(), "Kept events still wait for the ledger");
            let mut state = self.lock();
            for event in events.into_iter().rev() {
                state.events.push_front(event);
            }
            return;
        }
        let mut state = self.lock();
        state.sent.clear();
        let dropped = std::mem::take(&mut state.dropped);
        tracing::warn!(
            events = events.len(),
            dropped,
            "Ledger can be written again; removals sent meanwhile are in the audit"
        );
    }
}

impl Reconciler {
    /// The ledger cannot be written, and access is due to go: taking away what is ours needs no further proof. The
    /// record is written by a later pass, once the ledger can be written again. Answers the error, to be passed on.
    pub(super) async fn remove_unrecorded(
        &self,
        record: &MemberRecord,
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
        error: LedgerError,
    ) -> LedgerError {
        if self.outage.is_some() {
            return self
                .remove_journaled(record, user, pin, progress, error)
                .await;
        }
        // Whoever owns the organization now removes it, and with a record.
        let is_ours = !error.is_not_owner() && self.is_owner();
        if !matches!(error, LedgerError::Unavailable { .. })
            || !is_ours
            || self.is_own_identity(user)
        {
            return error;
        }
        let (mut plan, _) = self.plan(record, progress, self.clock.now());
        // The read that a removal waits for needs no ledger.
        if plan.remove.is_empty() && plan.observe_at.is_some() && progress.snapshot.is_none() {
            let interest = Interest::user(user.clone());
            if let Ok(read) = self.observer.observe(interest, Priority::Revoke).await {
                // Reading took a while: where the ledger can be written again, the next pass removes with a record.
                if self.ledger.check().await.is_ok() {
                    return error;
                }
                progress.snapshot = Some(snapshot_of(user, &read));
                progress.not_owners.clear();
                plan = self.plan(record, progress, self.clock.now()).0;
            }
        }
        let now = self.clock.now();
        plan.remove
            .retain(|assignment| !self.unrecorded.waits(&record.key, assignment, now));
        if plan.remove.is_empty() || !self.spares_neighbours(record, &plan.remove, progress, now) {
            return error;
        }
        let mut owners = self.lock_owners(&plan.remove).await;
        if let Some(owners) = owners.as_deref_mut() {
            match self.quorum(owners, user, progress, now).await {
                Ok(Quorum::Kept) => {}
                Ok(Quorum::Recount(_) | Quorum::Last) | Err(_) => return error,
            }
        }
        let assignments: Vec<String> = plan.remove.iter().map(ToString::to_string).collect();
        let sent_at = self.clock.now();
        let turn = progress.turn.take();
        let outcome = self
            .call(WriteKind::Remove, pin, user, &plan.remove, turn, record)
            .await;
        let now = self.clock.now();
        if let Some(owners) = owners.as_deref_mut()
            && concerns_owners(&plan.remove)
        {
            owners.sent(
                user,
                &outcome,
                now + self.settings.bounds.read_staleness,
                now + self.settings.unknown_look_after,
            );
        }
        let done = matches!(outcome, Outcome::Done(..));
        self.unrecorded.sent(&record.key, &plan.remove, done, now);
        if matches!(outcome, Outcome::Unknown(_)) {
            let until = now + self.settings.unknown_look_after;
            self.unrecorded.doubt(&record.key, &plan.remove, until);
        }
        let intent = EventKind::CallIntended {
            write: WriteKind::Remove,
            assignments: assignments.clone(),
            must_survive: Vec::new(),
            put_back: false,
        };
        let ended = EventKind::CallEnded {
            write: WriteKind::Remove,
            assignments: assignments.clone(),
            outcome: outcome.name().to_owned(),
            evidence: outcome.evidence().clone(),
        };
        self.unrecorded.keep([
            AuditEvent::member(sent_at, &record.key, intent),
            AuditEvent::member(now, &record.key, ended),
        ]);
        tracing::error!(
            member = %record.key,
            error = error.code(),
            outcome = outcome.name(),
            removed = assignments.join(", "),
            "Ledger cannot be written; removed due access without a record"
        );
        error
    }

    /// Writes into a record what was sent for it without one and may still land: what is given again meanwhile, and the
    /// counting of owners, must know.
    pub(super) fn doubt_unrecorded(&self, draft: &mut Draft, now: Timestamp) {
        let bound = now + self.settings.unknown_look_after;
        for (assignment, until) in self.unrecorded.may_land(&draft.record.key, now, bound) {
            if let Some(row) = draft.record.owned_mut(&assignment)
                && row.removal_echo_until.is_none_or(|known| known < until)
            {
                row.removal_echo_until = Some(until);
                row.echo_until = row.echo_until.max(Some(until));
                // Seen gone or not: it is looked at once more after that.
                if let Phase::Closing { look_at, .. } = &mut row.phase {
                    *look_at = until.max(*look_at);
                }
                draft.changed = true;
            }
        }
    }

    /// Whether nothing that has to survive can be lost: there is no neighbour, or removals are known to leave such
    /// neighbours alone.
    pub(super) fn spares_neighbours(
        &self,
        record: &MemberRecord,
        removing: &[Assignment],
        progress: &Progress,
        now: Timestamp,
    ) -> bool {
        let shown = progress.snapshot.as_ref().filter(|snapshot| snapshot.shown);
        let mut held = shown
            .map(|snapshot| snapshot.assignments.clone())
            .unwrap_or_default();
        if shown.is_none_or(|snapshot| !snapshot.complete)
            && let Some(seen) = &record.last_seen
        {
            held.extend(seen.assignments.iter().cloned());
        }
        let expected = Expected::of(record, now);
        let survivors = must_survive(removing, &held, &record.owned, &expected);
        removing.iter().all(|removed| {
            survivors
                .iter()
                .filter(|survivor| survivor.is_neighbour_of(removed))
                .all(|survivor| {
                    self.observer
                        .board()
                        .is_removal_exact(removed.target == survivor.target)
                })
        })
    }
}

#[cfg(test)]
mod tests;
