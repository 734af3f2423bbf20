//! Writing facts into a member record: what time, reads and answers mean for grants and ownership. Pure.
//!
//! Owns the changes to a [`MemberRecord`] that time and reads cause, together with their audit events; those that our
//! own calls cause stand in `intent`. Never calls anything, and never clears ownership on a guess.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::Settings;
use super::drift::Verdict;
use super::metrics::Step;
use super::plan::{Expected, Plan, Snapshot};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::drift::{DriftAction, DriftKind};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, Holding, LastError};
use crate::domain::member::{Blocked, LastSeen, MemberRecord, Owned, Phase, WriteKind};

/// A record being changed, and the audit of the changes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The record as it will be stored.
    pub record: MemberRecord,
    /// Events of the same transaction.
    pub audit: Vec<AuditEvent>,
    /// Whether anything changed that must be durable.
    pub changed: bool,
    /// What is decided about access that somebody else took away.
    pub verdict: Verdict,
    /// How long steps of grants took, counted once they are durable.
    pub steps: Vec<Step>,
}

impl Draft {
    /// Starts from a record as loaded.
    #[must_use]
    pub fn new(record: MemberRecord) -> Self {
        Self {
            record,
            audit: Vec::new(),
            changed: false,
            verdict: Verdict::End,
            steps: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, now: Timestamp, kind: EventKind) {
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
            self.steps.extend(Step::between(&before, grant));
            if before.name() != grant.state.name() {
                self.audit
                    .push(AuditEvent::grant(now, grant, changed_event(&before, grant)));
            }
        }
    }

