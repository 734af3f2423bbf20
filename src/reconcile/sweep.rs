//! Comparing everybody who holds access through us with what upstream shows, with one read.
//!
//! Owns the periodic search for drift. Who looks as when nothing was left to find out is neither loaded nor kept of the
//! read, so that memory does not grow with the grants. Never changes anything itself: members that differ get a pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::drift::Reapply;
use super::look::snapshot_of;
use super::metrics;
use super::pass::Reconciler;
use super::plan::{Expected, Plan, View, plan};
use super::rewind::is_ahead;
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::drift::{DriftAction, DriftKind, OpenDrift};
use crate::domain::ids::UserId;
use crate::domain::member::{Due, DueKind, LastSeen, MemberKey, MemberRecord, Subject};
use crate::domain::observation::{Interest, MembersRead};
use crate::domain::sight::Known;
use crate::ports::ledger::{LedgerError, Sighted};
use crate::ports::provider::Priority;

/// Members listed by the ledger at a time.
const PER_PAGE: usize = 1_000;

/// What a drift sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Members compared.
    pub compared: usize,
    /// Of those, members that had to be loaded.
    pub loaded: usize,
    /// Members that differ and were handed to a pass.
    pub differing: usize,
    /// Differences that are open.
    pub open: u64,
    /// Code of a read that failed.
    pub failure: Option<String>,
}

/// What the records say without any read.
#[derive(Debug, Default)]
struct Counted {
    drifts: BTreeMap<DriftKind, u64>,
    held: u64,
}

impl Counted {
    fn count(&mut self, record: &MemberRecord) {
        for open in &record.drifts {
            *self.drifts.entry(open.kind).or_default() += 1;
        }
        let held = |open: &OpenDrift| matches!(open.action, DriftAction::Held { .. });
        self.held += u64::from(record.drifts.iter().any(held));
    }

    fn publish(&self, reconciler: &Reconciler) {
        let board = reconciler.observer.board();
        board.count_held(self.held);
        let integration = &reconciler.integration;
        metrics::drift_open(integration, &self.drifts);
        metrics::breaker(integration, board.is_breaker_open());
        metrics::key_refused(integration, board.is_key_refused(reconciler.provider.pin()));
    }
}

impl Reconciler {
    /// Reads the organization and hands members that differ from the ledger to a pass.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read.
    pub async fn sweep(&self) -> Result<Swept, LedgerError> {
        self.unrecorded.flush(&*self.ledger).await;
        self.notice_key().await;
        let mut swept = Swept::default();
        let mut counted = Counted::default();
        let mut known = self.known(&mut swept, &mut counted).await?;
        while !known.is_empty() {
            match self.compare(known, &mut swept).await? {
                Ok(rest) => known = rest,
                Err(code) => {
                    swept.failure = Some(code);
                    return Ok(swept);
                }
            }
        }
        counted.publish(self);
        swept.open = counted.drifts.values().sum();
        Ok(swept)
    }

