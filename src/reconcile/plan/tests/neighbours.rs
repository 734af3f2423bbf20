//! Entries of one role beside ours: what must survive a removal, and what is put back.

use super::*;

#[test]
fn a_pair_last_seen_before_the_removal_of_a_neighbour_was_taken_along_by_it() {
    let rows = [live(viewer("a")), removed(viewer("b"), 10)];
    for (seen, ours) in [(-30, true), (-5, false)] {
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
        assert_eq!(plan.taken_along.is_empty(), !ours);
        assert_eq!(plan.add.is_empty(), !ours);
        assert_eq!(plan.missing.is_empty(), ours);
    }
}

#[test]
fn a_neighbour_found_in_place_has_survived() {
    let rows = [owing(closing(viewer("a"), 10), viewer("b"))];
    let plan = decide(&[], &rows, Some(&showing(&[viewer("b")])));
    assert_eq!(
        plan,
        only!(survived: vec![viewer("b")], observe_at: Some(at(10)))
    );
}

#[test]
fn a_neighbour_that_vanished_is_put_back_and_the_receipt_stays_open() {
    let rows = [owing(closing(viewer("a"), 0), viewer("b"))];
    let plan = decide(&[], &rows, Some(&showing(&[])));
    assert_eq!(plan, only!(restore: vec![viewer("b")]));
}

#[test]
fn a_neighbour_shared_by_two_removals_is_put_back_once() {
    let rows = [
        owing(closing(viewer("a"), 0), viewer("b")),
        owing(closing(viewer("c"), 0), viewer("b")),
    ];
    let plan = decide(&[], &rows, Some(&showing(&[])));
    assert_eq!(plan, only!(restore: vec![viewer("b")]));
}

#[test]
fn a_neighbour_is_owed_until_it_survived_every_removal() {
    let rows = [
        owing(closing(viewer("a"), 0), viewer("b")),
        owing(removed(viewer("c"), 1), viewer("b")),
    ];
    let plan = decide(&[], &rows, Some(&showing(&[viewer("b")])));
    assert_eq!(plan, only!(observe_at: Some(at(1))));
}

#[test]
fn a_neighbour_is_owed_as_long_as_the_removal_may_still_land() {
    let mut row = owing(closing(viewer("a"), 100), viewer("b"));
    row.echo_until = Some(at(100));
    row.removal_echo_until = Some(at(100));
    let plan = decide(&[], &[row], Some(&showing(&[viewer("b")])));
    assert_eq!(plan, only!(observe_at: Some(at(100))));
}

#[test]
fn a_neighbour_that_keeps_vanishing_is_put_back_with_growing_pauses_for_a_week() {
    for (restores, ago, again) in [(1, 3, None), (4, 3, Some(5)), (40, 3, Some(597))] {
        let mut row = owing(closing(viewer("a"), 100), viewer("b"));
        row.must_survive[0].restores = restores;
        row.must_survive[0].restored_at = Some(at(-ago));
        let plan = decide(&[], &[row], Some(&showing(&[])));
        let expected = match again {
            Some(again) => only!(restore_at: Some(at(again)), observe_at: Some(at(100))),
            None => only!(restore: vec![viewer("b")], observe_at: Some(at(100))),
        };
        assert_eq!(plan, expected, "{restores}");
    }
    let mut row = owing(closing(viewer("a"), 100), viewer("b"));
    row.last_write.at = at(0) - RESTORE_PATIENCE;
    let plan = decide(&[], &[row], Some(&showing(&[])));
    assert_eq!(
        plan,
        only!(lost: vec![viewer("b")], observe_at: Some(at(100)))
    );
}

#[test]
fn a_filtered_read_does_not_tell_that_a_neighbour_vanished_or_survived() {
    let rows = [owing(removed(viewer("a"), 10), viewer("b"))];
    let mut snapshot = showing(&[]);
    snapshot.complete = false;
    snapshot.shown = false;
    let plan = decide(&[], &rows, Some(&snapshot));
    assert_eq!(plan, only!(observe_at: Some(at(-8)), blind: true));
}

#[test]
fn a_vanished_standing_neighbour_that_a_grant_wants_is_put_back_not_taken_over() {
    let rows = [owing(closing(viewer("a"), 100), viewer("b"))];
    let plan = decide(&[viewer("b")], &rows, Some(&showing(&[])));
    assert_eq!(
        plan,
        only!(restore: vec![viewer("b")], observe_at: Some(at(100)))
    );
}

#[test]
fn standing_neighbours_are_read_right_before_a_removal_unless_reads_fail() {
    let rows = [live(viewer("a"))];
    let seen = LastSeen {
        at: at(-30),
        assignments: BTreeSet::from([viewer("a"), viewer("b")]),
    };
    let expected = Expected::default();
    let mut view = View {
        expected: &expected,
        owned: &rows,
        snapshot: None,
        last_seen: Some(&seen),
        reads_fail: false,
    };
    assert_eq!(
        plan(&view, at(0), &BOUNDS),
        only!(observe_at: Some(at(0)), removal_waits: true)
    );
    view.reads_fail = true;
    assert_eq!(
        plan(&view, at(0), &BOUNDS),
        only!(remove: vec![viewer("a")])
    );
}

#[test]
fn only_neighbours_that_are_not_ours_or_still_wanted_must_survive() {
    let owned = [live(viewer("a")), live(viewer("b")), live(viewer("c"))];
    let held = BTreeSet::from([viewer("a"), viewer("b"), viewer("c"), viewer("d"), owner()]);
    let survivors = must_survive(&[viewer("a")], &held, &owned, &expecting(&[viewer("b")]));
    assert_eq!(survivors, BTreeSet::from([viewer("b"), viewer("d")]));
}
