//! Writing our own calls into a member record: what is about to be sent, what came of it, who is to be told. Pure.
//!
//! Owns that an intent is pessimistic until the answer is in. Never clears ownership but for a definite refusal.

use std::collections::BTreeSet;

use super::Settings;
use super::plan::{Expected, must_survive};
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{CallEvidence, EventKind, NOT_SENT};
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, Holding, LastError};
use crate::domain::member::{
    LastWrite, MemberRecord, Owned, Phase, Survivor, WriteKind, WriteOutcome,
};

impl Draft {
    /// Writes the intent of a mutation: ownership, pessimistic echo, and an end before the beginning.
    pub fn intend(
        &mut self,
        kind: WriteKind,
        assignments: &[Assignment],
        now: Timestamp,
        settings: &Settings,
    ) {
        let expected = Expected::of(&self.record, now);
        let mut held = self
            .record
            .last_seen
            .as_ref()
            .map(|seen| seen.assignments.clone())
            .unwrap_or_default();
        // What an earlier removal still has to put back may be missing from the last read.
        let owed = self.record.owned.iter().flat_map(|row| &row.must_survive);
        held.extend(owed.map(|survivor| survivor.assignment.clone()));
        let survivors = match kind {
            WriteKind::Remove => must_survive(assignments, &held, &self.record.owned, &expected),
            WriteKind::Add => BTreeSet::new(),
        };
        if kind == WriteKind::Add {
            self.each_grant(now, |grant| {
                let wants = grant.expects_access(now)
                    && grant
                        .assignments
                        .iter()
                        .any(|held| assignments.contains(&held.assignment));
                if wants {
                    grant.bound_before_send(now);
                    for pair in &mut grant.assignments {
                        if assignments.contains(&pair.assignment) {
                            pair.holding = Holding::Owned;
                        }
                    }
                }
                wants
            });
        }
        // For each on its own: what comes along in the same call may be wanted for longer.
        let ends: Vec<Option<Timestamp>> = assignments
            .iter()
            .map(|assignment| {
                let wants = |grant: &&Grant| {
                    grant
                        .assignments
                        .iter()
                        .any(|held| held.assignment == *assignment)
                };
                let grants = self.record.grants.iter().filter(wants);
                grants.filter_map(Grant::ends_at).max()
            })
            .collect();
        let last_write = LastWrite {
            kind,
            at: now,
            outcome: WriteOutcome::InFlight,
        };
        let echo_until = Some(now + settings.unknown_look_after);
        for (assignment, ends_at) in assignments.iter().zip(ends) {
            let mut must_survive: Vec<Survivor> = survivors
                .iter()
                .map(|survivor| Survivor {
                    assignment: survivor.clone(),
                    restored_at: None,
                    restores: 0,
                })
                .collect();
            match self.record.owned_mut(assignment) {
                Some(row) => {
                    row.last_write = last_write;
                    row.echo_until = echo_until;
                    match kind {
                        WriteKind::Add => {
                            row.phase = Phase::Live;
                            row.seen = false;
                            row.must_end_by = row.must_end_by.max(ends_at);
                            row.blocked = None;
                        }
                        WriteKind::Remove => {
                            row.removal_echo_until = echo_until;
                            // What an earlier removal still owes stays owed.
                            must_survive.retain(|new| {
                                let known = |old: &Survivor| old.assignment == new.assignment;
                                !row.must_survive.iter().any(known)
                            });
                            row.must_survive.append(&mut must_survive);
                        }
                    }
                }
                None => self.record.owned.push(Owned {
                    assignment: assignment.clone(),
                    phase: Phase::Live,
                    since: now,
                    must_end_by: ends_at,
                    last_write,
                    seen: false,
                    echo_until,
                    removal_echo_until: None,
                    must_survive,
                    blocked: None,
                    isolate: false,
                    attempts: 0,
                }),
            }
        }
        if kind == WriteKind::Remove {
            // This removal may take neighbours along as well: what earlier ones cost does not count against them.
            for survivor in self
                .record
                .owned
                .iter_mut()
                .flat_map(|row| &mut row.must_survive)
            {
                if assignments
                    .iter()
                    .any(|removed| survivor.assignment.is_neighbour_of(removed))
                {
                    survivor.restores = 0;
                }
            }
            self.each_grant(now, |grant| {
                let first = matches!(grant.state, GrantState::Revoking { .. })
                    && grant.removal_sent_at.is_none()
                    && grant
                        .assignments
                        .iter()
                        .any(|held| assignments.contains(&held.assignment));
                if first {
                    grant.removal_sent_at = Some(now);
                }
                first
            });
        }
        let must_survive = survivors.iter().map(ToString::to_string).collect();
        let assignments = assignments.iter().map(ToString::to_string).collect();
        self.note(
            now,
            EventKind::CallIntended {
                write: kind,
                assignments,
                must_survive,
                put_back: false,
            },
        );
    }

