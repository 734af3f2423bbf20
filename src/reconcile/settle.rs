//! Writing facts into a member record: what time, reads and answers mean for grants and ownership. Pure.
//!
//! Owns every change to a [`MemberRecord`] that a pass makes, together with its audit events. Never calls anything,
//! and never clears ownership on a guess.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::Settings;
use super::plan::{Expected, Plan, Snapshot, must_survive};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, Holding, LastError};
use crate::domain::member::{
    Blocked, LastSeen, LastWrite, MemberRecord, Owned, Phase, Survivor, WriteKind, WriteOutcome,
};

/// A record being changed, and the audit of the changes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The record as it will be stored.
    pub record: MemberRecord,
    /// Events of the same transaction.
    pub audit: Vec<AuditEvent>,
    /// Whether anything changed that must be durable.
    pub changed: bool,
}

impl Draft {
    /// Starts from a record as loaded.
    #[must_use]
    pub fn new(record: MemberRecord) -> Self {
        Self {
            record,
            audit: Vec::new(),
            changed: false,
        }
    }

    fn note(&mut self, now: Timestamp, kind: EventKind) {
        self.audit
            .push(AuditEvent::member(now, &self.record.key, kind));
        self.changed = true;
    }

    /// Applies a change to every grant; state changes are counted and audited.
    pub fn each_grant(&mut self, now: Timestamp, mut change: impl FnMut(&mut Grant) -> bool) {
        for grant in &mut self.record.grants {
            let before = grant.state.clone();
            if !change(grant) {
                continue;
            }
            grant.version += 1;
            self.changed = true;
            if before.name() != grant.state.name() {
                self.audit
                    .push(AuditEvent::grant(now, grant, changed_event(&before, grant)));
            }
        }
    }

    /// Moves grants as far as time alone moves them.
    pub fn advance(&mut self, now: Timestamp, settings: &Settings) {
        self.each_grant(now, |grant| {
            let too_long = match &grant.state {
                GrantState::Activating { since, .. } => *since + settings.activation_timeout <= now,
                _ => false,
            };
            grant.advance(now)
                || (too_long
                    && grant.begin_revoke(
                        EndCause::ActivationFailed {
                            code: "activation_timeout".to_owned(),
                        },
                        now,
                    ))
        });
    }

    /// Writes down what a plan found out, and what follows for the grants.
    pub fn settle(
        &mut self,
        plan: &Plan,
        snapshot: Option<&Snapshot>,
        now: Timestamp,
        settings: &Settings,
    ) {
        if let Some(snapshot) = snapshot {
            self.remember(snapshot);
            self.settle_rows(plan, snapshot, now, settings);
        }
        self.settle_survivors(plan, now);
        self.settle_last_owner(plan, now, settings);
        self.settle_missing(plan, now);
        if snapshot.is_some() {
            self.activate(plan, now, settings);
        }
        self.finish(now);
    }

    fn remember(&mut self, snapshot: &Snapshot) {
        if !snapshot.shown {
            return;
        }
        if self
            .record
            .last_seen
            .as_ref()
            .is_none_or(|seen| seen.assignments != snapshot.assignments)
        {
            self.changed = true;
        }
        self.record.last_seen = Some(LastSeen {
            at: snapshot.started_at,
            assignments: snapshot.assignments.clone(),
        });
    }

    fn settle_rows(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        now: Timestamp,
        settings: &Settings,
    ) {
        let mut present = Vec::new();
        for assignment in &plan.present {
            if let Some(row) = self.record.owned_mut(assignment) {
                if !row.seen {
                    row.seen = true;
                    row.attempts = 0;
                    present.push(assignment.to_string());
                }
            }
        }
        let mut gone = Vec::new();
        for assignment in &plan.gone {
            if let Some(row) = self.record.owned_mut(assignment) {
                let look_at = row
                    .echo_until
                    .unwrap_or(now)
                    .max(now + settings.bounds.request_lifetime);
                row.phase = Phase::Closing {
                    gone_at: now,
                    look_at,
                };
                row.blocked = None;
                row.isolate = false;
                row.attempts = 0;
                gone.push(assignment.to_string());
            }
        }
        let covered: BTreeSet<&Assignment> = plan.covered.iter().collect();
        let mut standing = Vec::new();
        self.each_grant(now, |grant| {
            let mut changed = false;
            if grant.expects_access(now) {
                for held in &mut grant.assignments {
                    if covered.contains(&held.assignment) && held.holding != Holding::Standing {
                        held.holding = Holding::Standing;
                        standing.push(held.assignment.to_string());
                        changed = true;
                    }
                }
            }
            changed
        });
        if !(present.is_empty() && gone.is_empty() && standing.is_empty()) {
            if !(present.is_empty() && gone.is_empty()) {
                self.record.backoff = None;
            }
            let read_started_at = snapshot.started_at;
            self.note(
                now,
                EventKind::Observed {
                    read_started_at,
                    present,
                    gone,
                    standing,
                },
            );
        }
        for assignment in &plan.echo_over {
            if let Some(row) = self.record.owned_mut(assignment) {
                row.echo_until = None;
                self.changed = true;
            }
        }
        for assignment in &plan.resurrected {
            if let Some(row) = self.record.owned_mut(assignment) {
                row.phase = Phase::Live;
                self.drift(now, "resurrected", assignment, "removed again");
            }
        }
        for assignment in &plan.closed {
            self.record
                .owned
                .retain(|row| row.assignment != *assignment);
            self.note(
                now,
                EventKind::SecondLook {
                    assignment: assignment.to_string(),
                },
            );
        }
    }

