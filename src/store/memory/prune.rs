//! Forgetting what is old enough.
//!
//! Owns which rows may go. Never touches audit events, nor a grant that has not ended.

use std::collections::BTreeSet;

use super::State;
use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::ids::{CallerName, GrantId, RequestId};
use crate::ports::ledger::RequestRecord;
use crate::store::rows;

pub(super) fn prune(
    state: &mut State,
    requests_before: Timestamp,
    ended_before: Timestamp,
    limit: usize,
) -> u64 {
    let mut old: Vec<(i64, (CallerName, RequestId))> = state
        .requests
        .iter()
        .filter(|(_, (_, until))| rows::micros(*until) < rows::micros(requests_before))
        .filter(|(_, (record, _))| {
            let grant = match record {
                RequestRecord::Grant { id, .. } => Some(id),
                RequestRecord::Done { grant, .. } => grant.as_ref(),
                RequestRecord::Tombstone => None,
            };
            grant
                .and_then(|id| state.grants.get(id))
                .is_none_or(|grant| grant.state.is_ended())
        })
        .map(|(id, (_, until))| (rows::micros(*until), id.clone()))
        .collect();
    old.sort();
    old.truncate(limit);
    for (_, id) in &old {
        state.requests.remove(id);
    }
    let done: BTreeSet<GrantId> = state
        .requests
        .values()
        .filter_map(|(record, _)| match record {
            RequestRecord::Done { grant, .. } => *grant,
            RequestRecord::Grant { .. } | RequestRecord::Tombstone => None,
        })
        .collect();
    let mut ended: Vec<(i64, GrantId)> = state
        .grants
        .values()
        .filter_map(|grant| match &grant.state {
            GrantState::Ended { at, .. } => Some((rows::micros(*at), grant)),
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Activating { .. }
            | GrantState::Active { .. }
            | GrantState::Revoking { .. } => None,
        })
        .filter(|(at, _)| *at < rows::micros(ended_before))
        .filter(|(_, grant)| {
            let request = (grant.caller.clone(), grant.request_id.clone());
            !state.requests.contains_key(&request) && !done.contains(&grant.id)
        })
        .map(|(at, grant)| (at, grant.id))
        .collect();
    ended.sort();
    ended.truncate(limit - old.len());
    for (_, id) in &ended {
        state.grants.remove(id);
        // A receipt stays as long as its grant.
        state.receipts.remove(id);
    }
    state.prune_reviews(rows::micros(requests_before));
    (old.len() + ended.len()) as u64
}
