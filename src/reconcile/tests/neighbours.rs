//! Entries of one role next to each other: what a removal must not take along.

use super::world::{Delete, Fault, Lands};
use super::*;
use crate::domain::member::LastSeen;
use crate::ports::provider::Refusal;
use crate::reconcile::plan::{Plan, Snapshot};

fn ours() -> Assignment {
    as_role(viewer("a"), "ours")
}

#[test]
fn a_standing_neighbour_that_the_removal_took_along_is_put_back_as_standing() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.delete = Delete::IgnoringApplicationRoles);
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[ours()], 60);
    bench.run(10);
    bench.run_until(bench.expires_at(id) + seconds(30));
    assert_eq!(bench.state(id), "ended");
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("a")]));
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("a")]));
    assert_eq!(bench.record("ada").owned, [], "it is not ours");
}

#[test]
fn a_neighbour_is_put_back_in_the_turn_of_removals_when_none_comes_for_grants() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.delete = Delete::IgnoringApplicationRoles);
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[ours()], 60);
    bench.run(10);
    bench.world.change(|world| world.only_removals = true);
    bench.run_until(bench.expires_at(id) + seconds(30));
    assert_eq!(bench.state(id), "ended");
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("a")]));
}

#[test]
fn a_neighbour_that_keeps_vanishing_is_put_back_when_that_ends() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.run_until(bench.expires_at(id) + TimeDelta::milliseconds(500));
    for _ in 0..30 {
        bench.takes("ada", &viewer("b"));
        bench.run(1);
    }
    assert_eq!(bench.state(id), "ended");
    bench.run(HOUR);
    assert!(
        bench.holds("ada", &viewer("b")),
        "standing access is sacred"
    );
    bench.takes("ada", &viewer("b"));
    bench.run(HOUR);
    assert!(
        !bench.holds("ada", &viewer("b")),
        "nothing is owed any more"
    );
    assert_eq!(bench.record("ada").owned, []);
    assert_eq!(bench.record("ada").due, None);
}

#[test]
fn a_wanted_neighbour_of_ours_that_was_taken_along_is_given_again() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    let short = bench.grant("ada", &[viewer("a")], 60);
    let long = bench.grant("ada", &[viewer("b")], HOUR);
    bench.run(10);
    bench.run_until(bench.expires_at(short) + seconds(30));
    assert!(bench.is_active(long), "{:?}", bench.get(long).state);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_standing_neighbour_survives_a_crash_right_after_the_removal() {
    for point in 0..14 {
        let mut bench = Bench::new();
        bench.world.change(|world| world.delete = Delete::WholeRole);
        bench.gives("ada", &viewer("b"));
        let id = bench.grant("ada", &[viewer("a")], 60);
        bench.run(10);
        bench.run_until(bench.expires_at(id));
        bench.world.crash.after(point);
        bench.run(HOUR);
        assert_eq!(
            bench.held("ada"),
            BTreeSet::from([viewer("b")]),
            "crash at point {point}"
        );
        assert_eq!(bench.record("ada").owned, [], "crash at point {point}");
    }
}

#[test]
fn a_late_removal_does_not_take_a_standing_neighbour_for_good() {
    let mut bench = Bench::new();
    bench.world.change(|world| {
        world.delete = Delete::WholeRole;
        let late = Fault::Unknown(Lands::After(seconds(120)));
        world.removes.push_back(Some(late));
    });
    bench.gives("ada", &viewer("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.run_until(bench.expires_at(id) + seconds(100));
    assert!(bench.holds("ada", &viewer("b")));
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    assert_eq!(bench.record("ada").owned, []);
}

#[test]
fn a_grant_of_a_vanished_standing_neighbour_does_not_make_it_ours() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.gives("ada", &viewer("b"));
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.run_until(bench.expires_at(first) + TimeDelta::milliseconds(500));
    assert!(!bench.holds("ada", &viewer("b")), "it was taken along");
    let second = bench.grant("ada", &[viewer("b")], 60);
    bench.run(30);
    assert!(bench.is_active(second));
    assert_eq!(bench.get(second).assignments[0].holding, Holding::Standing);
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
}

#[test]
fn giving_the_removed_pair_again_does_not_forget_its_neighbour() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.gives("ada", &viewer("b"));
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.run_until(bench.expires_at(first) + TimeDelta::milliseconds(500));
    bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let both = BTreeSet::from([viewer("a"), viewer("b")]);
    assert_eq!(bench.held("ada"), both);
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
}

