//! Counting removals, for every adapter alike.
//!
//! Owns the sums of a [`Census`] and what counts as the oldest removal. Never reads a store.

use std::collections::BTreeMap;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::{Census, Removals};

/// What was counted so far, by integration.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    removals: BTreeMap<IntegrationName, Removals>,
    oldest_unsent: Option<Timestamp>,
}

impl Tally {
    fn of(&mut self, integration: &IntegrationName) -> &mut Removals {
        self.removals
            .entry(integration.clone())
            .or_insert_with(|| Removals::new(integration.clone()))
    }

    /// Assignments that are owned, and how many of their removals are blocked.
    pub(crate) fn owns(&mut self, integration: &IntegrationName, owned: u64, blocked: u64) {
        let entry = self.of(integration);
        entry.owned += owned;
        entry.blocked += blocked;
    }

    /// Members whose removal is due and not sent, the first since `oldest`.
    pub(crate) fn overdue(
        &mut self,
        integration: &IntegrationName,
        members: u64,
        oldest: Timestamp,
    ) {
        let entry = self.of(integration);
        entry.overdue += members;
        entry.due_since(oldest);
        self.oldest_unsent = Some(self.oldest_unsent.map_or(oldest, |first| first.min(oldest)));
    }

    /// A grant that has been due to go since `since` and was not seen gone.
    pub(crate) fn revoking(&mut self, integration: &IntegrationName, since: Timestamp) {
        self.of(integration).due_since(since);
    }

    /// Writes the sums down.
    pub(crate) fn into_census(self, census: &mut Census) {
        census.removals = self.removals.into_values().collect();
        census.owned = census.removals.iter().map(|entry| entry.owned).sum();
        census.blocked = census.removals.iter().map(|entry| entry.blocked).sum();
        census.overdue = census.removals.iter().map(|entry| entry.overdue).sum();
        census.oldest_overdue = self.oldest_unsent;
    }
}
