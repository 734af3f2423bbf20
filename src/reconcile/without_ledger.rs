//! Sending the removals that were known to be due while the ledger is away, and telling it afterwards what was sent.
//!
//! Owns the order: intent in the journal, byte, answer in the journal, then the ledger. Never adds or puts back, and
//! never ends a grant by what the journal says: the ledger learns that a removal was sent, and a read proves.

use std::time::Duration;

use chrono::TimeDelta;

use super::outage::may_go;
use super::pass::{Progress, Reconciler};
use super::settle::Draft;
use super::{metrics, receipt};
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, CallEvidence, EventKind};
use crate::domain::grant::GrantState;
use crate::domain::ids::UserId;
use crate::domain::member::{
    LastWrite, MemberKey, MemberRecord, Phase, Subject, WriteKind, WriteOutcome,
};
use crate::ports::journal::{Answer, Ending, Entry, Removal};
use crate::ports::ledger::{LateCursor, LedgerError, MemberCommit};
use crate::ports::provider::{KeyPin, Outcome};

/// Members that are read ahead at a time.
const AHEAD: usize = 128;

impl Reconciler {
    /// Loads a member. Where it is known that something of it is due, an answer is not waited for too long.
    pub(super) async fn load_knowing(
        &self,
        key: &MemberKey,
        progress: &mut Progress,
    ) -> Result<MemberRecord, LedgerError> {
        let Some(outage) = &self.outage else {
            return self.ledger.member(key).await;
        };
        // What was sent without it comes first: a pass that did not know would take it for somebody else's doing.
        if !outage.to_tell(Some(key)).is_empty() {
            self.answered(key, self.tell(Some(key))).await?;
        }
        let reading = outage.begin_read(self.clock.now(), self.clock.since_boot());
        let record = self.answered(key, self.ledger.member(key)).await?;
        progress.reading = reading;
        if let Some(reading) = &reading {
            outage.learn(reading, &record);
        }
        Ok(record)
    }

    /// Waits for an answer of the ledger: as long as it takes, unless something is known to be due meanwhile.
    pub(super) async fn answered<T>(
        &self,
        key: &MemberKey,
        asked: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let Some((outage, patience)) = self
            .outage
            .as_ref()
            .and_then(|outage| Some((outage, outage.patience?)))
        else {
            return asked.await;
        };
        tokio::pin!(asked);
        if let Ok(answer) = tokio::time::timeout(patience, &mut asked).await {
            return answer;
        }
        let now = self.clock.now();
        let due =
            outage
                .remember(key, self.clock.since_boot())
                .is_some_and(|(mut record, reading)| {
                    for grant in &mut record.grants {
                        grant.advance(now);
                    }
                    let mut rows = record.owned.iter();
                    rows.any(|row| {
                        may_go(&record, &row.assignment, &reading, now)
                            && outage.may_send(key, &row.assignment)
                    })
                });
        if !due {
            return asked.await;
        }
        Err(LedgerError::Unavailable {
            action: "loading a member whose access is due to go",
            source: "the ledger did not answer soon enough".into(),
        })
    }

    /// The ledger could not be read: removes what the last read showed to be due. Answers the error, to be passed on.
    pub(super) async fn remove_remembered(
        &self,
        key: &MemberKey,
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
        error: LedgerError,
    ) -> LedgerError {
        let Some((record, reading)) = self
            .outage
            .as_ref()
            .and_then(|outage| outage.remember(key, self.clock.since_boot()))
        else {
            return error;
        };
        let now = self.clock.now();
        let mut draft = Draft::new(record);
        draft.rewind(now, &self.settings);
        draft.advance(now, &self.settings);
        progress.reading = Some(reading);
        self.remove_journaled(&draft.record, user, pin, progress, error)
            .await
    }

