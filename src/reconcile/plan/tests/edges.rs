//! The instants at which something begins to hold, and what counts as something to do.

use super::*;

#[test]
fn whatever_a_plan_holds_it_is_not_quiet_and_facts_are_written_down() {
    let one = || vec![viewer("a")];
    for (plan, findings) in [
        (only!(add: one()), false),
        (only!(remove: one()), false),
        (only!(restore: one()), false),
        (only!(gone: one()), true),
        (only!(closed: one()), true),
        (only!(missing: one()), true),
        (only!(resurrected: one()), true),
        (only!(last_owner: one()), true),
        (only!(survived: one()), true),
        (only!(lost: one()), true),
        (only!(echo_over: one()), true),
        (only!(taken_along: one()), true),
    ] {
        assert!(!plan.is_quiet(), "{plan:?}");
        assert_eq!(plan.has_findings(), findings, "{plan:?}");
    }
    let nothing = only!(present: one(), covered: one(), observe_at: Some(at(0)));
    assert!(nothing.is_quiet() && !nothing.has_findings());
}

#[test]
fn a_read_that_starts_with_the_answer_to_an_addition_may_prove_it() {
    let row = unseen(viewer("a"), 0);
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[viewer("a")])));
    assert_eq!(plan, only!(present: vec![viewer("a")]));
}

#[test]
fn a_filtered_read_that_left_something_open_was_blind_however_old_it_is() {
    let mut snapshot = showing(&[]);
    snapshot.complete = false;
    snapshot.started_at = at(-5);
    let given = decide(&[viewer("a")], &[], Some(&snapshot));
    assert_eq!(given, only!(observe_at: Some(at(0)), blind: true));
    let taken = decide(&[], &[live(owner())], Some(&snapshot));
    assert_eq!(taken, only!(observe_at: Some(at(0)), blind: true));
}

#[test]
fn a_pair_last_seen_while_reads_could_show_the_past_of_a_removal_may_have_gone_with_it() {
    let rows = [live(viewer("a")), removed(viewer("b"), 10)];
    for (seen, taken_along) in [(-11, true), (-9, true), (-8, false)] {
        let seen = LastSeen {
            at: at(seen),
            assignments: BTreeSet::from([viewer("a"), viewer("b")]),
        };
        let snapshot = showing(&[]);
        let view = View {
            expected: &expecting(&[viewer("a")]),
            owned: &rows,
            snapshot: Some(&snapshot),
            last_seen: Some(&seen),
            reads_fail: false,
        };
        let plan = plan(&view, at(0), &BOUNDS);
        assert_eq!(plan.missing.is_empty(), taken_along, "{seen:?}");
    }
}

/// Two of ours that are wanted: the first was given again after a removal, which may have cost the second.
fn both_wanted(written: i64) -> [Owned; 2] {
    let mut given = live(viewer("a"));
    given.last_write.at = at(-written);
    [owing(given, viewer("b")), live(viewer("b"))]
}

#[test]
fn a_wanted_pair_of_ours_that_may_have_been_taken_along_is_looked_for_once_reads_tell() {
    let wanted = [viewer("a"), viewer("b")];
    let unread = decide(&wanted, &both_wanted(1), None);
    assert_eq!(unread, only!(observe_at: Some(at(1))));
    let shown = showing(&wanted);
    let early = decide(&wanted, &both_wanted(1), Some(&shown));
    assert_eq!(early.observe_at, Some(at(1)), "{early:?}");
    assert_eq!(early.survived, []);
    let in_time = decide(&wanted, &both_wanted(2), Some(&shown));
    assert_eq!(
        in_time,
        only!(present: wanted.to_vec(), survived: vec![viewer("b")])
    );
    let vanished = decide(&wanted, &both_wanted(2), Some(&showing(&[viewer("a")])));
    assert_eq!(
        vanished,
        only!(
            present: vec![viewer("a")],
            add: vec![viewer("b")],
            taken_along: vec![viewer("b")]
        ),
        "that read told all there is to know"
    );
}

#[test]
fn an_echo_is_needed_by_what_is_given_again_because_of_it_and_by_nothing_else() {
    let echoing = |assignment: Assignment| {
        let mut row = live(assignment);
        row.echo_until = Some(at(0));
        row.removal_echo_until = Some(at(0));
        row
    };
    let mut other = viewer("b");
    other.role = "deployment-editor".to_owned();
    let rows = [echoing(viewer("a"))];
    let unrelated = decide(
        &[viewer("a"), other.clone()],
        &rows,
        Some(&showing(&[viewer("a")])),
    );
    assert_eq!(unrelated.add, [other]);
    assert_eq!(unrelated.echo_over, [viewer("a")]);
    let again = decide(&[viewer("a")], &rows, Some(&showing(&[])));
    assert_eq!(again.add, [viewer("a")]);
    assert_eq!(again.echo_over, []);
}
