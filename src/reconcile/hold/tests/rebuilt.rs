//! What is rebuilt to the second: ends, echoes, and what proves anything.

use super::*;
use crate::domain::drift::DriftAction;
use crate::domain::grant::Holding;
use crate::domain::member::{Phase, WriteOutcome};
use crate::reconcile::hold::shapes::ECHO;

fn recovered(deployment: &str, until: i64) -> EventKind {
    EventKind::Recovered {
        assignment: viewer(deployment).to_string(),
        must_end_by: Some(at(until)),
        source: "witness".to_owned(),
    }
}

fn gone(deployment: &str) -> EventKind {
    EventKind::Observed {
        read_started_at: at(4),
        present: Vec::new(),
        gone: vec![viewer(deployment).to_string()],
        standing: Vec::new(),
    }
}

#[test]
fn a_later_end_that_only_the_witness_knows_is_the_end() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    let rebuilt = audit.rebuilt(Some(&[intent("a", 2, 3_000)]));
    let row = &rebuilt.members[0].owned[0];
    assert_eq!(row.must_end_by, Some(at(3_000)));
    assert_eq!(
        shown(&rebuilt),
        [(viewer("a").to_string(), "audit+witness", 3_000)]
    );
    assert!(!rebuilt.is_proven, "they differ in the end");
}

#[test]
fn what_both_know_alike_is_proven_also_where_it_is_all_there_is() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    let rebuilt = audit.rebuilt(Some(&[intent("a", 2, 722)]));
    assert_eq!(
        shown(&rebuilt),
        [(viewer("a").to_string(), "audit+witness", 700)]
    );
    assert!(rebuilt.is_proven);
}

#[test]
fn access_whose_end_has_come_gets_no_grant_to_stand_for_it() {
    for (until, grants) in [(99, 0), (100, 0), (101, 1)] {
        let rebuilt = Audit::default().rebuilt(Some(&[intent("a", 50, until)]));
        let record = &rebuilt.members[0];
        assert_eq!(record.grants.len(), grants, "at 100 until {until}");
        let [row] = record.owned.as_slice() else {
            panic!("it is to be removed: {record:?}");
        };
        // The intent is the first of perhaps several calls.
        assert_eq!(row.echo_until, Some(at(100) + ECHO));
    }
}

#[test]
fn without_a_single_event_nothing_is_proven() {
    let rebuilt = Audit::default().rebuilt(Some(&[]));
    assert_eq!(rebuilt.events, 0);
    assert!(!rebuilt.is_proven, "the audit may be lost");
}

#[test]
fn a_call_may_land_for_a_while_after_its_intent_each_time() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    let echo = |audit: &Audit| {
        let rebuilt = Audit(audit.0.clone()).rebuilt(None);
        rebuilt.members[0].owned[0].echo_until
    };
    assert_eq!(echo(&audit), Some(at(2) + ECHO));
    audit.intended(WriteKind::Remove, "a");
    assert_eq!(echo(&audit), Some(at(5) + ECHO));
}

#[test]
fn a_grant_that_stood_for_recovered_access_ends_with_it_and_not_after_its_own_duration() {
    // Accepted in second 2, for 600.
    for (known, end) in [(None, 602), (Some(300), 300), (Some(5_000), 602)] {
        let mut audit = Audit::default();
        let of = if known.is_some() { "a" } else { "other" };
        audit.put(None, recovered(of, known.unwrap_or(5_000)));
        audit.accepted(1, "a", 600);
        let EventKind::GrantAccepted { state, .. } = &mut audit.0[1].event.kind else {
            panic!("accepted second");
        };
        *state = "active".to_owned();
        let rebuilt = audit.rebuilt(None);
        let ends = rebuilt.members[0].grants[0].ends_at();
        assert_eq!(ends, Some(at(end)), "known until {known:?}");
    }
}

#[test]
fn what_is_put_back_stays_so_while_another_difference_ends() {
    for (ended, ours) in [("missing", 0), ("survivor_missing", 1)] {
        let mut audit = Audit::default();
        audit.survivor_missing("c");
        audit.put(
            None,
            EventKind::DriftEnded {
                kind: ended.to_owned(),
                assignment: viewer("c").to_string(),
                first_seen: at(1),
                outcome: "there again".to_owned(),
            },
        );
        audit.intended(WriteKind::Add, "c");
        let rebuilt = audit.rebuilt(None);
        assert_eq!(rebuilt.assignments.len(), ours, "{ended}");
    }
}

