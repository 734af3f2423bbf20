//! Questions about everybody to the ledger in memory.
//!
//! Owns counting and paging through members. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{State, receipts};
use crate::domain::Timestamp;
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{MemberKey, MemberRecord, Subject};
use crate::ports::ledger::{Census, Page};
use crate::store::rows::{self, REMOVALS_END, page};
use crate::store::tally::Tally;

fn open_grants(state: &State) -> impl Iterator<Item = &Grant> {
    let open = state.open.values().flatten();
    open.filter_map(|id| state.grants.get(id))
}

/// A page of those who hold something, or of whom something is watched.
pub(super) fn members(
    state: &State,
    integration: &IntegrationName,
    after: Option<&UserId>,
    limit: usize,
) -> Page<MemberRecord, UserId> {
    let owning = state
        .members
        .values()
        .filter(|record| {
            !(record.owned.is_empty() && record.watched.is_empty() && record.drifts.is_empty())
        })
        .map(|record| &record.key);
    let ids: BTreeSet<&UserId> = state
        .open
        .keys()
        .chain(owning)
        .filter(|key| key.integration == *integration)
        .filter_map(|key| match &key.subject {
            Subject::Member(id) => Some(id),
            Subject::Invitee(_) => None,
        })
        .filter(|id| after.is_none_or(|after| *id > after))
        .collect();
    let ids = ids.into_iter().take(limit.saturating_add(1)).collect();
    let Page { items, next } = page(ids, limit, |id: &&UserId| (*id).clone());
    let items = items
        .into_iter()
        .map(|id| {
            state.assembled(&MemberKey {
                integration: integration.clone(),
                subject: Subject::Member(id.clone()),
            })
        })
        .collect();
    Page { items, next }
}

/// What is open, due and late.
pub(super) fn census(state: &State, now: Timestamp) -> Census {
    let mut grants: BTreeMap<(IntegrationName, String), u64> = BTreeMap::new();
    for grant in open_grants(state) {
        let key = (grant.integration.clone(), grant.state.name().to_owned());
        *grants.entry(key).or_default() += 1;
    }
    let mut census = Census {
        grants: grants
            .into_iter()
            .map(|((integration, state), count)| (integration, state, count))
            .collect(),
        ..Census::default()
    };
    let mut tally = Tally::default();
    for (key, record) in &state.members {
        if !record.owned.is_empty() {
            let blocked = rows::blocked(record) as u64;
            tally.owns(&key.integration, record.owned.len() as u64, blocked);
        }
    }
    for (integration, dues) in &state.dues {
        let due = dues.range(..REMOVALS_END).flat_map(|(_, bucket)| bucket);
        for (at, _) in due.filter(|(at, _)| State::is_overdue(*at, now)) {
            if let Ok(at) = rows::instant(*at) {
                tally.overdue(integration, 1, at);
            }
        }
    }
    for grant in open_grants(state) {
        if let GrantState::Revoking { since, .. } = grant.state {
            tally.revoking(&grant.integration, since);
        }
    }
    tally.into_census(&mut census);
    census.late = receipts::late_removals(state, now);
    census.open_reviews = state.open_reviews();
    census
}
