//! Members who leave and come back.

use super::*;
use crate::domain::member::WriteKind;

#[test]
fn a_member_who_left_ends_the_grant_after_two_reads() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.leaves("ada");
    bench.run(60);
    assert_eq!(bench.cause(id), EndCause::MemberLeft);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_member_missing_from_one_read_has_not_left() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    let ada = bench
        .world
        .change(|world| world.people.remove(&user("ada")).expect("a member"));
    let reads = bench.reads();
    while bench.reads() == reads {
        bench.run(1);
    }
    bench
        .world
        .change(|world| world.people.insert(user("ada"), ada));
    bench.run(60);
    assert!(bench.is_active(id));
}

#[test]
fn a_member_who_came_back_gets_nothing_again_and_keeps_what_others_gave() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    // Long enough that what was given certainly belonged to the first membership.
    bench.run(65);
    bench.leaves("ada");
    bench.run(2);
    bench.joins("ada");
    bench.gives("ada", &viewer("a"));
    bench.look_at("ada");
    bench.run(60);
    assert_eq!(bench.cause(id), EndCause::MemberLeft);
    bench.run(2 * HOUR);
    assert!(bench.holds("ada", &viewer("a")), "the new membership's own");
    assert_eq!(bench.removals(), 0);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_member_seen_gone_who_comes_back_with_standing_access_keeps_it() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(65);
    bench.leaves("ada");
    bench.look_at("ada");
    while bench.state(id) != "ended" {
        bench.run(1);
    }
    bench.joins("ada");
    bench.gives("ada", &viewer("a"));
    bench.run(2 * HOUR);
    assert!(bench.holds("ada", &viewer("a")));
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_of_the_new_membership_is_untouched_by_the_old_one() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.leaves("ada");
    bench.run(1);
    bench.joins("ada");
    bench.run(1);
    let second = bench.grant("ada", &[viewer("a")], 600);
    bench.run(60);
    assert!(bench.is_active(second), "{:?}", bench.get(second).state);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn nothing_is_given_to_somebody_the_organization_does_not_show() {
    let mut bench = Bench::new();
    let id = bench.grant("eve", &[viewer("a")], HOUR);
    bench.run(60);
    assert_eq!(bench.cause(id), EndCause::MemberLeft);
    assert_eq!(bench.mutations(), []);
    assert!(bench.reads() <= 4, "{} reads", bench.reads());
    bench.assert_clean(&["eve"]);
}

#[test]
fn an_addition_that_lands_in_the_new_membership_is_removed_however_late_that_is_seen() {
    use super::world::{Fault, Lands};
    let mut bench = Bench::new();
    let late = Fault::Unknown(Lands::After(seconds(200)));
    bench.world.change(|world| world.adds.push_back(Some(late)));
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    let key = bench.key_of(&Subject::Member(user("ada")));
    assert!(bench.pass(&key));
    bench.leaves("ada");
    while bench.state(id) != "ended" {
        bench.run(1);
    }
    bench.joins("ada");
    // The next read comes when the call can no longer land, and shows what it did.
    bench.run(2 * HOUR);
    assert!(!bench.holds("ada", &viewer("a")));
    bench.assert_clean(&["ada"]);
}

#[test]
fn an_answered_addition_that_is_carried_out_again_in_the_new_membership_is_removed() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(3);
    let again = bench.now() + seconds(20);
    bench.world.change(|world| {
        let what = (again, WriteKind::Add, user("ada"), vec![viewer("a")]);
        world.late.push(what);
    });
    bench.leaves("ada");
    bench.joins("ada");
    bench.look_at("ada");
    bench.run(5);
    assert_eq!(bench.cause(id), EndCause::MemberLeft);
    bench.run(120);
    assert!(!bench.holds("ada", &viewer("a")));
    bench.assert_clean(&["ada"]);
}

#[test]
fn what_is_given_to_a_new_membership_is_ours_however_far_the_clocks_are_apart() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(5);
    bench.leaves("ada");
    bench.joins("ada");
    bench.world.change(|world| {
        let ada = world.people.get_mut(&user("ada")).expect("a member");
        ada.since += seconds(300);
    });
    let second = bench.grant("ada", &[viewer("b")], HOUR);
    bench.run(HOUR);
    assert_eq!(bench.cause(first), EndCause::MemberLeft);
    bench.revoke(second);
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_key_that_sees_too_little_to_confirm_that_somebody_left_is_not_asked_in_a_loop() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(20);
    bench.leaves("ada");
    bench.look_at("ada");
    bench.run(2);
    let reads = bench.reads();
    bench.world.change(|world| world.filtered = true);
    bench.run(60);
    assert!(
        bench.reads() - reads < 15,
        "{} reads",
        bench.reads() - reads
    );
    bench.world.change(|world| world.filtered = false);
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}