#[test]
fn what_was_recovered_once_is_ours_again_with_the_later_end() {
    let mut audit = Audit::default();
    audit.put(None, recovered("a", 500));
    let rebuilt = audit.rebuilt(None);
    let [row] = rebuilt.members[0].owned.as_slice() else {
        panic!("{rebuilt:?}");
    };
    assert_eq!((row.since, row.must_end_by), (at(1), Some(at(500))));
    for (until, end) in [(10, 722), (5_000, 5_000)] {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        audit.put(None, gone("a"));
        audit.put(None, recovered("a", until));
        let rebuilt = audit.rebuilt(None);
        let [row] = rebuilt.members[0].owned.as_slice() else {
            panic!("{rebuilt:?}");
        };
        assert_eq!(row.must_end_by, Some(at(end)), "recovered until {until}");
        assert_eq!(row.phase, Phase::Live, "it may be there");
    }
}

#[test]
fn what_was_given_for_a_grant_that_waits_has_its_end_since_it_was_sent() {
    // Accepted in second 1, for 600; activating and verifying may take 120 more.
    for (sent, end) in [(50, 770), (1, 721), (0, 721)] {
        let mut audit = Audit::default();
        audit.accepted(1, "a", 600);
        audit.accepted(2, "b", 600);
        let rebuilt = audit.rebuilt(Some(&[intent("a", sent, 99)]));
        let [given, waits] = rebuilt.members[0].grants.as_slice() else {
            panic!("{rebuilt:?}");
        };
        assert_eq!((given.ends_at(), given.version), (Some(at(end)), 2));
        assert_eq!((waits.ends_at(), waits.version), (None, 1));
    }
}

#[test]
fn what_the_witness_knows_to_last_longer_was_given_again_where_it_was_on_its_way_out() {
    let end: [fn(&mut Audit); 3] = [
        |_| {},
        |audit| audit.intended(WriteKind::Remove, "a"),
        |audit| audit.put(None, gone("a")),
    ];
    for (on_its_way_out, end) in [false, true, true].into_iter().zip(end) {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        audit.put(
            None,
            EventKind::Observed {
                read_started_at: at(4),
                present: vec![viewer("a").to_string()],
                gone: Vec::new(),
                standing: Vec::new(),
            },
        );
        end(&mut audit);
        let rebuilt = audit.rebuilt(Some(&[intent("a", 2, 3_000)]));
        let row = &rebuilt.members[0].owned[0];
        assert_eq!(
            (row.phase, row.last_write.kind),
            (Phase::Live, WriteKind::Add)
        );
        assert_eq!(row.must_end_by, Some(at(3_000)));
        assert_eq!(
            row.echo_until,
            Some(at(100) + ECHO),
            "sent just now perhaps"
        );
        // Known now and not since the call, so that no read of the past counts.
        let written = if on_its_way_out { 100 } else { 3 };
        assert_eq!(
            (row.seen, row.last_write.at),
            (!on_its_way_out, at(written))
        );
    }
}

#[test]
fn what_was_seen_gone_once_still_owes_its_second_look() {
    let left = EventKind::MemberLeft {
        read_started_at: at(4),
    };
    for event in [gone("a"), left] {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        audit.given(2, "b", 700);
        audit.put(None, event.clone());
        let rebuilt = audit.rebuilt(None);
        let closing = |assignment: &Assignment| {
            let row = rebuilt.members[0].owned(assignment).expect("ours");
            matches!(row.phase, Phase::Closing { gone_at, .. } if gone_at == at(9))
        };
        let with_the_member = matches!(event, EventKind::MemberLeft { .. });
        assert!(closing(&viewer("a")), "{event:?}");
        assert_eq!(closing(&viewer("b")), with_the_member, "{event:?}");
    }
}

#[test]
fn a_neighbour_that_could_not_be_put_back_can_be_given_by_a_grant() {
    let mut audit = Audit::default();
    audit.survivor_missing("c");
    audit.survivor_missing("c");
    let EventKind::Drift { action, .. } = &mut audit.0[1].event.kind else {
        panic!("a drift");
    };
    *action = DriftAction::GivenUp.words().to_owned();
    audit.given(1, "c", 700);
    assert_eq!(
        shown(&audit.rebuilt(None)),
        [(viewer("c").to_string(), "audit", 700)]
    );
}

#[test]
fn removing_what_is_not_ours_makes_nothing_ours() {
    let mut audit = Audit::default();
    audit.intended(WriteKind::Remove, "a");
    assert_eq!(audit.rebuilt(None).assignments, []);
}

#[test]
fn what_was_given_up_stays_so_until_it_is_given_again_and_not_until_it_is_removed() {
    let stale = [intent("a", 2, 722)];
    for (write, ours) in [(WriteKind::Remove, 0), (WriteKind::Add, 1)] {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        audit.put(
            None,
            EventKind::AccessAdopted {
                assignment: viewer("a").to_string(),
                by: "ops".to_owned(),
                reason: "stays".to_owned(),
            },
        );
        audit.accepted(2, "a", 600);
        audit.intended(write, "a");
        let rebuilt = audit.rebuilt(Some(&stale));
        assert_eq!(rebuilt.assignments.len(), ours, "{write:?}");
    }
}

