//! What holds for every plan, whatever is expected, owned and observed.

use proptest::prelude::*;

use super::*;

fn pairs() -> impl Strategy<Value = Assignment> {
    prop_oneof![
        Just(viewer("a")),
        Just(viewer("b")),
        Just(viewer("all")),
        Just(named("a", "x")),
        Just(owner()),
    ]
}

fn rows() -> impl Strategy<Value = Vec<Owned>> {
    let row = (
        pairs(),
        any::<[bool; 5]>(),
        -60..0_i64,
        prop::option::of(-60..60_i64),
        prop::option::of(pairs()),
        0..4_u32,
    )
        .prop_map(
            |(
                assignment,
                [closed, remove, seen, isolate, unknown],
                written,
                late,
                survivor,
                attempts,
            )| {
                let mut row = live(assignment.clone());
                row.last_write.at = at(written);
                row.seen = seen;
                row.isolate = isolate;
                row.attempts = attempts;
                if unknown {
                    row.last_write.outcome = WriteOutcome::Unknown;
                }
                if remove {
                    row.last_write.kind = WriteKind::Remove;
                    row.removal_echo_until = late.map(at);
                }
                row.echo_until = late.map(at);
                if closed {
                    row.phase = Phase::Closing {
                        gone_at: at(written),
                        look_at: at(late.unwrap_or(0)),
                    };
                }
                match survivor {
                    Some(survivor) if survivor != assignment => owing(row, survivor),
                    _ => row,
                }
            },
        );
    prop::collection::vec(row, 0..4).prop_map(|rows| {
        let unique: BTreeMap<Assignment, Owned> = rows
            .into_iter()
            .map(|row| (row.assignment.clone(), row))
            .collect();
        unique.into_values().collect()
    })
}

fn reads() -> impl Strategy<Value = Option<Snapshot>> {
    let read = (
        prop::collection::btree_set(pairs(), 0..4),
        any::<bool>(),
        any::<bool>(),
        -60..1_i64,
        0..3_usize,
    )
        .prop_map(|(assignments, complete, shown, started, owners)| Snapshot {
            started_at: at(started),
            complete,
            shown,
            assignments: if shown { assignments } else { BTreeSet::new() },
            owners,
        });
    prop::option::of(read)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_plan_breaks_the_laws(
        wanted in prop::collection::btree_map(pairs(), any::<bool>(), 0..4),
        owned in rows(),
        snapshot in reads(),
        seen in prop::option::of(prop::collection::btree_set(pairs(), 0..4)),
        reads_fail in any::<bool>(),
    ) {
        let expected = Expected(wanted);
        let seen = seen.map(|assignments| LastSeen { at: at(-30), assignments });
        let view = View {
            expected: &expected,
            owned: &owned,
            snapshot: snapshot.as_ref(),
            last_seen: seen.as_ref(),
            reads_fail,
        };
        let decided = plan(&view, at(0), &BOUNDS);
        prop_assert_eq!(&decided, &plan(&view, at(0), &BOUNDS), "the same twice");
        let is_owned = |one: &Assignment| owned.iter().any(|row| row.assignment == *one);
        for one in decided.remove.iter().chain(&decided.held_back) {
            prop_assert!(is_owned(one), "{one} is removed and not ours");
            prop_assert!(!expected.0.contains_key(one), "{one} is removed and wanted");
        }
        for one in &decided.add {
            prop_assert!(expected.0.contains_key(one), "{one} is added and not wanted");
        }
        for one in &decided.restore {
            prop_assert!(!is_owned(one), "{one} is restored and ours");
            prop_assert!(!decided.add.contains(one), "{one} is restored and added");
            let owed = owned.iter().any(|row| row.must_survive.iter().any(|owed| owed.assignment == *one));
            prop_assert!(owed, "{one} is restored and not owed");
        }
        if !snapshot.as_ref().is_some_and(|snapshot| snapshot.complete) {
            prop_assert!(decided.gone.is_empty() && decided.closed.is_empty());
            prop_assert!(decided.missing.is_empty() && decided.restore.is_empty());
            prop_assert!(decided.echo_over.is_empty() && decided.last_owner.is_empty());
            prop_assert!(!decided.remove.contains(&owner()), "owners were not counted");
        }
        for row in &owned {
            let one = &row.assignment;
            let settled = row.last_write.at + BOUNDS.read_staleness;
            let early = snapshot.as_ref().is_none_or(|snapshot| snapshot.started_at < settled);
            if early {
                prop_assert!(!decided.gone.contains(one) && !decided.closed.contains(one));
                prop_assert!(!decided.missing.contains(one));
            }
        }
    }
}
