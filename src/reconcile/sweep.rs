//! Comparing everybody who holds access through us with what upstream shows, a page at a time.
//!
//! Owns the periodic search for drift. Never changes anything itself: members that differ get a pass.

use std::collections::BTreeSet;

use super::pass::Reconciler;
use super::plan::{Expected, Snapshot, View, plan};
use super::rewind::is_ahead;
use crate::domain::ids::UserId;
use crate::domain::member::{Due, DueKind, MemberRecord, Subject};
use crate::domain::observation::{Interest, MembersRead};
use crate::ports::ledger::LedgerError;
use crate::ports::provider::Priority;

/// Members compared with one read.
const PER_READ: usize = 5_000;
/// Members loaded from the ledger at a time.
const PER_PAGE: usize = 500;

/// What a drift sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Members compared.
    pub compared: usize,
    /// Members that differ and were handed to a pass.
    pub differing: usize,
    /// Code of a read that failed.
    pub failure: Option<String>,
}

impl Reconciler {
    /// Reads the organization and hands members that differ from the ledger to a pass.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read.
    pub async fn sweep(&self) -> Result<Swept, LedgerError> {
        let mut swept = Swept::default();
        let mut after: Option<UserId> = None;
        loop {
            let mut batch = Vec::new();
            loop {
                let page = self
                    .ledger
                    .members(&self.integration, after.as_ref(), PER_PAGE)
                    .await?;
                batch.extend(
                    page.items
                        .into_iter()
                        .filter(|record| !record.owned.is_empty() || holds(record)),
                );
                // Whom the clock left behind needs no read to be told.
                let now = self.clock.now();
                for record in &batch {
                    if is_ahead(record, now, &self.settings) {
                        let due = Due {
                            at: now,
                            kind: DueKind::Look,
                            weight: 0,
                        };
                        self.mark(record, due).await?;
                    }
                }
                after = page.next;
                if after.is_none() || batch.len() >= PER_READ {
                    break;
                }
            }
            if !batch.is_empty() {
                let users: BTreeSet<UserId> = batch.iter().filter_map(user).cloned().collect();
                let interest = Interest {
                    users,
                    ..Interest::default()
                };
                match self.observer.observe(interest, Priority::Verify).await {
                    Ok(read) => {
                        for record in &batch {
                            swept.compared += 1;
                            if self.differs(record, &read) {
                                swept.differing += 1;
                                let due = Due {
                                    at: self.clock.now(),
                                    kind: DueKind::Look,
                                    weight: 0,
                                };
                                self.mark(record, due).await?;
                            }
                        }
                    }
                    Err(error) => {
                        swept.failure = Some(error.code().to_owned());
                        return Ok(swept);
                    }
                }
            }
            if after.is_none() {
                return Ok(swept);
            }
        }
    }

    fn differs(&self, record: &MemberRecord, read: &MembersRead) -> bool {
        let Some(user) = user(record) else {
            return false;
        };
        let now = self.clock.now();
        let member = read.member(user);
        let snapshot = Snapshot {
            started_at: read.started_at,
            complete: read.is_complete(),
            shown: member.is_some(),
            assignments: member
                .map(|member| member.assignments.clone())
                .unwrap_or_default(),
            owners: read.owners,
        };
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
        rejoined || (snapshot.complete && !snapshot.shown) || !plan.is_quiet()
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

fn holds(record: &MemberRecord) -> bool {
    record
        .grants
        .iter()
        .any(|grant| grant.state.name() == "active")
}