    /// Removes what is due by a record that was read under the claim of this process, with the intent in the journal.
    /// Answers the error because of which the ledger could not be asked.
    pub(super) async fn remove_journaled(
        &self,
        record: &MemberRecord,
        user: &UserId,
        pin: KeyPin,
        progress: &mut Progress,
        error: LedgerError,
    ) -> LedgerError {
        let away = matches!(error, LedgerError::Unavailable { .. }) && !error.is_not_owner();
        let (Some(outage), Some(reading)) = (&self.outage, progress.reading) else {
            return error;
        };
        if !away || !self.is_owner() || self.is_own_identity(user) {
            return error;
        }
        let key = &record.key;
        let now = self.clock.now();
        let (plan, _) = self.plan(record, progress, now);
        let mut remove = plan.remove;
        remove.retain(|assignment| {
            may_go(record, assignment, &reading, now) && outage.may_send(key, assignment)
        });
        if remove.is_empty() || !self.spares_neighbours(record, &remove, progress, now) {
            return error;
        }
        let removal = Removal {
            key: key.clone(),
            assignments: remove.clone(),
            epoch: reading.reach.epoch,
            at: now,
        };
        let number = match outage.intend(removal).await {
            Ok(number) => number,
            Err(failure) => {
                tracing::error!(
                    member = %key, error = %failure, cause = %failure.source,
                    "Ledger is away and the journal cannot be written; due access waits for either"
                );
                return error;
            }
        };
        // The ledger may be back, and somebody here may have decided otherwise while the journal was written.
        let outcome = if outage.is_undecided(key, &reading) {
            self.provider
                .remove_before(reading.reach.until, pin, user, &remove)
                .await
        } else {
            Outcome::Refused(
                crate::ports::provider::Refusal::NotSent {
                    code: "overtaken".to_owned(),
                },
                CallEvidence::default(),
            )
        };
        let answer = match &outcome {
            Outcome::Done(..) => Answer::Done,
            Outcome::Refused(..) => Answer::Refused,
            Outcome::Unknown(_) => Answer::Unknown,
        };
        for assignment in &remove {
            progress
                .sent
                .insert((WriteKind::Remove, assignment.clone()));
        }
        let ending = Ending {
            answer,
            evidence: outcome.evidence().clone(),
            at: self.clock.now(),
        };
        if let Err(failure) = outage.ended(number, ending).await {
            // After a crash it is told as one without an answer.
            tracing::error!(member = %key, error = %failure, cause = %failure.source, "Journal cannot be written");
        }
        metrics::removed_without_ledger(&self.integration, outcome.name());
        if answer != Answer::Refused {
            self.count_lateness(
                record,
                WriteKind::Remove,
                &remove,
                outcome.evidence().elapsed_ms,
            );
        }
        let removed: Vec<String> = remove.iter().map(ToString::to_string).collect();
        tracing::error!(
            member = %key,
            error = error.code(),
            outcome = outcome.name(),
            removed = removed.join(", "),
            "Ledger is away; sent a removal that was known to be due, and noted it in the journal"
        );
        error
    }

    /// Reads the members whose access ends while the claim stands, so that they are known when the ledger is not there.
    /// Nothing where there is no journal.
    pub async fn look_ahead(&self) {
        let Some(outage) = &self.outage else { return };
        let now = self.clock.now();
        outage.prune(self.clock.since_boot());
        let Some(reading) = outage.begin_read(now, self.clock.since_boot()) else {
            return;
        };
        let Ok(first) = UserId::parse("0") else {
            return;
        };
        // What is older is not removed without the ledger.
        let after = LateCursor {
            due_at: now - TimeDelta::minutes(1),
            subject: Subject::Member(first),
        };
        let until = reading.reach.deadline;
        let late = self
            .ledger
            .late(&self.integration, until, Some(&after), AHEAD);
        match late.await {
            Ok(page) => {
                for record in &page.items {
                    outage.learn(&reading, record);
                }
            }
            Err(error) => {
                tracing::debug!(code = error.code(), "What ends soon was not read ahead");
            }
        }
    }

    /// Whether removals go on for a while when the ledger is away.
    #[must_use]
    pub fn goes_on_without_ledger(&self) -> bool {
        self.outage.is_some()
    }

    /// Tells the ledger what was sent without it, of one member or of all. It is a record of calls: the grants end when
    /// a read shows that the access is gone, as ever.
    ///
    /// # Errors
    /// [`LedgerError`] while it cannot be told; nothing is forgotten then.
    pub async fn tell(&self, only: Option<&MemberKey>) -> Result<(), LedgerError> {
        let Some(outage) = &self.outage else {
            return Ok(());
        };
        let _one_at_a_time = outage.telling.lock().await;
        for entry in outage.to_tell(only) {
            if entry.removal.key.integration != self.integration {
                continue;
            }
            self.tell_one(&entry).await?;
            if let Err(failure) = outage.told(entry.number).await {
                // It is told once more after a restart: the audit rather says something twice than not at all.
                tracing::warn!(error = %failure, cause = %failure.source, "Journal did not forget what the ledger knows");
            }
            tracing::warn!(
                member = %entry.removal.key,
                sent_at = %entry.removal.at,
                "Ledger knows of a removal that was sent without it"
            );
        }
        Ok(())
    }