    fn settle_survivors(&mut self, plan: &Plan, now: Timestamp) {
        for (list, lost) in [(&plan.survived, false), (&plan.lost, true)] {
            for assignment in list {
                for row in &mut self.record.owned {
                    let before = row.must_survive.len();
                    row.must_survive
                        .retain(|survivor| survivor.assignment != *assignment);
                    self.changed |= row.must_survive.len() != before;
                }
                if lost {
                    self.drift(
                        now,
                        "survivor_missing",
                        assignment,
                        "put back several times, now left alone",
                    );
                }
            }
        }
    }

    fn settle_last_owner(&mut self, plan: &Plan, now: Timestamp, settings: &Settings) {
        for assignment in &plan.last_owner {
            self.block(assignment, "last_owner", now, settings);
        }
    }

    /// Marks a removal as blocked: retried slowly, shown loudly, never forgotten.
    pub fn block(
        &mut self,
        assignment: &Assignment,
        code: &str,
        now: Timestamp,
        settings: &Settings,
    ) {
        let Some(row) = self.record.owned_mut(assignment) else {
            return;
        };
        let refusals = row.blocked.as_ref().map_or(0, |blocked| blocked.refusals) + 1;
        let since = row.blocked.as_ref().map_or(now, |blocked| blocked.since);
        let retry_at = now + settings.blocked_retry;
        row.blocked = Some(Blocked {
            code: code.to_owned(),
            since,
            retry_at,
            refusals,
        });
        let message = match code {
            "last_owner" => {
                "removing it would leave the organization without an owner: make somebody else an owner"
            }
            "own_identity" => {
                "the connector's own identity is never touched: use a key of another member"
            }
            _ => {
                "Elastic Cloud refuses the removal: look at the deployment or project, it may be shut down"
            }
        };
        self.each_grant(now, |grant| {
            let concerned = matches!(grant.state, GrantState::Revoking { .. })
                && grant
                    .assignments
                    .iter()
                    .any(|held| held.assignment == *assignment);
            if concerned {
                grant.last_error = Some(LastError {
                    code: code.to_owned(),
                    message: message.to_owned(),
                    at: now,
                });
            }
            concerned
        });
        self.note(
            now,
            EventKind::RemovalBlocked {
                assignment: assignment.to_string(),
                code: code.to_owned(),
                retry_at,
            },
        );
    }

    fn settle_missing(&mut self, plan: &Plan, now: Timestamp) {
        for assignment in &plan.missing {
            self.drift(
                now,
                "missing",
                assignment,
                "somebody else removed it: the grant ends",
            );
        }
        self.each_grant(now, |grant| {
            let stripped = grant.expects_access(now)
                && grant
                    .assignments
                    .iter()
                    .any(|held| plan.missing.contains(&held.assignment));
            if stripped {
                grant.externally_modified = true;
                grant.begin_revoke(EndCause::Superseded, now);
            }
            stripped
        });
    }

    fn activate(&mut self, plan: &Plan, now: Timestamp, settings: &Settings) {
        let mut activated = false;
        self.each_grant(now, |grant| {
            let verified = matches!(grant.state, GrantState::Activating { .. })
                && grant.assignments.iter().all(|held| {
                    plan.present.contains(&held.assignment)
                        || plan.covered.contains(&held.assignment)
                });
            let became = verified && grant.activate(now);
            activated |= became;
            became
        });
        if activated {
            self.record.check_at = Some(now + settings.first_check);
            self.record.backoff = None;
        }
    }

