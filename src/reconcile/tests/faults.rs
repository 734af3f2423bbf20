//! Calls that break off, land late, lie, are throttled; reads that fail or show too little; a full disk.

use super::world::{Fault, Lands};
use super::*;
use crate::ports::provider::Refusal;

fn adds(bench: &Bench, fault: Fault) {
    bench
        .world
        .change(|world| world.adds.push_back(Some(fault)));
}

fn removes(bench: &Bench, fault: Fault) {
    bench
        .world
        .change(|world| world.removes.push_back(Some(fault)));
}

fn run_to_clean(bench: &mut Bench) {
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn an_unanswered_addition_that_happened_is_found_by_reading() {
    let mut bench = Bench::new();
    adds(&bench, Fault::Unknown(Lands::Now));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(5);
    assert!(bench.is_active(id));
    assert_eq!(bench.mutations().len(), 1, "it is not sent again");
    run_to_clean(&mut bench);
}

#[test]
fn an_unanswered_addition_that_did_not_happen_is_sent_again() {
    let mut bench = Bench::new();
    adds(&bench, Fault::Unknown(Lands::Never));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert!(bench.is_active(id));
    assert_eq!(bench.mutations().len(), 2);
    run_to_clean(&mut bench);
}

#[test]
fn an_addition_that_lands_after_the_removal_is_removed_by_the_second_look() {
    let mut bench = Bench::new();
    adds(&bench, Fault::Unknown(Lands::After(seconds(300))));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(200);
    assert_eq!(bench.state(id), "ended");
    assert!(!bench.holds("ada", &viewer("a")));
    bench.run(150);
    assert!(bench.holds("ada", &viewer("a")), "the late addition landed");
    bench.run(10 * 60);
    assert!(!bench.holds("ada", &viewer("a")));
    assert_eq!(bench.drift("resurrected"), 1);
    assert_eq!(bench.state(id), "ended", "the receipt does not revive it");
    run_to_clean(&mut bench);
}

#[test]
fn an_unanswered_removal_is_sent_again_when_it_is_still_shown() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    for _ in 0..6 {
        removes(&bench, Fault::Unknown(Lands::Never));
    }
    bench.run_until(bench.expires_at(id) + seconds(100));
    assert_eq!(bench.state(id), "ended", "well before a look after minutes");
    assert_eq!(bench.removals(), 7);
    run_to_clean(&mut bench);
}

#[test]
fn unanswered_removals_go_on_while_reads_fail() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    removes(&bench, Fault::Unknown(Lands::Never));
    bench.world.change(|world| world.reads_down = true);
    bench.run_until(end + seconds(120));
    assert!(!bench.holds("ada", &viewer("a")));
    assert_eq!(bench.state(id), "revoking", "nothing has proven it");
    bench.world.change(|world| world.reads_down = false);
    bench.run(120);
    assert_eq!(bench.state(id), "ended");
    run_to_clean(&mut bench);
}

#[test]
fn a_late_removal_of_a_pair_given_again_is_no_drift() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    removes(&bench, Fault::Unknown(Lands::After(seconds(40))));
    bench.revoke(first);
    bench.run(1);
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(10);
    assert!(bench.is_active(second));
    bench.run(300);
    assert!(bench.holds("ada", &viewer("a")), "it was added again");
    assert!(bench.is_active(second), "{:?}", bench.get(second).state);
    assert_eq!(bench.drift("missing"), 0);
    run_to_clean(&mut bench);
}

#[test]
fn a_removal_that_is_acknowledged_but_not_done_is_repeated_with_growing_pauses() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    for _ in 0..200 {
        removes(&bench, Fault::Lie);
    }
    bench.run_until(end + seconds(HOUR));
    assert_eq!(bench.state(id), "revoking");
    let sent = bench.removals();
    assert!((30..=90).contains(&sent), "{sent} removals in an hour");
    bench.world.change(|world| world.removes.clear());
    bench.run(120);
    assert_eq!(bench.state(id), "ended");
    run_to_clean(&mut bench);
}

#[test]
fn an_addition_that_is_acknowledged_but_not_done_never_becomes_active() {
    let mut bench = Bench::new();
    for _ in 0..10_000 {
        adds(&bench, Fault::Lie);
    }
    let id = bench.grant("ada", &[viewer("a")], 600);
    bench.run(300);
    assert_eq!(bench.state(id), "activating");
    run_to_clean(&mut bench);
    let code = "not_verified_in_time".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
}

