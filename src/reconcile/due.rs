//! When a member is due next, and for what.
//!
//! Owns pauses and the place in the queue. Never lets a member that is owed something go without a due time, and
//! never lets one come back at once without having learned anything.

use chrono::TimeDelta;

use super::pass::{Progress, Reconciler, Report};
use super::plan::{Expected, Plan};
use super::settle::{Draft, pause};
use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::member::{
    Backoff, Due, DueKind, MemberKey, MemberRecord, Phase, WriteKind, weight_class,
};
use crate::ports::ledger::LedgerError;

/// What is owed but was not done by this pass: sent by it already, or put off by a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Later {
    /// An addition, or putting something back.
    pub(super) add: bool,
    /// A removal.
    pub(super) remove: bool,
}

/// Code of a pass that ended because its turn in the rate budget did not come: not a failure, it goes on later.
pub(super) const NO_TURN: &str = "no_turn";

/// Ends that fall together are removed with one call: what ends this long after the first counts towards its weight.
const TOGETHER: TimeDelta = TimeDelta::seconds(10);

/// Periodic and second looks are due at whole multiples of this, so that they share reads.
const LOOKS_TOGETHER_SECONDS: i64 = 5;

impl Reconciler {
    /// Nothing can be done now: writes down when the member is due again.
    pub(super) async fn rest(
        &self,
        record: MemberRecord,
        plan: &Plan,
        later: Later,
        progress: Progress,
        now: Timestamp,
    ) -> Result<Report, LedgerError> {
        let Progress {
            mut report, stop, ..
        } = progress;
        let waits = stop.as_deref() == Some(NO_TURN);
        if waits && let Some(due) = record.due.filter(|due| due.at <= now) {
            // It stays due as it is, and loses nothing of its age in the queue.
            report.next = Some(due);
            return Ok(report);
        }
        let next = self.next_due(&record, plan, later, now);
        let next = self.at_hold_pace(next, plan, &record, now);
        report.next = next;
        report.failure = stop.filter(|_| !waits);
        let isolated = record.isolate_adds && plan.add.is_empty() && !later.add;
        // Nothing is left to look at: what would have been looked at is forgotten.
        let idle = self.nothing_to_look_at(&record)
            && (record.check_at.is_some() || record.absent_since.is_some());
        if record.due != next || isolated || idle {
            let mut draft = Draft::new(record);
            draft.record.due = next;
            draft.record.isolate_adds &= !isolated;
            if idle {
                draft.record.check_at = None;
                draft.record.absent_since = None;
            }
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
    fn next_due(
        &self,
        record: &MemberRecord,
        plan: &Plan,
        later: Later,
        now: Timestamp,
    ) -> Option<Due> {
        if self.nothing_to_look_at(record) {
            return None;
        }
        let mut dues = Vec::new();
        for grant in &record.grants {
            if let Some(at) = grant.next_deadline() {
                let kind = match grant.state {
                    GrantState::Scheduled { .. } => DueKind::Grant,
                    GrantState::AwaitingMember { .. } => DueKind::Look,
                    GrantState::Activating { .. }
                    | GrantState::Active { .. }
                    | GrantState::Revoking { .. }
                    | GrantState::Ended { .. } => DueKind::Remove,
                };
                let weight = match kind {
                    DueKind::Remove => weight_class(record.open_weight(at + TOGETHER)),
                    DueKind::Verify | DueKind::Grant | DueKind::Look => grant.weight(),
                };
                dues.push(Due { at, kind, weight });
            }
            if let GrantState::Activating { since, .. } = grant.state {
                dues.push(Due {
                    at: since + self.settings.activation_timeout,
                    kind: DueKind::Grant,
                    weight: grant.weight(),
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
            let at = if kind == DueKind::Look {
                together(at)
            } else {
                at
            };
            dues.push(Due {
                at: if at <= now { soonest } else { at },
                kind,
                weight,
            });
        }
        let unhurried = soonest.max(now + self.settings.retry_floor);
        let removes = !plan.remove.is_empty() || later.remove;
        if removes || self.has_unsent_removal(record, now) {
            dues.push(Due {
                at: unhurried,
                kind: DueKind::Remove,
                weight: weight_class(record.open_weight(now)),
            });
        }
        if !plan.add.is_empty() || !plan.restore.is_empty() || later.add {
            dues.push(Due {
                at: unhurried,
                kind: DueKind::Grant,
                weight,
            });
        }
        if let Some(at) = plan.restore_at {
            dues.push(Due {
                at: at.max(unhurried),
                kind: DueKind::Grant,
                weight,
            });
        }
        if self.has_unverified_activation(record) {
            dues.push(Due {
                at: soonest.max(now + self.settings.bounds.read_staleness),
                kind: DueKind::Grant,
                weight,
            });
        }
        for row in &record.owned {
            if let Some(blocked) = &row.blocked {
                dues.push(Due {
                    at: blocked.retry_at.max(unhurried),
                    kind: DueKind::Remove,
                    weight: row.assignment.weight(),
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

    /// Removals that are owed by what the ledger knows, whatever the plan made of them.
    fn has_unsent_removal(&self, record: &MemberRecord, now: Timestamp) -> bool {
        let expected = Expected::of(record, now);
        record.owned.iter().any(|row| {
            row.phase == Phase::Live
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

    /// Makes what failed wait, longer with every failure.
    pub(super) fn back_off(&self, draft: &mut Draft, code: &str, now: Timestamp) {
        draft.changed = true;
        let record = &mut draft.record;
        let failures = record
            .backoff
            .as_ref()
            .map_or(0, |backoff| backoff.failures)
            + 1;
        // What leaves more open is tried more often, so that it goes first once trouble is over.
        let strongest = record.owned.iter().map(|row| row.assignment.weight()).max();
        let cap = self.settings.backoff_cap / more_often(strongest.unwrap_or(0));
        let spread = spread_of(&record.key);
        let until = now + pause(failures, self.settings.backoff_base, cap, spread);
        record.backoff = Some(Backoff {
            failures,
            until,
            code: code.to_owned(),
        });
    }

    pub(super) fn due_now(&self, record: &MemberRecord, now: Timestamp) -> Due {
        match record.removal_since() {
            // A removal that is due stays due from then: its age counts in the queue.
            Some(since) => Due {
                at: since.min(now),
                kind: DueKind::Remove,
                weight: weight_class(record.open_weight(now)),
            },
            None => Due {
                at: now,
                kind: DueKind::Verify,
                weight: record
                    .owned
                    .iter()
                    .map(|row| row.assignment.weight())
                    .max()
                    .unwrap_or(0),
            },
        }
    }
}

/// How many times as often as the weakest a member of this power is tried again.
fn more_often(weight: u32) -> i32 {
    match weight {
        80.. => 4,
        50..80 => 2,
        _ => 1,
    }
}

/// The next instant at which looks are due together.
fn together(at: Timestamp) -> Timestamp {
    let over = at
        .timestamp_micros()
        .rem_euclid(LOOKS_TOGETHER_SECONDS * 1_000_000);
    if over == 0 {
        at
    } else {
        at + TimeDelta::microseconds(LOOKS_TOGETHER_SECONDS * 1_000_000 - over)
    }
}

/// A number that differs from member to member and stays the same for one, to spread retries.
fn spread_of(key: &MemberKey) -> u64 {
    key.to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_what_is_left_open_the_more_often_it_is_tried_again() {
        for (weight, times) in [(0, 1), (49, 1), (50, 2), (79, 2), (80, 4), (1_000, 4)] {
            assert_eq!(more_often(weight), times, "{weight}");
        }
    }
}
