//! Access that should be gone and is not.
//!
//! Owns what an operator is told of each overdue removal. Never changes anything, and shows the grants of every caller:
//! whoever runs the connector answers for all of them.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::evidence::Proposal;
use crate::domain::grant::{Grant, GrantState, LastError};
use crate::domain::ids::{GrantId, IntegrationName};
use crate::domain::member::{MemberRecord, Owned, Subject};
use crate::domain::overdue::{GRACE, removal_due_at};
use crate::ports::ledger::{LateCursor, Page};

use super::Service;
use super::error::Result;

/// Access that should be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueAccess {
    /// Which organization.
    pub integration: IntegrationName,
    /// Who holds it.
    pub subject: Subject,
    /// The member as a caller wrote it, where a grant is left that says so.
    pub beneficiary: Option<String>,
    /// What.
    pub assignment: Assignment,
    /// Grants that wait for its removal.
    pub grant_ids: Vec<GrantId>,
    /// Since when it should be gone.
    pub due_at: Timestamp,
    /// Times that a removal was begun.
    pub attempts: u32,
    /// The last thing that went wrong, with its remedy.
    pub last_error: Option<LastError>,
    /// Code for which its removal is blocked.
    pub blocked_code: Option<String>,
    /// When it is tried next.
    pub next_try_at: Option<Timestamp>,
    /// A proposal to give it up.
    pub proposal: Option<Proposal>,
}

/// A place in the list of overdue removals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueCursor {
    /// Which organization.
    pub integration: IntegrationName,
    /// Where in it; `None` at its beginning.
    pub after: Option<LateCursor>,
}

impl Service {
    /// Overdue removals of one integration or of all, the longest due first within each; `limit` members at most.
    ///
    /// # Errors
    /// [`super::ServiceError::UnknownIntegration`], and failures of the ledger.
    pub async fn list_overdue(
        &self,
        integration: Option<&IntegrationName>,
        grace: Option<TimeDelta>,
        from: Option<OverdueCursor>,
        limit: usize,
    ) -> Result<Page<OverdueAccess, OverdueCursor>> {
        let now = self.clock.now();
        let until = now - grace.unwrap_or(GRACE);
        let names: Vec<IntegrationName> = match integration {
            Some(name) => vec![self.integration(Some(name))?.name.clone()],
            None => self.integrations.keys().cloned().collect(),
        };
        let mut items = Vec::new();
        let mut looked_at = 0;
        for name in names {
            let mut after = None;
            if let Some(from) = &from {
                if name < from.integration {
                    continue;
                }
                if name == from.integration {
                    after.clone_from(&from.after);
                }
            }
            if looked_at >= limit {
                let next = Some(OverdueCursor {
                    integration: name,
                    after,
                });
                return Ok(Page { items, next });
            }
            let page = self
                .ledger
                .late(&name, until, after.as_ref(), limit - looked_at)
                .await?;
            looked_at += page.items.len();
            for record in &page.items {
                items.extend(overdue_of(record, until, now));
            }
            if let Some(after) = page.next {
                let next = Some(OverdueCursor {
                    integration: name,
                    after: Some(after),
                });
                return Ok(Page { items, next });
            }
        }
        Ok(Page { items, next: None })
    }
}

/// The overdue removals of one member, the longest due first. Pure.
#[must_use]
pub fn overdue_of(record: &MemberRecord, until: Timestamp, now: Timestamp) -> Vec<OverdueAccess> {
    let mut found: Vec<OverdueAccess> = record
        .owned
        .iter()
        .filter_map(|row| {
            let due_at = removal_due_at(record, row).filter(|at| *at <= until)?;
            Some(describe(record, row, due_at, now))
        })
        .collect();
    found.sort_by(|a, b| {
        let weight = b.assignment.weight().cmp(&a.assignment.weight());
        a.due_at.cmp(&b.due_at).then(weight)
    });
    found
}

fn describe(
    record: &MemberRecord,
    row: &Owned,
    due_at: Timestamp,
    now: Timestamp,
) -> OverdueAccess {
    let waiting: Vec<&Grant> = record
        .grants
        .iter()
        .filter(|grant| {
            matches!(
                grant.state,
                GrantState::Revoking { .. }
                    | GrantState::Activating { .. }
                    | GrantState::Active { .. }
            ) && grant
                .assignments
                .iter()
                .any(|held| held.assignment == row.assignment)
        })
        .collect();
    let told = waiting
        .iter()
        .filter_map(|grant| grant.last_error.clone())
        .max_by_key(|error| error.at);
    let last_error = told.or_else(|| {
        record.backoff.as_ref().map(|backoff| LastError {
            code: backoff.code.clone(),
            message:
                "the last call did not do it; it is tried again, and `latchkey doctor` says what is wrong"
                    .to_owned(),
            at: backoff.until.min(now),
        })
    });
    let intents = record
        .evidence
        .trail(&row.assignment)
        .map_or(0, |trail| trail.removed.intents);
    let blocked = row.blocked.as_ref();
    OverdueAccess {
        integration: record.key.integration.clone(),
        subject: record.key.subject.clone(),
        beneficiary: waiting.first().map(|grant| grant.beneficiary.clone()),
        assignment: row.assignment.clone(),
        grant_ids: waiting.iter().map(|grant| grant.id).collect(),
        due_at,
        attempts: intents.max(row.attempts),
        last_error,
        blocked_code: blocked.map(|blocked| blocked.code.clone()),
        next_try_at: blocked
            .map(|blocked| blocked.retry_at)
            .or(record.due.map(|due| due.at)),
        proposal: record.evidence.proposal(&row.assignment, now).cloned(),
    }
}