    /// Upstream answered "done", or gave no answer that settles it.
    pub fn sent(
        &mut self,
        kind: WriteKind,
        outcome: WriteOutcome,
        before: &MemberRecord,
        assignments: &[Assignment],
        now: Timestamp,
        settings: &Settings,
    ) {
        for assignment in assignments {
            let earlier = before.owned(assignment);
            let earlier_echo = earlier.and_then(|row| row.echo_until);
            let earlier_removal_echo = earlier.and_then(|row| row.removal_echo_until);
            if let Some(row) = self.record.owned_mut(assignment) {
                row.last_write = LastWrite {
                    kind,
                    at: now,
                    outcome,
                };
                let late = Some(now + settings.unknown_look_after);
                let unsettled = outcome != WriteOutcome::Done;
                row.echo_until = if unsettled { late } else { earlier_echo };
                if kind == WriteKind::Remove {
                    row.removal_echo_until = if unsettled {
                        late
                    } else {
                        earlier_removal_echo
                    };
                }
                // A repeat of what was answered "done" before counts as a failure until a read agrees.
                let repeated = before
                    .owned(assignment)
                    .is_some_and(|row| row.last_write.kind == kind);
                row.attempts = if outcome == WriteOutcome::Done && !repeated {
                    0
                } else {
                    row.attempts + 1
                };
                if outcome == WriteOutcome::Done {
                    row.blocked = None;
                }
            }
        }
        let certainty = match outcome {
            WriteOutcome::Done => Certainty::AcceptedUnverified,
            WriteOutcome::Unknown | WriteOutcome::InFlight => Certainty::Unknown,
        };
        self.each_grant(now, |grant| {
            let concerned = is_concerned(grant, kind, assignments, now);
            if concerned {
                grant.certainty = certainty;
                if outcome != WriteOutcome::Done {
                    grant.attempts += 1;
                }
            }
            concerned
        });
        self.changed = true;
    }

    /// The call of an intent was not sent and never will be: ownership is as it was before, and the audit says so.
    pub fn take_back(
        &mut self,
        kind: WriteKind,
        before: &MemberRecord,
        assignments: &[Assignment],
        code: &str,
        now: Timestamp,
    ) {
        self.undo_intent(before, assignments, now);
        let evidence = CallEvidence {
            code: Some(code.to_owned()),
            ..CallEvidence::default()
        };
        self.note(
            now,
            EventKind::CallEnded {
                write: kind,
                assignments: assignments.iter().map(ToString::to_string).collect(),
                outcome: NOT_SENT.to_owned(),
                evidence,
            },
        );
    }

    /// A definite refusal, every attempt of it: nothing happened, and ownership is as it was before the intent.
    pub fn undo_intent(
        &mut self,
        before: &MemberRecord,
        assignments: &[Assignment],
        now: Timestamp,
    ) {
        for assignment in assignments {
            match before.owned(assignment) {
                Some(row) => {
                    let restored = row.clone();
                    if let Some(slot) = self.record.owned_mut(assignment) {
                        *slot = restored;
                    }
                }
                None => self
                    .record
                    .owned
                    .retain(|row| row.assignment != *assignment),
            }
        }
        let owned: BTreeSet<Assignment> = self
            .record
            .owned
            .iter()
            .map(|row| row.assignment.clone())
            .collect();
        self.each_grant(now, |grant| {
            let mut changed = false;
            for pair in &mut grant.assignments {
                if assignments.contains(&pair.assignment) && !owned.contains(&pair.assignment) {
                    pair.holding = Holding::Undecided;
                    changed = true;
                }
            }
            let nothing_sent = grant
                .assignments
                .iter()
                .all(|pair| !owned.contains(&pair.assignment));
            if let (true, GrantState::Activating { must_end_by, .. }) =
                (nothing_sent && changed, &mut grant.state)
            {
                *must_end_by = None;
            }
            changed
        });
        self.changed = true;
    }

    /// Notes an error on the grants that a call was for.
    pub fn blame(
        &mut self,
        kind: WriteKind,
        assignments: &[Assignment],
        error: &LastError,
        now: Timestamp,
    ) {
        self.each_grant(now, |grant| {
            let concerned = is_concerned(grant, kind, assignments, now);
            if concerned {
                grant.last_error = Some(error.clone());
                grant.attempts += 1;
            }
            concerned
        });
    }

    /// Ends activation of the grants that want any of the assignments.
    pub fn fail_activation(
        &mut self,
        assignments: &[Assignment],
        error: &LastError,
        now: Timestamp,
    ) {
        self.each_grant(now, |grant| {
            let concerned = matches!(grant.state, GrantState::Activating { .. })
                && grant
                    .assignments
                    .iter()
                    .any(|held| assignments.contains(&held.assignment));
            if !concerned {
                return false;
            }
            let began = grant.begin_revoke(
                EndCause::ActivationFailed {
                    code: error.code.clone(),
                },
                now,
            );
            grant.last_error = Some(error.clone());
            began
        });
    }
}

fn is_concerned(
    grant: &Grant,
    kind: WriteKind,
    assignments: &[Assignment],
    now: Timestamp,
) -> bool {
    let state = match kind {
        WriteKind::Add => grant.expects_access(now),
        WriteKind::Remove => matches!(grant.state, GrantState::Revoking { .. }),
    };
    state
        && grant
            .assignments
            .iter()
            .any(|held| assignments.contains(&held.assignment))
}
