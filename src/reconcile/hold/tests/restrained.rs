//! What a hold leaves of a plan, and what the witness is told of several ends at once.

use super::*;
use crate::domain::member::{Survivor, WriteOutcome};
use crate::reconcile::hold::shapes::owned;

/// In hold since second 50, without a witness.
fn held() -> Held {
    Held {
        record: HoldRecord {
            integration: key().integration,
            since: at(50),
            reasons: Vec::new(),
            evidence: Evidence::Ledger,
        },
        open: None,
        is_unread: false,
    }
}

#[test]
fn only_what_a_removal_of_this_hold_took_along_is_put_back() {
    let rows = [
        (WriteKind::Remove, 49, "z", false),
        (WriteKind::Remove, 50, "z", true),
        (WriteKind::Remove, 60, "z", true),
        (WriteKind::Remove, 60, "y", false),
        (WriteKind::Remove, 49, "y", false),
        (WriteKind::Add, 60, "z", false),
        (WriteKind::Add, 60, "y", false),
    ];
    for (kind, written, neighbour, is_put_back) in rows {
        let mut record = MemberRecord::new(key());
        let mut row = owned(&viewer("a"), at(0), None, WriteOutcome::Done);
        row.last_write.kind = kind;
        row.last_write.at = at(written);
        row.must_survive = vec![Survivor {
            assignment: viewer(neighbour),
            restored_at: None,
            restores: 0,
        }];
        record.owned.push(row);
        let mut plan = Plan {
            restore: vec![viewer("z")],
            add: vec![viewer("n")],
            ..Plan::default()
        };
        held().restrain(&mut plan, &record);
        let left = usize::from(is_put_back);
        assert_eq!(
            plan.restore.len(),
            left,
            "{kind:?} at {written} with {neighbour}"
        );
        assert_eq!(plan.add, [], "nothing is given in a hold");
    }
}

#[test]
fn of_several_ends_under_way_each_reaches_a_witness_that_is_begun_anew() {
    let witness = Arc::new(MemoryWitness::new());
    let accord = Arc::new(Accord::new(
        Arc::new(MemoryLedger::new()),
        Arc::new(ManualClock::default()),
        Some(Arc::clone(&witness) as Arc<dyn Witness>),
        vec![key().integration],
    ));
    let begun = || -> Vec<Assignment> {
        let alone = accord.alone().now_or_never().expect("nobody else");
        let binding = Binding {
            ledger: "a".to_owned(),
            generation: 1,
        };
        // What the ledger owned when it was read.
        let intents = vec![intent("a", 1, 9), intent("b", 1, 9)];
        let begun = alone.begin(binding, 0, intents).now_or_never();
        begun.expect("memory never waits").expect("writable");
        drop(alone);
        let open = witness.open_intents().now_or_never();
        let open = open.expect("memory never waits").expect("readable");
        open.into_iter().map(|intent| intent.assignment).collect()
    };
    assert_eq!(begun(), [viewer("a"), viewer("b")]);
    let one = accord.end_before_commit(&key(), vec![viewer("a")]);
    let other = accord.end_before_commit(&key(), vec![viewer("b")]);
    assert_eq!(begun(), []);
    drop(one);
    assert_eq!(begun(), [viewer("a")], "the other's commit is under way");
    drop(other);
    assert_eq!(begun(), [viewer("a"), viewer("b")]);
}

/// A record that owns `a`, and a grant that wants `wanted` and is on its way out.
fn ending(wanted: &str, since: i64, cause: EndCause) -> MemberRecord {
    let mut audit = Audit::default();
    audit.accepted(1, wanted, 600);
    let mut record = audit.rebuilt(None).members.remove(0);
    let since = at(since);
    record.grants[0].state = GrantState::Revoking { since, cause };
    record.owned = vec![owned(&viewer("a"), at(0), None, WriteOutcome::Done)];
    record
}

#[test]
fn without_a_witness_to_ask_only_what_somebody_ended_during_the_hold_is_proven() {
    let revoked = || EndCause::Revoked {
        by: "ada".to_owned(),
        reason: String::new(),
    };
    let rows = [
        ("a", 60, revoked(), true),
        ("a", 50, revoked(), true),
        ("a", 49, revoked(), false),
        ("b", 60, revoked(), false),
        ("a", 60, EndCause::Expired, false),
    ];
    for (wanted, since, cause, is_proven) in rows {
        let record = ending(wanted, since, cause.clone());
        for evidence in [Evidence::Nothing, Evidence::Witness] {
            let mut held = held();
            held.record.evidence = evidence;
            let proven = held.permits_removal(&record, &viewer("a"));
            assert_eq!(proven, is_proven, "{wanted} since {since}: {cause:?}");
            assert!(
                !held.permits_removal(&record, &viewer("b")),
                "it is not ours"
            );
            assert!(!held.contradicts(&record, &record.owned[0]));
        }
    }
}

#[test]
fn what_is_proven_and_what_is_contradicted_follows_from_what_is_held_open() {
    let record = ending("a", 60, EndCause::Expired);
    let row = &record.owned[0];
    let open = |deployment| Some(Open::from([(key().subject, viewer(deployment))]));
    let rows = [
        (Evidence::Ledger, None, (true, false)),
        (Evidence::Ledger, open("b"), (true, false)),
        (Evidence::Witness, open("a"), (true, false)),
        (Evidence::Witness, open("b"), (false, true)),
        (Evidence::Nothing, open("a"), (false, false)),
        (Evidence::Nothing, open("b"), (false, false)),
    ];
    for (evidence, open, expected) in rows {
        let mut held = held();
        held.record.evidence = evidence;
        held.open = open;
        let found = (held.permits(&record, row), held.contradicts(&record, row));
        assert_eq!(found, expected, "{held:?}");
    }
}