    async fn tell_one(&self, entry: &Entry) -> Result<(), LedgerError> {
        let Some(outage) = &self.outage else {
            return Ok(());
        };
        let key = &entry.removal.key;
        loop {
            let now = self.clock.now();
            let record = outage.ledger.member(key).await?;
            if record.version == 0 {
                return outage.ledger.append(events(entry)).await;
            }
            let mut draft = Draft::new(record);
            draft.advance(now, &self.settings);
            draft.audit.extend(events(entry));
            draft.sent_without_ledger(entry, self.settings.unknown_look_after);
            let due = self.due_now(&draft.record, now);
            draft.record.due = Some(due);
            let Draft {
                mut record, audit, ..
            } = draft;
            receipt::keep(&mut record, &audit);
            let mut writing = outage.committing(key, self.clock.since_boot());
            writing.begins();
            let committed = outage
                .ledger
                .commit(MemberCommit {
                    record,
                    audit,
                    request: None,
                })
                .await;
            writing.ends(&committed);
            match committed {
                Ok(_) => {
                    self.wake.wake(key, due);
                    return Ok(());
                }
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whoever owned the organization before may have removed what was due then, and not have told yet. What came of it
    /// is looked at as after any call of unknown outcome, and what is given meanwhile is given again where it took it.
    pub(super) fn doubt_earlier_owner(&self, draft: &mut Draft, now: Timestamp) {
        let Some(ended) = self
            .standing
            .as_ref()
            .and_then(|standing| standing.earlier_end())
        else {
            return;
        };
        let since = self.clock.since_boot().saturating_sub(ended);
        let ended_at = now - TimeDelta::from_std(since).unwrap_or(TimeDelta::MAX);
        let lands_until = ended_at + self.settings.unknown_look_after;
        if lands_until <= now {
            return;
        }
        let until = ended_at + self.settings.bounds.read_staleness;
        let was_due = |grants: &[crate::domain::grant::Grant],
                       row: &crate::domain::member::Owned| {
            grants.iter().any(|grant| {
                let end = match &grant.state {
                    GrantState::Revoking { since, .. } => Some(*since),
                    GrantState::Activating { .. } | GrantState::Active { .. } => grant.ends_at(),
                    GrantState::Scheduled { .. }
                    | GrantState::AwaitingMember { .. }
                    | GrantState::Ended { .. } => None,
                };
                end.is_some_and(|end| end <= until)
                    && grant
                        .assignments
                        .iter()
                        .any(|held| held.assignment == row.assignment)
            })
        };
        let MemberRecord { grants, owned, .. } = &mut draft.record;
        for row in owned {
            let unsent = row.phase == Phase::Live && row.last_write.kind == WriteKind::Add;
            if unsent
                && was_due(grants, row)
                && row
                    .removal_echo_until
                    .is_none_or(|known| known < lands_until)
            {
                row.removal_echo_until = Some(lands_until);
                row.echo_until = row.echo_until.max(Some(lands_until));
                draft.changed = true;
            }
        }
    }
}

impl Draft {
    /// Takes note of a removal that was sent without the ledger. Whatever was written since knows better.
    fn sent_without_ledger(&mut self, entry: &Entry, unknown_look_after: TimeDelta) {
        let Entry {
            removal, ending, ..
        } = entry;
        let answer = ending
            .as_ref()
            .map_or(Answer::Unknown, |ending| ending.answer);
        let at = ending.as_ref().map_or(removal.at, |ending| ending.at);
        let outcome = match answer {
            Answer::Refused => return,
            Answer::Done => WriteOutcome::Done,
            Answer::Unknown => WriteOutcome::Unknown,
        };
        let lands_until = at + unknown_look_after;
        for assignment in &removal.assignments {
            let Some(row) = self.record.owned_mut(assignment) else {
                continue;
            };
            if row.last_write.at <= removal.at {
                row.last_write = LastWrite {
                    kind: WriteKind::Remove,
                    at,
                    outcome,
                };
            }
            if answer == Answer::Unknown {
                row.removal_echo_until = row.removal_echo_until.max(Some(lands_until));
                row.echo_until = row.echo_until.max(Some(lands_until));
                if let Phase::Closing { look_at, .. } = &mut row.phase {
                    *look_at = lands_until.max(*look_at);
                }
            }
        }
        self.each_grant(removal.at, |grant| {
            // What fell due later was not what went then.
            let first = matches!(grant.state, GrantState::Revoking { since, .. } if since <= removal.at)
                && grant.removal_sent_at.is_none()
                && grant
                    .assignments
                    .iter()
                    .any(|held| removal.assignments.contains(&held.assignment));
            if first {
                grant.removal_sent_at = Some(removal.at);
            }
            first
        });
        self.changed = true;
    }
}

/// What the audit says of it: the call as it was, at its own time.
fn events(entry: &Entry) -> Vec<AuditEvent> {
    let Entry {
        removal, ending, ..
    } = entry;
    let assignments: Vec<String> = removal
        .assignments
        .iter()
        .map(ToString::to_string)
        .collect();
    let intent = EventKind::CallIntended {
        write: WriteKind::Remove,
        assignments: assignments.clone(),
        must_survive: Vec::new(),
        put_back: false,
    };
    let (outcome, evidence, at) = match ending {
        Some(ending) => (
            match ending.answer {
                Answer::Done => "done",
                Answer::Refused => "refused",
                Answer::Unknown => "unknown",
            },
            ending.evidence.clone(),
            ending.at,
        ),
        None => ("unknown", CallEvidence::default(), removal.at),
    };
    let ended = EventKind::CallEnded {
        write: WriteKind::Remove,
        assignments,
        outcome: outcome.to_owned(),
        evidence,
    };
    vec![
        AuditEvent::member(removal.at, &removal.key, intent),
        AuditEvent::member(at, &removal.key, ended),
    ]
}

/// How long an answer of the ledger is waited for where something is known to be due: short against a claim.
#[must_use]
pub fn patience(claim: Duration) -> Duration {
    (claim / 20).clamp(Duration::from_millis(100), Duration::from_millis(500))
}
