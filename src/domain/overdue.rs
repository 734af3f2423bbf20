//! When a removal of ours is due, whatever its tries and pauses.
//!
//! Owns the one answer to "since when should this be gone". Never looks at a clock: whether something is overdue is the
//! comparison with an instant that the caller gives.

use chrono::TimeDelta;

use super::Timestamp;
use super::grant::GrantState;
use super::member::{Due, DueKind, MemberRecord, Owned, Phase, WriteKind, weight_class};

/// How late a removal may be before it counts as overdue: time for the call, and for the read that proves it.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);

/// When an owned assignment is due to be removed: when the last grant that wants it stops doing so. `None` when it was
/// seen gone, or while a grant wants it without a known end.
#[must_use]
pub fn removal_due_at(record: &MemberRecord, row: &Owned) -> Option<Timestamp> {
    if row.phase != Phase::Live {
        return None;
    }
    let mut latest: Option<Timestamp> = None;
    for grant in &record.grants {
        let names = grant
            .assignments
            .iter()
            .any(|held| held.assignment == row.assignment);
        if !names {
            continue;
        }
        let end = match &grant.state {
            GrantState::Revoking { since, .. } => Some(*since),
            GrantState::Activating { .. } | GrantState::Active { .. } => grant.ends_at(),
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Ended { .. } => continue,
        };
        // Wanted without a known end: not due at any instant that is known.
        latest = latest.max(Some(end?));
    }
    // No grant is left: it came back after it was gone, or a late call of ours brought it.
    latest.or_else(|| {
        let resurrected = record
            .evidence
            .trail(&row.assignment)
            .and_then(|trail| trail.resurrected_at);
        Some(resurrected.or(row.must_end_by).unwrap_or(row.since))
    })
}

/// The first removal of a member that is due or will be: since when, and the strongest power that any of them leaves
/// open.
#[must_use]
pub fn first_removal(record: &MemberRecord) -> Option<(Timestamp, u32)> {
    let dues = record
        .owned
        .iter()
        .filter_map(|row| removal_due_at(record, row).map(|at| (at, row.assignment.weight())));
    dues.reduce(|(at, weight), (other, more)| (at.min(other), weight.max(more)))
}

/// A removal that is due and was never sent, of a member that the queue knows only for something less urgent: an
/// earlier look, say, whose turn did not come. `None` where the member waits for a pause, or is queued as it should be.
#[must_use]
pub fn hidden_removal(record: &MemberRecord, now: Timestamp) -> Option<Due> {
    record
        .due
        .filter(|due| due.kind != DueKind::Remove && due.at <= now)?;
    let unsent = |row: &&Owned| row.last_write.kind == WriteKind::Add && row.blocked.is_none();
    let at = record
        .owned
        .iter()
        .filter(unsent)
        .filter_map(|row| removal_due_at(record, row))
        .min()
        .filter(|at| *at <= now)?;
    Some(Due {
        at,
        kind: DueKind::Remove,
        weight: weight_class(record.open_weight(now)),
    })
}

/// Class of power, for metrics and for people: `critical` (an organization owner, or an administrator of everything of
/// a kind), `high` (administrators), `medium` (those who change things), `low` (those who look).
#[must_use]
pub fn class_of(weight: u32) -> &'static str {
    match weight {
        100.. => "critical",
        60.. => "high",
        40.. => "medium",
        _ => "low",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::assignment::Assignment;
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{Blocked, LastWrite, MemberKey, Subject, WriteOutcome};

    type Spoil = fn(&mut MemberRecord);

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    /// Ours since long ago, to be gone by second 100, and queued for a look at second 50.
    pub(crate) fn hidden(user: &str) -> MemberRecord {
        let mut record = MemberRecord::new(MemberKey {
            integration: IntegrationName::parse("main").expect("valid"),
            subject: Subject::Member(UserId::parse(user).expect("valid")),
        });
        record.due = Some(Due {
            at: at(50),
            kind: DueKind::Look,
            weight: 0,
        });
        record.owned.push(Owned {
            assignment: Assignment::parse("deployment-viewer on deployment/a").expect("valid"),
            phase: Phase::Live,
            since: at(0),
            must_end_by: Some(at(100)),
            last_write: LastWrite {
                kind: WriteKind::Add,
                at: at(0),
                outcome: WriteOutcome::Done,
            },
            seen: true,
            echo_until: None,
            removal_echo_until: None,
            must_survive: Vec::new(),
            blocked: None,
            isolate: false,
            attempts: 0,
        });
        record
    }

    #[test]
    fn a_removal_behind_a_look_is_hidden_from_its_end_on() {
        let record = hidden("1");
        assert_eq!(hidden_removal(&record, at(99)), None);
        let found = hidden_removal(&record, at(100)).expect("due");
        assert_eq!((found.at, found.kind), (at(100), DueKind::Remove));
    }

    #[test]
    fn what_was_sent_is_refused_or_is_queued_as_it_should_be_is_not_hidden() {
        let spoil: [(&str, Spoil); 5] = [
            ("sent", |record| {
                record.owned[0].last_write.kind = WriteKind::Remove
            }),
            ("refused", |record| {
                record.owned[0].blocked = Some(Blocked {
                    code: "last_owner".to_owned(),
                    since: at(100),
                    retry_at: at(130),
                    refusals: 1,
                });
            }),
            ("queued", |record| {
                record.due = record.due.map(|due| Due {
                    kind: DueKind::Remove,
                    ..due
                });
            }),
            ("waits for a pause", |record| {
                record.due = record.due.map(|due| Due { at: at(201), ..due });
            }),
            ("nothing is due", |record| record.due = None),
        ];
        for (what, spoil) in spoil {
            let mut record = hidden("1");
            spoil(&mut record);
            assert_eq!(hidden_removal(&record, at(200)), None, "{what}");
        }
    }

    #[test]
    fn power_falls_into_classes() {
        let classes = [0, 39, 40, 59, 60, 99, 100, 4_000].map(class_of);
        let expected = [
            "low", "low", "medium", "medium", "high", "high", "critical", "critical",
        ];
        assert_eq!(classes, expected);
    }
}