    /// Ends the grants whose removal is complete.
    pub fn finish(&mut self, now: Timestamp) {
        let expected = Expected::of(&self.record, now);
        let held: BTreeSet<Assignment> = self
            .record
            .owned
            .iter()
            .filter(|row| row.phase == Phase::Live && !expected.0.contains_key(&row.assignment))
            .map(|row| row.assignment.clone())
            .collect();
        self.each_grant(now, |grant| {
            grant
                .assignments
                .iter()
                .all(|pair| !held.contains(&pair.assignment))
                && grant.finish(now)
        });
    }

    /// Ends everything of a member who left: nothing is held any more, which the second look still confirms.
    pub fn member_left(
        &mut self,
        read_started_at: Timestamp,
        before: Timestamp,
        now: Timestamp,
        settings: &Settings,
    ) {
        for row in &mut self.record.owned {
            if row.phase == Phase::Live && row.since < before {
                let look_at = row
                    .echo_until
                    .unwrap_or(now)
                    .max(now + settings.bounds.request_lifetime);
                row.phase = Phase::Closing {
                    gone_at: now,
                    look_at,
                };
                row.must_survive.clear();
            }
        }
        self.note(now, EventKind::MemberLeft { read_started_at });
        self.each_grant(now, |grant| {
            grant.created_at < before && grant.begin_revoke(EndCause::MemberLeft, now)
        });
        self.finish(now);
        self.record.absent_since = None;
        self.record.last_seen = None;
    }

    /// Writes the intent of a mutation: ownership, pessimistic echo, and an end before the beginning.
    pub fn intend(
        &mut self,
        kind: WriteKind,
        assignments: &[Assignment],
        now: Timestamp,
        settings: &Settings,
    ) {
        let expected = Expected::of(&self.record, now);
        let held = self
            .record
            .last_seen
            .as_ref()
            .map(|seen| seen.assignments.clone())
            .unwrap_or_default();
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
        let ends_at = self
            .record
            .grants
            .iter()
            .filter(|grant| {
                grant
                    .assignments
                    .iter()
                    .any(|held| assignments.contains(&held.assignment))
            })
            .filter_map(Grant::ends_at)
            .max();
        let last_write = LastWrite {
            kind,
            at: now,
            outcome: WriteOutcome::InFlight,
        };
        let echo_until = Some(now + settings.unknown_look_after);
        for assignment in assignments {
            let must_survive = survivors
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
                        WriteKind::Remove => row.must_survive = must_survive,
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
                    must_survive,
                    blocked: None,
                    isolate: false,
                    attempts: 0,
                }),
            }
        }
        if kind == WriteKind::Remove {
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
            let earlier_echo = before.owned(assignment).and_then(|row| row.echo_until);
            if let Some(row) = self.record.owned_mut(assignment) {
                row.last_write = LastWrite {
                    kind,
                    at: now,
                    outcome,
                };
                row.echo_until = match outcome {
                    WriteOutcome::Done => earlier_echo,
                    WriteOutcome::Unknown | WriteOutcome::InFlight => {
                        Some(now + settings.unknown_look_after)
                    }
                };
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

    /// Notes drift.
    pub fn drift(&mut self, now: Timestamp, kind: &str, assignment: &Assignment, action: &str) {
        self.note(
            now,
            EventKind::Drift {
                kind: kind.to_owned(),
                assignment: assignment.to_string(),
                action: action.to_owned(),
            },
        );
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

/// The audit event of a change of state.
#[must_use]
pub fn changed_event(before: &GrantState, grant: &Grant) -> EventKind {
    let (cause, expires_at) = match &grant.state {
        GrantState::Revoking { cause, .. } | GrantState::Ended { cause, .. } => {
            (Some(cause.clone()), None)
        }
        GrantState::Active { expires_at, .. } => (None, Some(*expires_at)),
        GrantState::Scheduled { .. }
        | GrantState::AwaitingMember { .. }
        | GrantState::Activating { .. } => (None, None),
    };
    EventKind::GrantChanged {
        from: before.name().to_owned(),
        to: grant.state.name().to_owned(),
        cause,
        expires_at,
    }
}

/// Pause before the next try, after so many failures in a row: doubling from `base` up to `cap`, with a spread
/// drawn from the member's name so that a storm of failures does not come back as one.
#[must_use]
pub fn pause(failures: u32, base: TimeDelta, cap: TimeDelta, spread: u64) -> TimeDelta {
    let factor = 1_i32 << failures.saturating_sub(1).min(16);
    let full = base.checked_mul(factor).map_or(cap, |delay| delay.min(cap));
    let quarter = full.num_milliseconds() / 4;
    let back = if quarter > 0 {
        i64::try_from(spread % 1000).unwrap_or(0) * quarter / 1000
    } else {
        0
    };
    full - TimeDelta::milliseconds(back)
}
