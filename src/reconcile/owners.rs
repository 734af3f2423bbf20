//! Removals of organization owners: one at a time, and never the last.
//!
//! Owns what may be counted as an owner that is left: nobody whose own removal was sent since the read, or may still
//! land. Never counts by anything but a complete read.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::MutexGuard;

use super::pass::{Progress, Reconciler};
use super::plan::OWNER_ROLE;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::ids::UserId;
use crate::domain::member::{Backoff, MemberKey, MemberRecord, Owned, Subject, WriteKind};
use crate::domain::observation::MembersRead;
use crate::ports::ledger::{LedgerError, MEMBERS_AT_A_TIME};
use crate::ports::provider::Outcome;

/// What is known of the removals of owners that were sent.
#[derive(Debug, Default)]
pub(super) struct OwnerWrites {
    /// Under which claim it was learnt: another process may have removed owners before this one began.
    epoch: u64,
    /// From when a read must have started to count the owners that the last removal left.
    counts_from: Option<Timestamp>,
    /// Members whose removal had no answer and may land until then; not looked up yet before the first removal.
    doubtful: Option<BTreeMap<UserId, Timestamp>>,
}

/// What the ledger says of removals of owners.
#[derive(Debug)]
struct Recorded {
    counts_from: Option<Timestamp>,
    doubtful: BTreeMap<UserId, Timestamp>,
}

/// Whether an owner may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quorum {
    /// Somebody else is an owner for certain.
    Kept,
    /// Another owner was removed since the read that counted them.
    Recount(Timestamp),
    /// Nobody else is an owner for certain.
    Last,
}

impl OwnerWrites {
    /// Forgets what an earlier claim learnt.
    fn of_this_claim(&mut self, epoch: u64) -> &mut Self {
        if self.epoch != epoch {
            *self = Self {
                epoch,
                ..Self::default()
            };
        }
        self
    }

    fn take_in(&mut self, recorded: Recorded) -> &mut BTreeMap<UserId, Timestamp> {
        self.counts_from = self.counts_from.max(recorded.counts_from);
        self.doubtful.insert(recorded.doubtful)
    }

    /// Learns from the removal of one member's ownership.
    pub(super) fn sent(
        &mut self,
        user: &UserId,
        outcome: &Outcome<()>,
        counts_from: Timestamp,
        may_land_until: Timestamp,
    ) {
        let doubtful = self.doubtful.get_or_insert_default();
        match outcome {
            Outcome::Refused(..) => return,
            Outcome::Done(..) => {
                doubtful.remove(user);
            }
            Outcome::Unknown(_) => {
                doubtful.insert(user.clone(), may_land_until);
            }
        }
        self.counts_from = Some(counts_from);
    }
}

/// Those of some members whom a complete read does not count among the owners.
pub(super) fn without_role(some: BTreeSet<UserId>, read: &MembersRead) -> BTreeSet<UserId> {
    let is_owner = |user: &UserId| {
        read.member(user).is_some_and(|member| {
            member
                .assignments
                .iter()
                .any(|held| held.role == OWNER_ROLE)
        })
    };
    some.into_iter()
        .filter(|user| read.is_complete() && !is_owner(user))
        .collect()
}

pub(super) fn concerns_owners(assignments: &[Assignment]) -> bool {
    assignments
        .iter()
        .any(|assignment| assignment.role == OWNER_ROLE)
}

