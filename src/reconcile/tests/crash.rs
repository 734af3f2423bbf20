//! Killed at every point of a life, twice over, and started again on the same ledger.

use super::world::{Fault, Lands};
use super::*;

/// One life with an overlap and a standing neighbour; killed at `point` after `begin` seconds.
fn life(begin: i64, point: i64, faults: bool) {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("z"));
    if faults {
        bench.world.change(|world| {
            world.adds.push_back(Some(Fault::Unknown(Lands::Now)));
            world.removes.push_back(Some(Fault::Unknown(Lands::Never)));
        });
    }
    let first = bench.grant("ada", &[viewer("a"), editor("b")], 60);
    if begin == 0 {
        bench.world.crash.after(point);
    }
    bench.run(30);
    let second = bench.grant("ada", &[viewer("a")], 60);
    if begin == 30 {
        bench.world.crash.after(point);
    }
    bench.run(29);
    if begin == 60 {
        bench.world.crash.after(point);
    }
    let what = format!("crash after {begin} s at point {point}, faults {faults}");
    bench.run(2 * HOUR);
    for id in [first, second] {
        assert_eq!(bench.cause(id), EndCause::Expired, "{what}");
    }
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("z")]), "{what}");
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_crash_at_any_point_leaves_nothing_behind_and_standing_access_intact() {
    for begin in [0, 30, 60] {
        for point in 0..40 {
            life(begin, point, false);
        }
    }
}

#[test]
fn a_crash_at_any_point_with_unanswered_calls_leaves_nothing_behind() {
    for begin in [0, 60] {
        for point in 0..40 {
            life(begin, point, true);
        }
    }
}

#[test]
fn a_grant_that_was_killed_before_its_first_byte_is_given_after_the_restart() {
    let mut bench = Bench::new();
    bench.world.crash.after(5);
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert!(bench.is_active(id));
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}