    /// Everybody to be compared, and how those should look about whom nothing is left to find out. The others are
    /// loaded, one by one.
    async fn known(&self, swept: &mut Swept, counted: &mut Counted) -> Result<Known, LedgerError> {
        let reads_watched = self.reads_watched();
        let mut known = Known::new();
        let mut after: Option<UserId> = None;
        loop {
            let page = self
                .ledger
                .sights(&self.integration, after.as_ref(), PER_PAGE)
                .await?;
            for Sighted { user, settled } in page.items {
                let now = self.clock.now();
                if let Some(settled) = settled.filter(|settled| settled.until > now) {
                    known.push(&user, Some(settled.sight));
                    continue;
                }
                let record = self.load(&user, swept).await?;
                counted.count(&record);
                // Whom the clock left behind needs no read to be told.
                if is_ahead(&record, now, &self.settings) {
                    let due = Due {
                        at: now,
                        kind: DueKind::Look,
                        weight: 0,
                    };
                    self.mark(&record, due).await?;
                }
                let only_watched = is_watched(&record) && reads_watched;
                if !record.owned.is_empty() || holds(&record) || only_watched {
                    known.push(&user, None);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(known);
            }
        }
    }

    /// Compares with one read. Answers those for whom it had no room, or the code of its failure.
    async fn compare(
        &self,
        known: Known,
        swept: &mut Swept,
    ) -> Result<Result<Known, String>, LedgerError> {
        let known = Arc::new(known);
        let interest = Interest::known(Arc::clone(&known));
        let read = match self.observer.observe(interest, Priority::Verify).await {
            Ok(read) => read,
            Err(error) => return Ok(Err(error.code().to_owned())),
        };
        let Some(met) = read.recognized(&known) else {
            return Ok(Err("nobody_recognized".to_owned()));
        };
        swept.compared += met.alike();
        let mut rest = Known::new();
        for (user, is_shown) in met.others() {
            if is_shown && read.member(&user).is_none() {
                rest.push(&user, None);
                continue;
            }
            swept.compared += 1;
            let record = self.load(&user, swept).await?;
            // A pass that read later knows better.
            let is_older = record
                .last_seen
                .as_ref()
                .is_some_and(|seen| seen.at > read.started_at);
            if record.version == 0 || is_older {
                continue;
            }
            self.look_at_watched(&record, &read).await?;
            if self.differs(&record, &read) {
                swept.differing += 1;
                let due = Due {
                    at: self.clock.now(),
                    kind: DueKind::Look,
                    weight: 0,
                };
                self.mark(&record, due).await?;
            }
        }
        Ok(Ok(rest))
    }

    async fn load(&self, user: &UserId, swept: &mut Swept) -> Result<MemberRecord, LedgerError> {
        swept.loaded += 1;
        let key = MemberKey {
            integration: self.integration.clone(),
            subject: Subject::Member(user.clone()),
        };
        self.ledger.member(&key).await
    }

    /// Whether members are read of whom something is only watched: that need not be every time.
    fn reads_watched(&self) -> bool {
        let now = self.clock.now();
        let mut last = self
            .watched_at
            .lock()
            .expect("no code panics while it holds this lock");
        let is_due = last.is_none_or(|at| at + self.settings.watch_every <= now);
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    /// What ended and is there again is written down, and what no longer differs is closed. It takes no pass: nothing
    /// is sent for it, whatever it is.
    async fn look_at_watched(
        &self,
        record: &MemberRecord,
        read: &MembersRead,
    ) -> Result<(), LedgerError> {
        let Some(user) = user(record).filter(|_| is_watched(record)) else {
            return Ok(());
        };
        let snapshot = snapshot_of(user, read);
        let idle = |record: &MemberRecord| record.owned.is_empty() && record.grants.is_empty();
        let now = self.clock.now();
        let look = |draft: &mut Draft, now: Timestamp| {
            if idle(&draft.record) {
                // Nobody else looks at these.
                draft.settle_drifts(&Plan::default(), Some(&snapshot), now, &self.settings);
            } else {
                draft.watch(&snapshot, now);
            }
        };
        let mut trial = Draft::new(record.clone());
        look(&mut trial, now);
        if !trial.changed {
            return Ok(());
        }
        self.update(&record.key, look).await
    }

    pub(super) fn differs(&self, record: &MemberRecord, read: &MembersRead) -> bool {
        let Some(user) = user(record) else {
            return false;
        };
        let now = self.clock.now();
        let member = read.member(user);
        let snapshot = snapshot_of(user, read);
        let expected = Expected::of(record, now);
        let view = View {
            expected: &expected,
            owned: &record.owned,
            snapshot: Some(&snapshot),
            last_seen: None,
            reads_fail: false,
        };
        let rejoined = member.is_some_and(|member| {
            record
                .member_since
                .is_some_and(|since| since < member.member_since)
        });
        let plan = plan(&view, now, &self.settings.bounds);
        // Standing access beside ours has to be known before ours goes.
        let unknown_neighbour = snapshot.assignments.iter().any(|held| {
            let known = |seen: &LastSeen| seen.assignments.contains(held);
            record.owned(held).is_none()
                && !record.last_seen.as_ref().is_some_and(known)
                && record
                    .owned
                    .iter()
                    .any(|row| held.is_neighbour_of(&row.assignment))
        });
        // The marks of a login are told from one read to the next, so the last one has to be known.
        let changed = self.settings.reapply != Reapply::Never
            && holds(record)
            && snapshot.complete
            && record
                .last_seen
                .as_ref()
                .is_some_and(|seen| seen.assignments != snapshot.assignments);
        rejoined
            || changed
            || unknown_neighbour
            || (snapshot.complete && !snapshot.shown)
            || !plan.is_quiet()
    }

    /// The pass looks for itself: a member is marked as owing a look now.
    async fn mark(&self, record: &MemberRecord, due: Due) -> Result<(), LedgerError> {
        self.update(&record.key, |draft, now| {
            draft.record.check_at = Some(now);
            draft.record.due = Some(draft.record.due.map_or(due, |earlier| earlier.min(due)));
            draft.changed = true;
        })
        .await?;
        self.wake.wake(&record.key, due);
        Ok(())
    }
}

fn user(record: &MemberRecord) -> Option<&UserId> {
    match &record.key.subject {
        Subject::Member(user) => Some(user),
        Subject::Invitee(_) => None,
    }
}

fn is_watched(record: &MemberRecord) -> bool {
    !(record.watched.is_empty() && record.drifts.is_empty())
}

fn holds(record: &MemberRecord) -> bool {
    record
        .grants
        .iter()
        .any(|grant| grant.state.name() == "active")
}
