//! When access ends, for the ledger in memory: the index that a database would keep.
//!
//! Owns the order of removals that will fall due, by integration and instant. Never decides what is due.

use std::collections::{BTreeMap, BTreeSet};

use super::rows;
use crate::domain::Timestamp;
use crate::domain::grant::Grant;
use crate::domain::ids::{GrantId, IntegrationName};

/// Removals that will fall due.
#[derive(Debug, Clone, Default)]
pub(super) struct EndingIndex {
    by_time: BTreeMap<IntegrationName, BTreeSet<(i64, String, GrantId)>>,
}

impl EndingIndex {
    pub(super) fn insert(&mut self, grant: &Grant) {
        if let Some(entry) = entry(grant) {
            let entries = self.by_time.entry(grant.integration.clone()).or_default();
            entries.insert(entry);
        }
    }

    pub(super) fn remove(&mut self, grant: &Grant) {
        if let Some(entry) = entry(grant)
            && let Some(entries) = self.by_time.get_mut(&grant.integration)
        {
            entries.remove(&entry);
        }
    }

    /// Members by second.
    pub(super) fn count(
        &self,
        integration: &IntegrationName,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<(Timestamp, u64)> {
        let range = rows::micros(from)..rows::micros(until);
        let mut seconds: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
        let first = (
            range.start,
            String::new(),
            GrantId::from_uuid(uuid::Uuid::nil()),
        );
        for (at, subject, _) in self
            .by_time
            .get(integration)
            .into_iter()
            .flat_map(|entries| entries.range(first.clone()..))
            .take_while(|(at, ..)| range.contains(at))
        {
            let second = at.div_euclid(1_000_000);
            seconds.entry(second).or_default().insert(subject);
        }
        seconds
            .into_iter()
            .filter_map(|(second, subjects)| {
                let at = rows::instant(second * 1_000_000).ok()?;
                Some((at, subjects.len() as u64))
            })
            .collect()
    }
}

fn entry(grant: &Grant) -> Option<(i64, String, GrantId)> {
    let at = grant.removal_due()?;
    Some((rows::micros(at), grant.subject.to_string(), grant.id))
}
