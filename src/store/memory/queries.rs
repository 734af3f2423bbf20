//! Questions about everybody to the ledger in memory.
//!
//! Owns counting, what is due, and paging through members. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{State, receipts};
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{MemberKey, MemberRecord, Subject};
use crate::ports::ledger::{Census, DueMember, LedgerError, Page, Result};
use crate::store::filter::names;
use crate::store::rows::{self, REMOVALS_END, page};
use crate::store::tally::Tally;

fn open_grants(state: &State) -> impl Iterator<Item = &Grant> {
    let open = state.open.values().flatten();
    open.filter_map(|id| state.grants.get(id))
}

/// Who is due until then, the most urgent first.
pub(super) fn due(
    state: &State,
    integration: &IntegrationName,
    until: Timestamp,
    limit: usize,
    action: &'static str,
) -> Result<Vec<DueMember>> {
    let unreadable =
        |source: Box<dyn std::error::Error + Send + Sync>| LedgerError::Corrupt { action, source };
    let mut found = Vec::new();
    let buckets = state.dues.get(integration).into_iter().flatten();
    for (rank, bucket) in buckets {
        let ripe = bucket
            .iter()
            .take_while(|(at, _)| State::is_overdue(*at, until))
            .take(limit - found.len());
        for (at, subject) in ripe {
            let subject = Subject::parse(subject).map_err(|error| unreadable(error.into()))?;
            found.push(DueMember {
                key: MemberKey {
                    integration: integration.clone(),
                    subject,
                },
                due: rows::due(*at, *rank).map_err(|error| unreadable(error.into()))?,
            });
        }
    }
    Ok(found)
}

/// The first instant after this one at which somebody is due.
pub(super) fn next_due(
    state: &State,
    integration: &IntegrationName,
    after: Timestamp,
) -> Option<Timestamp> {
    let after = (rows::micros(after).saturating_add(1), String::new());
    let first = state
        .dues
        .get(integration)
        .into_iter()
        .flatten()
        .filter_map(|(_, bucket)| bucket.range(after.clone()..).next())
        .map(|(at, _)| *at)
        .min();
    first.and_then(|at| rows::instant(at).ok())
}

/// Everybody with open grants, or with those that name the target, in order of subject as text.
pub(super) fn subjects(
    state: &State,
    integration: &IntegrationName,
    target: Option<&Target>,
) -> Vec<MemberKey> {
    let mut keys: Vec<MemberKey> = state
        .open
        .iter()
        .filter(|(key, _)| key.integration == *integration)
        .filter(|(_, ids)| {
            target.is_none_or(|target| {
                ids.iter()
                    .filter_map(|id| state.grants.get(id))
                    .any(|grant| names(grant, target))
            })
        })
        .map(|(key, _)| key.clone())
        .collect();
    keys.sort_by_key(|key| key.subject.to_string());
    keys
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
    census
}
