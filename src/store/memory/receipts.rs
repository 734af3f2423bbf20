//! Receipts, late removals and forgotten access, as the ledger in memory lists them.
//!
//! Owns filters and order, equal to those of the SQL. Never changes anything.

use std::collections::BTreeMap;

use super::State;
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::domain::member::{DueKind, MemberKey, MemberRecord};
use crate::domain::overdue::{GRACE, first_removal};
use crate::domain::receipt::Receipt;
use crate::ports::ledger::{LateCursor, LateRemovals, Page, ReceiptCursor, ReceiptFilter};
use crate::store::rows::{self, comparable, micros, page};

fn matches(filter: &ReceiptFilter, receipt: &Receipt) -> bool {
    let ReceiptFilter {
        caller,
        integration,
        subject,
        since,
        until,
        open_only,
    } = filter;
    let is = |wanted: &str| {
        receipt.subject.to_string() == wanted || comparable(&receipt.beneficiary) == wanted
    };
    caller.as_ref().is_none_or(|one| receipt.caller == *one)
        && integration
            .as_ref()
            .is_none_or(|one| receipt.integration == *one)
        && subject.as_ref().is_none_or(|one| is(&comparable(one)))
        && since.is_none_or(|at| micros(receipt.ended_at) >= micros(at))
        && until.is_none_or(|at| micros(receipt.ended_at) < micros(at))
        && (!open_only || receipt.is_open())
}

fn cursor(receipt: &Receipt) -> ReceiptCursor {
    ReceiptCursor {
        ended_at: receipt.ended_at,
        id: receipt.grant_id,
    }
}

fn place(at: ReceiptCursor) -> (i64, String) {
    (micros(at.ended_at), at.id.to_string())
}

pub(super) fn list(
    state: &State,
    filter: &ReceiptFilter,
    before: Option<ReceiptCursor>,
    limit: usize,
) -> Page<Receipt, ReceiptCursor> {
    let mut found: Vec<&Receipt> = state
        .receipts
        .values()
        .filter(|receipt| matches(filter, receipt))
        .filter(|receipt| before.is_none_or(|before| place(cursor(receipt)) < place(before)))
        .collect();
    found.sort_by_key(|receipt| std::cmp::Reverse(place(cursor(receipt))));
    let found: Vec<Receipt> = found
        .into_iter()
        .take(limit.saturating_add(1))
        .cloned()
        .collect();
    page(found, limit, cursor)
}

fn first_removal_of(state: &State, record: &MemberRecord) -> Option<(i64, u32)> {
    first_removal(&state.assembled(&record.key)).map(|(at, weight)| (micros(at), weight))
}

pub(super) fn late(
    state: &State,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
) -> Page<MemberRecord, LateCursor> {
    let Page { items, next } = removals_due(state, integration, until, after, limit, |_| true);
    let record = |at: LateCursor| {
        state.assembled(&MemberKey {
            integration: integration.clone(),
            subject: at.subject,
        })
    };
    Page {
        items: items.into_iter().map(record).collect(),
        next,
    }
}

pub(super) fn hidden_removals(
    state: &State,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
) -> Page<LateCursor, LateCursor> {
    removals_due(state, integration, until, after, limit, |record| {
        record
            .due
            .is_some_and(|due| micros(due.at) <= micros(until) && due.kind != DueKind::Remove)
    })
}

/// Where removals were due at or before `until`, of those that `is_wanted` lets through.
fn removals_due(
    state: &State,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
    is_wanted: impl Fn(&MemberRecord) -> bool,
) -> Page<LateCursor, LateCursor> {
    let after = after.map(|after| (micros(after.due_at), after.subject.to_string()));
    let mut found: Vec<((i64, String), LateCursor)> = state
        .members
        .values()
        .filter(|record| record.key.integration == *integration && is_wanted(record))
        .filter_map(|record| {
            let (at, _) = first_removal_of(state, record)?;
            let cursor = LateCursor {
                due_at: rows::instant(at).expect("it came from an instant"),
                subject: record.key.subject.clone(),
            };
            (at <= micros(until)).then(|| ((at, record.key.subject.to_string()), cursor))
        })
        .filter(|(place, _)| after.as_ref().is_none_or(|after| place > after))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let found: Vec<LateCursor> = found
        .into_iter()
        .map(|(_, cursor)| cursor)
        .take(limit.saturating_add(1))
        .collect();
    page(found, limit, LateCursor::clone)
}

pub(super) fn forgotten(state: &State, integration: &IntegrationName) -> Vec<MemberKey> {
    let mut keys: Vec<MemberKey> = state
        .members
        .values()
        .filter(|record| record.key.integration == *integration)
        .filter(|record| !record.evidence.forgotten.is_empty())
        .map(|record| record.key.clone())
        .collect();
    keys.sort_by_key(|key| key.subject.to_string());
    keys
}

pub(super) fn late_removals(state: &State, now: Timestamp) -> Vec<LateRemovals> {
    let mut found: BTreeMap<(IntegrationName, u32), (u64, i64)> = BTreeMap::new();
    for record in state.members.values() {
        if let Some((at, weight)) = first_removal_of(state, record)
            && at <= micros(now - GRACE)
        {
            let entry = found
                .entry((record.key.integration.clone(), weight))
                .or_insert((0, at));
            entry.0 += 1;
            entry.1 = entry.1.min(at);
        }
    }
    found
        .into_iter()
        .map(|((integration, weight), (members, oldest))| LateRemovals {
            integration,
            weight,
            members,
            oldest: rows::instant(oldest).expect("it came from an instant"),
        })
        .collect()
}
