//! When a member is due next, and for what.
//!
//! Owns pauses and the place in the queue. Never lets a member that is owed something go without a due time, and
//! never lets one come back at once without having learned anything.

use super::pass::{Progress, Reconciler, Report};
use super::plan::{Expected, Plan};
use super::settle::{Draft, pause};
use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::member::{Backoff, Due, DueKind, MemberKey, MemberRecord, Phase, WriteKind};
use crate::ports::ledger::LedgerError;

/// What is owed but was not done by this pass: sent by it already, or put off by a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Later {
    /// An addition, or putting something back.
    pub(super) add: bool,
    /// A removal.
    pub(super) remove: bool,
}

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
        let next = self.next_due(&record, plan, later, now);
        let next = self.at_hold_pace(next, plan, &record, now);
        report.next = next;
        report.failure = stop;
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
            let weight = grant.weight();
            if let Some(at) = grant.next_deadline() {
                let kind = match grant.state {
                    GrantState::Scheduled { .. } => DueKind::Grant,
                    GrantState::AwaitingMember { .. } => DueKind::Look,
                    GrantState::Activating { .. }
                    | GrantState::Active { .. }
                    | GrantState::Revoking { .. }
                    | GrantState::Ended { .. } => DueKind::Remove,
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
        let unhurried = soonest.max(now + self.settings.retry_floor);
        let removes = !plan.remove.is_empty() || later.remove;
        if removes || self.has_unsent_removal(record, now) {
            dues.push(Due {
                at: unhurried,
                kind: DueKind::Remove,
                weight,
            });
        }
        if !plan.add.is_empty() || !plan.restore.is_empty() || later.add {
            dues.push(Due {
                at: unhurried,
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
}

/// A number that differs from member to member and stays the same for one, to spread retries.
fn spread_of(key: &MemberKey) -> u64 {
    key.to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
