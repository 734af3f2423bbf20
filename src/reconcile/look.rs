//! Looking: when a pass reads, and what a read means for the member.
//!
//! Owns noticing members who leave, members who come back, and keys that see too little. Never reads when nothing
//! could be settled by it.

use super::explain::{explain_incomplete, explain_read};
use super::owners::without_role;
use super::pass::{Progress, Reconciler};
use super::plan::{Plan, Snapshot};
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::grant::GrantState;
use crate::domain::ids::UserId;
use crate::domain::member::{MemberKey, MemberRecord, WriteKind};
use crate::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::Priority;

/// Marks a pause that a failed or useless read caused.
pub(super) const READ_FAILURE: &str = "read/";

impl Reconciler {
    /// Makes or joins a read if one would settle something. Answers whether it changed what is known.
    pub(super) async fn observe(
        &self,
        record: &MemberRecord,
        plan: &Plan,
        user: &UserId,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        // A read that this pass made too late to be too early, and that cannot confirm anything, is not repeated at once.
        let is_in_vain = |at: &Timestamp| {
            progress
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| !snapshot.complete && snapshot.started_at >= *at)
        };
        let absent_due = record
            .absent_since
            .map(|since| since + self.settings.absence_confirm)
            .filter(|at| !is_in_vain(at));
        let wanted = [plan.observe_at, absent_due, record.check_at]
            .into_iter()
            .flatten()
            .min();
        let due = progress.must_read || wanted.is_some_and(|at| at <= now);
        if !due || plan.blind || progress.stop.is_some() || self.nothing_to_look_at(record) {
            return Ok(false);
        }
        progress.must_read = false;
        let priority = if plan.removal_waits {
            Priority::Revoke
        } else {
            Priority::Verify
        };
        let doubtful = self.owners_in_doubt(record, user, now).await;
        let mut interest = Interest::user(user.clone());
        interest.users.extend(doubtful.iter().cloned());
        let read = self.observer.observe(interest, priority).await;
        progress.report.reads += 1;
        match read {
            Ok(read) => {
                progress.not_owners = without_role(doubtful, &read);
                progress.snapshot = self.take_in(&record.key, user, &read).await?;
                Ok(true)
            }
            Err(error) => {
                progress.stop = Some(error.code().to_owned());
                let last_error = explain_read(&error, self.clock.now());
                self.update(&record.key, |draft, now| {
                    draft.each_grant(now, |grant| {
                        let waiting = matches!(
                            grant.state,
                            GrantState::Activating { .. } | GrantState::Revoking { .. }
                        );
                        if waiting {
                            grant.last_error = Some(last_error.clone());
                            grant.attempts += 1;
                        }
                        waiting
                    });
                    self.back_off(draft, &format!("{READ_FAILURE}{}", last_error.code), now);
                })
                .await?;
                Ok(true)
            }
        }
    }

    pub(super) fn nothing_to_look_at(&self, record: &MemberRecord) -> bool {
        record.grants.is_empty() && record.owned.is_empty()
    }

    /// Turns a read into a snapshot of the member; notices joining, leaving and keys that see too little.
    async fn take_in(
        &self,
        key: &MemberKey,
        user: &UserId,
        read: &MembersRead,
    ) -> Result<Option<Snapshot>, LedgerError> {
        let member = read.member(user);
        let snapshot = snapshot_of(user, read);
        self.update(key, |draft, now| {
            let checked = draft.record.check_at.take();
            draft.changed |= checked.is_some();
            if checked.is_some_and(|at| at > now) {
                draft.record.check_at = checked;
            } else if checked.is_some() {
                draft.record.check_at = self.next_check(&draft.record, now);
            }
            match member {
                Some(member) => self.take_in_shown(draft, member, read, now),
                None if read.is_complete() => self.take_in_absent(draft, read, now),
                None => {}
            }
            if let Some(incomplete) = read.incomplete {
                self.fail_blind(draft, incomplete, now);
            }
        })
        .await?;
        Ok(Some(snapshot))
    }

    fn take_in_shown(
        &self,
        draft: &mut Draft,
        member: &ObservedMember,
        read: &MembersRead,
        now: Timestamp,
    ) {
        if draft.record.absent_since.take().is_some() {
            draft.changed = true;
        }
        match draft.record.member_since {
            Some(known) if known < member.member_since => {
                draft.member_rejoined(read.started_at, member.member_since, now, &self.settings);
            }
            Some(_) => {}
            None => {
                draft.record.member_since = Some(member.member_since);
                draft.changed = true;
            }
        }
    }

    fn take_in_absent(&self, draft: &mut Draft, read: &MembersRead, now: Timestamp) {
        match draft.record.absent_since {
            Some(since) if read.started_at >= since + self.settings.absence_confirm => {
                draft.member_left(read.started_at, now, now, &self.settings);
            }
            Some(_) => {}
            None if self.nothing_to_look_at(&draft.record) => {}
            None => {
                draft.record.absent_since = Some(read.started_at);
                draft.changed = true;
            }
        }
    }

    /// A key that does not see what an owner sees can prove nothing, so nothing new is given with it.
    fn fail_blind(&self, draft: &mut Draft, incomplete: Incomplete, now: Timestamp) {
        let error = explain_incomplete(incomplete, now);
        let untouched: Vec<Assignment> = draft
            .record
            .grants
            .iter()
            .flat_map(|grant| &grant.assignments)
            .map(|held| held.assignment.clone())
            .filter(|assignment| draft.record.owned(assignment).is_none())
            .collect();
        draft.fail_activation(&untouched, &error, now);
        draft.blame(
            WriteKind::Remove,
            &owned_assignments(&draft.record),
            &error,
            now,
        );
        self.back_off(draft, &format!("{READ_FAILURE}{}", error.code), now);
    }

    fn next_check(&self, record: &MemberRecord, now: Timestamp) -> Option<Timestamp> {
        record
            .grants
            .iter()
            .filter_map(|grant| {
                if let GrantState::Active { activated_at, .. } = grant.state {
                    Some(activated_at + self.settings.second_check)
                } else {
                    None
                }
            })
            .filter(|at| *at > now)
            .min()
            .map(|at| at.min(now + self.settings.second_check))
    }
}

/// What a read shows of one member.
pub(super) fn snapshot_of(user: &UserId, read: &MembersRead) -> Snapshot {
    let member = read.member(user);
    Snapshot {
        started_at: read.started_at,
        complete: read.is_complete(),
        shown: member.is_some(),
        assignments: member
            .map(|member| member.assignments.clone())
            .unwrap_or_default(),
        owners: read.owners,
    }
}

fn owned_assignments(record: &MemberRecord) -> Vec<Assignment> {
    record
        .owned
        .iter()
        .map(|row| row.assignment.clone())
        .collect()
}