#[test]
fn throttled_and_unsent_calls_are_tried_again() {
    let mut bench = Bench::new();
    adds(
        &bench,
        Fault::Refuse(Refusal::Throttled { retry_after: None }),
    );
    let code = "connect".to_owned();
    adds(&bench, Fault::Refuse(Refusal::NotSent { code }));
    adds(&bench, Fault::Refuse(Refusal::KeyRotated));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(20);
    assert!(bench.is_active(id));
    let code = "root.unauthorized".to_owned();
    removes(
        &bench,
        Fault::Refuse(Refusal::Throttled { retry_after: None }),
    );
    removes(&bench, Fault::Refuse(Refusal::Unauthenticated { code }));
    bench.run_until(bench.expires_at(id) + seconds(20));
    assert_eq!(bench.state(id), "ended");
    run_to_clean(&mut bench);
}

#[test]
fn a_key_that_is_refused_for_a_day_delays_removals_and_loses_none() {
    let mut bench = Bench::new();
    let ids = [
        bench.grant("ada", &[viewer("a")], 60),
        bench.grant("bob", &[editor("b")], 90),
    ];
    bench.run(10);
    for _ in 0..10_000 {
        let code = "root.unauthorized".to_owned();
        removes(&bench, Fault::Refuse(Refusal::Unauthenticated { code }));
    }
    bench.world.change(|world| world.reads_down = true);
    bench.run(24 * HOUR);
    assert!(ids.iter().all(|id| bench.state(*id) == "revoking"));
    bench.world.change(|world| {
        world.removes.clear();
        world.reads_down = false;
    });
    bench.run(120);
    assert!(ids.iter().all(|id| bench.state(*id) == "ended"));
    run_to_clean(&mut bench);
}

#[test]
fn stale_reads_within_the_bound_change_nothing() {
    let mut bench = Bench::new();
    bench.run(5);
    bench
        .world
        .change(|world| world.lag = TimeDelta::milliseconds(1_900));
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert!(bench.is_active(first));
    bench.revoke(first);
    bench.run(1);
    let second = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert!(bench.is_active(second));
    assert!(bench.holds("ada", &viewer("a")));
    assert_eq!(bench.drift("missing") + bench.drift("resurrected"), 0);
    run_to_clean(&mut bench);
}

#[test]
fn a_key_that_sees_too_little_gives_nothing_and_says_why() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.filtered = true);
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(60);
    let code = "key_not_owner".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    assert_eq!(bench.mutations(), []);
    bench.world.change(|world| world.filtered = false);
    run_to_clean(&mut bench);
}

#[test]
fn filtered_reads_never_prove_that_access_is_gone() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    removes(&bench, Fault::Lie);
    bench.world.change(|world| world.filtered = true);
    bench.run_until(end + seconds(HOUR));
    assert_eq!(bench.state(id), "revoking");
    let error = bench.get(id).last_error.expect("said why");
    assert_eq!(error.code, "key_not_owner");
    bench.world.change(|world| world.filtered = false);
    bench.run(180);
    assert_eq!(bench.state(id), "ended");
    run_to_clean(&mut bench);
}

#[test]
fn filtered_reads_take_no_active_grant_for_stripped() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.world.change(|world| world.filtered = true);
    bench.run(300);
    assert!(bench.is_active(id));
    bench.world.change(|world| world.filtered = false);
    bench.run(300);
    assert!(bench.is_active(id));
    run_to_clean(&mut bench);
}

#[test]
fn access_due_on_a_full_disk_is_still_removed() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let end = bench.expires_at(id);
    bench.ledger.read_only.store(true, Ordering::SeqCst);
    bench.run_until(end + seconds(5));
    assert!(!bench.holds("ada", &viewer("a")));
    assert_eq!(bench.state(id), "active", "nothing could be written");
    bench.ledger.read_only.store(false, Ordering::SeqCst);
    bench.run(60);
    assert_eq!(bench.cause(id), EndCause::Expired);
    run_to_clean(&mut bench);
}

#[test]
fn nothing_is_given_on_a_full_disk() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.ledger.read_only.store(true, Ordering::SeqCst);
    bench.run(30);
    assert_eq!(bench.mutations(), []);
    bench.ledger.read_only.store(false, Ordering::SeqCst);
    bench.run(10);
    assert!(bench.is_active(id));
    run_to_clean(&mut bench);
}

#[test]
fn every_call_has_an_intent_before_and_an_outcome_after() {
    let mut bench = Bench::new();
    adds(&bench, Fault::Unknown(Lands::Never));
    removes(&bench, Fault::Refuse(Refusal::KeyRotated));
    bench.grant("ada", &[viewer("a")], 60);
    run_to_clean(&mut bench);
    let events = bench.events();
    let intents = events
        .iter()
        .filter(|event| matches!(event, EventKind::CallIntended { .. }))
        .count();
    let outcomes = events
        .iter()
        .filter(|event| matches!(event, EventKind::CallEnded { .. }))
        .count();
    assert_eq!((intents, outcomes), (4, 4));
    assert_eq!(bench.mutations().len(), 4);
}
