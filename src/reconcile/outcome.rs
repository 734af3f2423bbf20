//! What the answer to a mutation means, and putting back neighbours.
//!
//! Owns who is to blame for a refusal: the pair, the key, or nobody. Never takes a broken call for a failed one.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::explain::{explain, explain_unknown};
use super::pass::{Progress, Reconciler};
use super::settle::Draft;
use crate::domain::assignment::Assignment;
use crate::domain::drift::{DriftAction, DriftKind};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::GrantState;
use crate::domain::ids::UserId;
use crate::domain::member::{MemberKey, MemberRecord, WriteKind, WriteOutcome};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{KeyPin, Outcome};

impl Reconciler {
    pub(super) async fn record_outcome(
        &self,
        key: &MemberKey,
        kind: WriteKind,
        assignments: &[Assignment],
        before: &MemberRecord,
        outcome: &Outcome<()>,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        let pin = self.provider.pin();
        let event = EventKind::CallEnded {
            write: kind,
            assignments: assignments.iter().map(ToString::to_string).collect(),
            outcome: outcome.name().to_owned(),
            evidence: outcome.evidence().clone(),
        };
        let alone = assignments.len() == 1;
        let proven_elsewhere = progress.removed_one;
        let was_blocked = assignments.iter().any(|assignment| {
            before
                .owned(assignment)
                .is_some_and(|row| row.blocked.is_some())
        });
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
                    if !repeated {
                        draft.record.backoff = None;
                    } else {
                        self.back_off(draft, "not_applied", now);
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
                    self.back_off(draft, &code, now);
                })
                .await
            }
            Outcome::Refused(refusal, _) => {
                let error = explain(refusal, self.clock.now());
                let definite = !refusal.is_transient();
                let board = self.observer.board();
                if definite && alone && kind == WriteKind::Remove {
                    for assignment in assignments {
                        board.note_refused(pin, assignment.target.to_string());
                    }
                }
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
                    self.back_off(draft, &error.code, now);
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
                                let key_works =
                                    self.key_works(before) && !board.is_key_refused(pin);
                                if proven_elsewhere || was_blocked || key_works {
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

    pub(super) async fn restore(
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
            draft.open_drift(
                now,
                DriftKind::SurvivorMissing,
                assignment,
                DriftAction::PutBack,
            );
        }
        draft.changed = true;
        let intent = EventKind::CallIntended {
            write: WriteKind::Add,
            assignments: texts.clone(),
            must_survive: Vec::new(),
            put_back: true,
        };
        draft.audit.push(AuditEvent::member(now, &key, intent));
        draft.record.due = Some(self.due_now(&draft.record, now));
        match self.commit(draft).await {
            Ok(_) => {}
            Err(LedgerError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let turn = progress.turn.take().filter(|turn| !turn.is_free());
        let outcome = match turn {
            Some(turn) => {
                let provider = &self.provider;
                provider.add_in_turn(turn, pin, user, assignments).await
            }
            None => self.provider.add(pin, user, assignments).await,
        };
        for assignment in assignments {
            progress.sent.insert((WriteKind::Add, assignment.clone()));
        }
        let event = EventKind::CallEnded {
            write: WriteKind::Add,
            assignments: texts,
            outcome: outcome.name().to_owned(),
            evidence: outcome.evidence().clone(),
        };
        let failure = match &outcome {
            Outcome::Done(..) => None,
            Outcome::Refused(refusal, _) => Some(refusal.code().to_owned()),
            Outcome::Unknown(_) => Some("no_answer".to_owned()),
        };
        self.update(&key, |draft, now| {
            draft
                .audit
                .push(AuditEvent::member(now, &key, event.clone()));
            draft.changed = true;
            if let Some(code) = &failure {
                self.back_off(draft, code, now);
            }
        })
        .await
    }

    /// Lateness counts to the moment the first byte left, waiting for the rate budget included.
    pub(super) fn count_lateness(
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
