//! What every record has to obey whenever it is committed, in whatever scenario.
//!
//! Owns rules that no single scenario would think of looking at. Never knows how a record came about.

use std::collections::BTreeSet;

use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::member::{MemberRecord, WriteKind};

/// Panics where a record breaks a rule.
pub(super) fn check(record: &MemberRecord, now: Timestamp) {
    an_end_before_a_beginning(record);
    something_is_due_while_anything_is_owed(record, now);
    everything_is_there_once(record);
}

fn an_end_before_a_beginning(record: &MemberRecord) {
    for grant in &record.grants {
        let GrantState::Activating {
            since, must_end_by, ..
        } = &grant.state
        else {
            continue;
        };
        // What was sent before was sent for another grant.
        let sent = grant.assignments.iter().any(|pair| {
            let row = record.owned(&pair.assignment);
            row.is_some_and(|row| {
                row.last_write.kind == WriteKind::Add && row.last_write.at > *since
            })
        });
        assert!(
            must_end_by.is_some() || !sent,
            "something may have been given without an end: {grant}"
        );
    }
}

fn something_is_due_while_anything_is_owed(record: &MemberRecord, now: Timestamp) {
    let Some(due) = record.due else {
        let owes = !record.owned.is_empty() || !record.grants.is_empty();
        assert!(!owes, "nobody will look at this again: {record:?}");
        return;
    };
    for grant in &record.grants {
        if let Some(deadline) = grant.next_deadline() {
            assert!(
                due.at <= deadline.max(now),
                "next pass at {}, after the deadline {deadline} of {grant}",
                due.at
            );
        }
    }
}

fn everything_is_there_once(record: &MemberRecord) {
    let once = |what: &str, all: Vec<String>| {
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{what} twice: {all:?}");
    };
    let owned = record.owned.iter().map(|row| row.assignment.to_string());
    once("owned", owned.collect());
    let watched = record.watched.iter().map(|one| one.assignment.to_string());
    once("watched", watched.collect());
    let drifts = record
        .drifts
        .iter()
        .map(|open| format!("{:?} {}", open.kind, open.assignment));
    once("open drift", drifts.collect());
    let grants = record.grants.iter().map(|grant| grant.id.to_string());
    once("grant", grants.collect());
    for watched in &record.watched {
        assert!(watched.gone_at < watched.until);
    }
}
