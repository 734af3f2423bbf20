//! What a hold withholds, for the operator who decides.
//!
//! Owns the list: what would be removed or added, and whether it is proven. Never reads upstream: what the last read
//! showed stands in the ledger.

use super::{Held, Hold};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::UserId;
use crate::domain::member::{MemberRecord, Phase, Subject};
use crate::ports::ledger::{HoldRecord, LedgerError, MEMBERS_AT_A_TIME};
use crate::reconcile::plan::Expected;

/// What would be done about one assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldAction {
    /// It is due to go. What is proven goes during the hold as well.
    Remove,
    /// It is wanted for now and would go at its end; the end is not proven to be ours to bring about.
    RemoveLater,
    /// A grant wants it and it was not given yet.
    Add,
    /// The ledger says that it is ours, but the witness saw its end: whoever holds it now was given it by somebody else.
    Leave,
}

/// One assignment that the hold has something to say about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldItem {
    /// Whose access.
    pub subject: Subject,
    /// Which.
    pub assignment: Assignment,
    /// What would be done.
    pub action: HeldAction,
    /// Whether it is proven, so that it is done during the hold.
    pub is_proven: bool,
    /// When it is to end, where a grant still wants it.
    pub ends_at: Option<Timestamp>,
    /// Whether the last read showed it; `None` when there was none.
    pub was_seen: Option<bool>,
}

/// A hold and its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldPlan {
    /// Why and since when.
    pub record: HoldRecord,
    /// Where the witness is, if there is one.
    pub witness: Option<String>,
    /// What would be done, by member.
    pub items: Vec<HeldItem>,
    /// Whether there is more than fits.
    pub is_cut: bool,
}

impl Hold {
    /// The hold with at most `limit` items of its plan; `None` when the integration is not in hold.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read.
    pub async fn plan(&self, limit: usize) -> Result<Option<HoldPlan>, LedgerError> {
        let Some(held) = self.held() else {
            return Ok(None);
        };
        let now = self.accord.clock.now();
        let mut items = Vec::new();
        let mut after: Option<UserId> = None;
        while items.len() <= limit {
            let page = self
                .accord
                .ledger
                .members(&self.integration, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in &page.items {
                held.items(record, now, &mut items);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let is_cut = items.len() > limit;
        items.truncate(limit);
        Ok(Some(HoldPlan {
            record: held.record.clone(),
            witness: self.witness_place(),
            items,
            is_cut,
        }))
    }
}

impl Held {
    fn items(&self, record: &MemberRecord, now: Timestamp, items: &mut Vec<HeldItem>) {
        let expected = Expected::of(record, now);
        let seen = |assignment: &Assignment| {
            let seen = record.last_seen.as_ref()?;
            Some(seen.assignments.contains(assignment))
        };
        let mut put = |assignment: &Assignment, action, is_proven, ends_at| {
            items.push(HeldItem {
                subject: record.key.subject.clone(),
                assignment: assignment.clone(),
                action,
                is_proven,
                ends_at,
                was_seen: seen(assignment),
            });
        };
        for row in record.owned.iter().filter(|row| row.phase == Phase::Live) {
            let is_proven = self.permits(record, row);
            if self.contradicts(record, row) {
                put(&row.assignment, HeldAction::Leave, false, None);
            } else if !expected.0.contains_key(&row.assignment) {
                put(&row.assignment, HeldAction::Remove, is_proven, None);
            } else if !is_proven {
                let ends_at = record
                    .grants
                    .iter()
                    .filter(|grant| wants(grant, &row.assignment))
                    .filter_map(Grant::ends_at)
                    .max();
                put(&row.assignment, HeldAction::RemoveLater, false, ends_at);
            }
        }
        for (assignment, waits) in &expected.0 {
            if *waits && record.owned(assignment).is_none() {
                put(assignment, HeldAction::Add, false, None);
            }
        }
    }
}

fn wants(grant: &Grant, assignment: &Assignment) -> bool {
    matches!(
        grant.state,
        GrantState::Activating { .. } | GrantState::Active { .. }
    ) && grant
        .assignments
        .iter()
        .any(|held| held.assignment == *assignment)
}