    /// Moves grants as far as time alone moves them.
    pub fn advance(&mut self, now: Timestamp, settings: &Settings) {
        self.each_grant(now, |grant| {
            let too_long = matches!(&grant.state, GrantState::Activating { since, .. }
                if *since + settings.activation_timeout <= now);
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
            self.remember(snapshot, settings);
            self.settle_rows(plan, snapshot, now, settings);
        }
        self.settle_survivors(plan, now);
        self.settle_last_owner(plan, now, settings);
        self.settle_missing(plan, now, settings);
        if snapshot.is_some() {
            self.activate(plan, now, settings);
        }
        self.finish(now);
        self.settle_drifts(plan, snapshot, now, settings);
        self.forget_reapplied();
    }

    fn remember(&mut self, snapshot: &Snapshot, settings: &Settings) {
        if !snapshot.shown {
            return;
        }
        let earlier = self.record.last_seen.as_ref();
        let mut assignments = snapshot.assignments.clone();
        let mut at = snapshot.started_at;
        if let (false, Some(earlier)) = (snapshot.complete, earlier) {
            // A filtered read adds to what is known to be there, takes nothing from it, and does not make it any newer.
            assignments.extend(earlier.assignments.iter().cloned());
            at = earlier.at;
        }
        // Stored when it shows something else, or for the first time what certainly came of a write.
        let is_news = earlier.is_none_or(|seen| {
            let settles = |row: &Owned| {
                let landed = landed_by(row, settings);
                seen.at <= landed && landed < at
            };
            seen.assignments != assignments || self.record.owned.iter().any(settles)
        });
        self.changed |= is_news;
        self.record.last_seen = Some(LastSeen { at, assignments });
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
            let Some(row) = self.record.owned_mut(assignment) else {
                continue;
            };
            // What was refused earlier does not hold up the next removal of what is wanted again.
            self.changed |= row.blocked.take().is_some();
            if !row.seen {
                row.seen = true;
                row.attempts = 0;
                present.push(assignment.to_string());
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
                    // Another grant added it: this one shares it.
                    if plan.present.contains(&held.assignment) && held.holding != Holding::Owned {
                        held.holding = Holding::Owned;
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
                row.removal_echo_until = None;
                self.changed = true;
            }
        }
        for assignment in &plan.resurrected {
            if let Some(row) = self.record.owned_mut(assignment) {
                row.phase = Phase::Live;
                self.changed = true;
            }
        }
        for assignment in &plan.taken_along {
            // As if it had never been seen: it is added also when the removal that took it along is closed meanwhile.
            if let Some(row) = self.record.owned_mut(assignment) {
                row.seen = false;
                self.changed = true;
            }
        }
        for assignment in &plan.closed {
            self.watch_closed(assignment, now, settings);
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
                    self.open_drift(
                        now,
                        DriftKind::SurvivorMissing,
                        assignment,
                        DriftAction::GivenUp,
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

    fn activate(&mut self, plan: &Plan, now: Timestamp, settings: &Settings) {
        let mut activated = false;
        self.each_grant(now, |grant| {
            let verified = grant.expects_access(now)
                && grant.assignments.iter().all(|held| {
                    plan.present.contains(&held.assignment)
                        || plan.covered.contains(&held.assignment)
                });
            let became = verified && grant.activate(now);
            activated |= became;
            // What was given once more to an active grant is verified once more.
            let settled = verified && grant.certainty != Certainty::Verified;
            if settled {
                grant.certainty = Certainty::Verified;
                grant.last_error = None;
            }
            became || settled
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
            // Whoever left holds nothing: there are no neighbours to put back.
            row.must_survive.clear();
            if row.phase == Phase::Live && row.since < before {
                let look_at = row
                    .echo_until
                    .unwrap_or(now)
                    .max(now + settings.bounds.request_lifetime);
                row.phase = Phase::Closing {
                    gone_at: now,
                    look_at,
                };
                row.blocked = None;
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

    /// The member left and came back. Ownership belonged to the earlier membership: what the new one holds was given
    /// by somebody else, unless a call of ours may have landed in it: one of unknown outcome, or one that was sent so
    /// shortly before the earlier membership was last seen that upstream may still have carried it out afterwards.
    pub fn member_rejoined(
        &mut self,
        read_started_at: Timestamp,
        member_since: Timestamp,
        now: Timestamp,
        settings: &Settings,
    ) {
        let may_land: BTreeSet<Assignment> = self
            .record
            .owned
            .iter()
            .filter(|row| self.may_land_after_sight(row, settings))
            .map(|row| row.assignment.clone())
            .collect();
        self.member_left(read_started_at, member_since, now, settings);
        self.record.member_since = Some(member_since);
        let (kept, dropped): (Vec<Owned>, Vec<Owned>) = std::mem::take(&mut self.record.owned)
            .into_iter()
            .partition(|row| {
                // Written down until a read has shown what came of it: it may have landed since the membership began.
                row.since >= member_since
                    || row.echo_until.is_some()
                    || (row.last_write.kind == WriteKind::Add && row.last_write.at >= member_since)
                    || may_land.contains(&row.assignment)
            });
        self.record.owned = kept;
        for row in dropped {
            let assignment = row.assignment.to_string();
            self.note(now, EventKind::SecondLook { assignment });
        }
    }

    /// Whether upstream may have carried out the last write of a row after the earlier membership was last seen, or the
    /// row seen gone. Both instants are of our own clock, which need not agree with the one that dates memberships.
    fn may_land_after_sight(&self, row: &Owned, settings: &Settings) -> bool {
        let seen = match row.phase {
            Phase::Closing { gone_at, .. } => Some(gone_at),
            Phase::Live => self.record.last_seen.as_ref().map(|seen| seen.at),
        };
        seen.is_none_or(|seen| landed_by(row, settings) >= seen)
    }
}

/// When the last write of a row has been carried out for the last time, if it was answered.
fn landed_by(row: &Owned, settings: &Settings) -> Timestamp {
    row.last_write.at + settings.bounds.request_lifetime + settings.bounds.read_staleness
}

impl Draft {
    /// Notes something about an assignment that is no drift of its own: it neither stays open nor ends.
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
    let back = i64::try_from(spread % 1000).unwrap_or(0) * quarter / 1000;
    full - TimeDelta::milliseconds(back)
}