#[test]
fn what_came_back_after_it_was_gone_is_to_be_removed_again() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.put(None, gone("a"));
    audit.put(
        None,
        EventKind::Drift {
            kind: "resurrected".to_owned(),
            assignment: viewer("a").to_string(),
            action: DriftAction::RemovedAgain.words().to_owned(),
        },
    );
    let rebuilt = audit.rebuilt(None);
    assert_eq!(rebuilt.members[0].owned[0].phase, Phase::Live);
}

#[test]
fn what_is_added_again_is_live_and_unseen_and_what_is_to_be_removed_was_seen() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.put(
        None,
        EventKind::Observed {
            read_started_at: at(4),
            present: vec![viewer("a").to_string()],
            gone: Vec::new(),
            standing: Vec::new(),
        },
    );
    audit.intended(WriteKind::Remove, "a");
    let row = |audit: &Audit| {
        let rebuilt = Audit(audit.0.clone()).rebuilt(None);
        rebuilt.members[0].owned[0].clone()
    };
    assert!(row(&audit).seen);
    audit.put(None, gone("a"));
    assert!(matches!(row(&audit).phase, Phase::Closing { .. }));
    audit.accepted(2, "a", 900);
    audit.intended(WriteKind::Add, "a");
    let again = row(&audit);
    assert_eq!((again.phase, again.seen), (Phase::Live, false));
    // Accepted in second 8 and sent in second 9; activating and verifying may take 120 more.
    assert_eq!(again.must_end_by, Some(at(9 + 900 + 120)));
}

#[test]
fn what_a_call_came_to_is_as_sure_as_its_answer() {
    let rows = [
        (None, WriteOutcome::InFlight, 2),
        (Some("done"), WriteOutcome::Done, 3),
        (Some("unknown"), WriteOutcome::Unknown, 3),
    ];
    for (answer, outcome, written) in rows {
        let mut audit = Audit::default();
        audit.accepted(1, "a", 600);
        audit.intended(WriteKind::Add, "a");
        if let Some(answer) = answer {
            audit.ended(WriteKind::Add, "a", answer);
        }
        let rebuilt = audit.rebuilt(None);
        let write = rebuilt.members[0].owned[0].last_write;
        assert_eq!((write.outcome, write.at), (outcome, at(written)));
    }
}

#[test]
fn what_was_adopted_is_standing_for_whoever_wants_it_and_the_rest_stays_ours() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.given(2, "b", 700);
    audit.put(
        None,
        EventKind::AccessAdopted {
            assignment: viewer("a").to_string(),
            by: "ops".to_owned(),
            reason: "stays".to_owned(),
        },
    );
    let rebuilt = audit.rebuilt(None);
    let grants = &rebuilt.members[0].grants;
    let holdings: Vec<Holding> = grants
        .iter()
        .map(|one| one.assignments[0].holding)
        .collect();
    assert_eq!(holdings, [Holding::Standing, Holding::Owned]);
    assert_eq!(rebuilt.assignments[0].assignment, viewer("b"));
    assert!(
        grants.iter().all(|one| one.beneficiary == "1"),
        "{grants:?}"
    );
}

#[test]
fn the_end_of_another_grant_begins_none_that_starts_later() {
    let mut audit = Audit::default();
    let email = Subject::parse("email:ada@example.com").expect("valid");
    audit.accepted(1, "a", 600);
    let accepted = &mut audit.0[0].event;
    accepted.subject = Some(email.to_string());
    let EventKind::GrantAccepted { state, .. } = &mut accepted.kind else {
        panic!("accepted first");
    };
    *state = "awaiting_member".to_owned();
    audit.changed(1, "scheduled", None);
    audit.changed(2, "ended", None);
    audit.put(
        None,
        EventKind::MemberJoined {
            email: "ada@example.com".to_owned(),
            user_id: "1".to_owned(),
        },
    );
    let rebuilt = audit.rebuilt(None);
    assert_eq!(rebuilt.members, []);
    assert_eq!(rebuilt.left_out.len(), 1, "it is to be asked for again");
}

#[test]
fn a_grant_on_its_way_out_is_rebuilt_as_such_with_its_cause() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.put(
        Some(1),
        EventKind::GrantChanged {
            from: "active".to_owned(),
            to: "revoking".to_owned(),
            cause: Some(EndCause::MemberLeft),
            expires_at: None,
        },
    );
    let rebuilt = audit.rebuilt(None);
    let expected = GrantState::Revoking {
        since: at(5),
        cause: EndCause::MemberLeft,
    };
    assert_eq!(rebuilt.members[0].grants[0].state, expected);
    assert!(rebuilt.left_out.is_empty(), "{:?}", rebuilt.left_out);
}