impl Reconciler {
    pub(super) async fn lock_owners(
        &self,
        assignments: &[Assignment],
    ) -> Option<MutexGuard<'_, OwnerWrites>> {
        if concerns_owners(assignments) {
            Some(self.owner_writes.lock().await)
        } else {
            None
        }
    }

    /// Judges the removal of an owner from the read of this pass. The caller holds the turn of owners.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read.
    pub(super) async fn quorum(
        &self,
        owners: &mut OwnerWrites,
        user: &UserId,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<Quorum, LedgerError> {
        let owners = owners.of_this_claim(self.epoch());
        if owners.doubtful.is_none() {
            owners.take_in(self.recorded_owner_writes(now).await?);
        }
        if let Some(from) = owners.counts_from
            && progress
                .snapshot
                .as_ref()
                .is_none_or(|snapshot| snapshot.started_at < from)
        {
            return Ok(Quorum::Recount(from));
        }
        let doubtful = owners.doubtful.get_or_insert_default();
        doubtful.retain(|_, until| *until > now);
        // Whoever is in doubt may be among those that the read counted, unless it showed otherwise.
        let in_doubt = doubtful
            .keys()
            .filter(|other| *other != user && !progress.not_owners.contains(*other))
            .count();
        let others = progress
            .snapshot
            .as_ref()
            .filter(|snapshot| snapshot.complete)
            .map_or(0, super::plan::Snapshot::other_owners);
        Ok(if others > in_doubt {
            Quorum::Kept
        } else {
            Quorum::Last
        })
    }

    /// Ends the pass; the next one reads late enough to count the owners that are left.
    pub(super) async fn recount_owners(
        &self,
        key: &MemberKey,
        counts_from: Timestamp,
        progress: &mut Progress,
    ) -> Result<(), LedgerError> {
        const CODE: &str = "owner_change";
        progress.snapshot = None;
        progress.stop = Some(CODE.to_owned());
        self.update(key, |draft, _| {
            draft.record.backoff = Some(Backoff {
                failures: draft
                    .record
                    .backoff
                    .as_ref()
                    .map_or(0, |backoff| backoff.failures),
                until: counts_from,
                code: CODE.to_owned(),
            });
            draft.changed = true;
        })
        .await
    }

    /// Whom a read has to show so that it tells who of them is no owner any more: those besides a member whose removal
    /// may still land. Nobody where the member owns no such role, or while another owner is being removed.
    pub(super) async fn owners_in_doubt(
        &self,
        record: &MemberRecord,
        user: &UserId,
        now: Timestamp,
    ) -> BTreeSet<UserId> {
        let is_owner = |row: &Owned| row.assignment.role == OWNER_ROLE;
        if !record.owned.iter().any(is_owner) {
            return BTreeSet::new();
        }
        let Ok(mut owners) = self.owner_writes.try_lock() else {
            return BTreeSet::new();
        };
        let owners = owners.of_this_claim(self.epoch());
        // Whoever counts them asks again, and tells what went wrong.
        if owners.doubtful.is_none()
            && let Ok(recorded) = self.recorded_owner_writes(now).await
        {
            owners.take_in(recorded);
        }
        let doubtful = owners.doubtful.iter().flatten();
        doubtful
            .filter(|(other, until)| *other != user && **until > now)
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// What an earlier process, or an earlier claim, left: removals that may still land, and from when a read shows the
    /// newest of all.
    async fn recorded_owner_writes(&self, now: Timestamp) -> Result<Recorded, LedgerError> {
        let bound = now + self.settings.unknown_look_after;
        let mut found = Recorded {
            counts_from: None,
            // What could not be recorded: the pass of its member that records it may come after this.
            doubtful: self.unrecorded.owners_that_may_land(now, bound),
        };
        let mut after: Option<UserId> = None;
        loop {
            let page = self
                .ledger
                .members(&self.integration, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in page.items {
                let Subject::Member(user) = &record.key.subject else {
                    continue;
                };
                let removed = |row: &&Owned| {
                    row.assignment.role == OWNER_ROLE && row.last_write.kind == WriteKind::Remove
                };
                for row in record.owned.iter().filter(removed) {
                    let shows_from =
                        row.last_write.at.min(now) + self.settings.bounds.read_staleness;
                    found.counts_from = found.counts_from.max(Some(shows_from));
                }
                let may_land = record
                    .owned
                    .iter()
                    .filter(|row| row.assignment.role == OWNER_ROLE)
                    .filter_map(|row| row.removal_echo_until)
                    .max();
                if let Some(until) = may_land.filter(|until| *until > now) {
                    let known = found.doubtful.entry(user.clone()).or_insert(until);
                    *known = until.max(*known);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }
}
