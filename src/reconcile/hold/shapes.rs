//! What is taken over from evidence, in the shape in which a ledger holds it.
//!
//! Owns no decision. Pure.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::authority::Approval;
use crate::domain::grant::Grant;
use crate::domain::member::{LastWrite, Owned, Phase, Subject, WriteKind, WriteOutcome};

/// How long after an intent its call may still land.
pub(super) const ECHO: TimeDelta = TimeDelta::minutes(10);

pub(super) fn owned(
    assignment: &Assignment,
    at: Timestamp,
    must_end_by: Option<Timestamp>,
    outcome: WriteOutcome,
) -> Owned {
    Owned {
        assignment: assignment.clone(),
        phase: Phase::Live,
        since: at,
        must_end_by,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at,
            outcome,
        },
        seen: false,
        echo_until: Some(at + ECHO),
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}

/// An approval as the audit names it: `NAME (PERSON)`.
pub(super) fn approval(who: &str, id: &str, at: Timestamp) -> Approval {
    let named = who.split_once(" (");
    let named = named.and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?)));
    let (approver, person) = named.unwrap_or((who, who));
    Approval {
        approver: approver.to_owned(),
        person: person.to_owned(),
        id: id.to_owned(),
        // Used up by a request that no ledger will take twice.
        token: String::new(),
        until: at,
    }
}

pub(super) fn beneficiary(subject: &Subject) -> String {
    match subject {
        Subject::Member(user) => user.to_string(),
        Subject::Invitee(email) => email.to_string(),
    }
}

pub(super) fn parsed(texts: &[String]) -> Vec<Assignment> {
    texts
        .iter()
        .filter_map(|text| Assignment::parse(text).ok())
        .collect()
}

pub(super) fn assignments_of(grant: &Grant) -> Vec<Assignment> {
    grant
        .assignments
        .iter()
        .map(|held| held.assignment.clone())
        .collect()
}