#[test]
fn an_upstream_that_answers_nothing_for_a_while_loses_no_neighbour() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.gives("ada", &viewer("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.world.change(|world| {
        let broken = vec![Some(Fault::Unknown(Lands::Never)); 6];
        world.adds.extend(broken);
    });
    bench.run_until(bench.expires_at(id) + seconds(600));
    assert!(bench.holds("ada", &viewer("b")));
    assert_eq!(
        bench.drift("survivor_missing"),
        1,
        "one event for seven tries"
    );
}

#[test]
fn all_is_exchanged_for_one_target_without_losing_it() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    let all = bench.grant("ada", &[viewer("all")], 60);
    bench.run(10);
    let mut ask = Ask::new("ada", &[viewer("a")], HOUR);
    ask.starts_at = Some(bench.expires_at(all));
    let one = bench.ask(&ask);
    bench.run(120);
    assert!(bench.is_active(one));
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("a")]));
    assert_eq!(bench.mutations().len(), 3, "the removal went first");
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn what_a_removal_took_along_and_a_grant_wants_before_anybody_looked_is_given_again() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    let short = bench.grant("ada", &[viewer("a")], 60);
    let other = bench.grant("ada", &[viewer("b")], HOUR);
    bench.run(10);
    let end = bench.expires_at(short);
    bench.run_until(end - TimeDelta::milliseconds(500));
    // The other one goes as well, but not with the same call.
    bench.world.change(|world| {
        let refused = Refusal::Forbidden {
            code: "no".to_owned(),
        };
        world.removes.push_back(Some(Fault::Refuse(refused)));
    });
    bench.revoke(other);
    let key = bench.key_of(&Subject::Member(user("ada")));
    bench.run_until(end);
    assert!(bench.pass(&key));
    let wanted = bench.grant("ada", &[viewer("b")], HOUR);
    bench.run(30);
    assert!(bench.is_active(wanted), "{:?}", bench.get(wanted).state);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_late_removal_that_took_a_neighbour_along_is_remembered_when_it_is_closed() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.delete = Delete::IgnoringApplicationRoles);
    let long = bench.grant("ada", &[viewer("a")], 2 * HOUR);
    let short = bench.grant("ada", &[ours()], 60);
    bench.run(10);
    let late = Fault::Unknown(Lands::After(seconds(590)));
    bench
        .world
        .change(|world| world.removes.push_back(Some(late)));
    bench.run_until(bench.expires_at(short) + seconds(1_200));
    assert_eq!(bench.cause(short), EndCause::Expired);
    assert!(bench.is_active(long), "{:?}", bench.get(long).state);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(3 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn what_is_wanted_again_right_after_its_removal_is_not_proven_by_a_read_of_the_past() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.world.change(|world| world.lag = seconds(1));
    let end = bench.expires_at(first);
    bench.run_until(end + TimeDelta::milliseconds(50));
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    bench
        .world
        .change(|world| world.adds.push_back(Some(Fault::Lie)));
    bench.run(30);
    assert!(bench.is_active(second), "{:?}", bench.get(second).state);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn what_a_filtered_read_does_not_show_counts_as_seen_no_later_than_before() {
    let bench = Bench::new();
    let now = bench.now();
    let key = bench.key_of(&Subject::Member(user("ada")));
    let mut record = MemberRecord::new(key);
    let seen = LastSeen {
        at: now,
        assignments: BTreeSet::from([ours(), viewer("a")]),
    };
    record.last_seen = Some(seen.clone());
    let mut draft = Draft::new(record);
    let filtered = Snapshot {
        started_at: now + seconds(60),
        complete: false,
        shown: true,
        assignments: BTreeSet::from([viewer("a")]),
        owners: 0,
    };
    let plan = Plan::default();
    draft.settle(&plan, Some(&filtered), filtered.started_at, &bench.settings);
    assert_eq!(
        draft.record.last_seen,
        Some(seen),
        "a removal in between may have taken it along"
    );
}
