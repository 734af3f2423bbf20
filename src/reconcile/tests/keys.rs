//! Keys that change, keys that are refused everything, identities that are not known.

use super::world::Fault;
use super::*;
use crate::ports::ownership::Standing;
use crate::ports::provider::Refusal;

fn unauthenticated() -> Option<Fault> {
    let code = "root.unauthenticated".to_owned();
    Some(Fault::Refuse(Refusal::Unauthenticated { code }))
}

#[test]
fn a_new_key_ends_the_pauses_of_everybody_who_waits() {
    let mut bench = Bench::new();
    let ids = [
        bench.grant("ada", &[viewer("a")], 60),
        bench.grant("bob", &[editor("b")], 60),
    ];
    bench.run(10);
    bench.world.change(|world| {
        world.removes.extend(vec![unauthenticated(); 1_000]);
        world.reads_down = true;
    });
    bench.run(HOUR);
    assert!(ids.iter().all(|id| bench.state(*id) == "revoking"));
    bench.world.change(|world| {
        world.removes.clear();
        world.reads_down = false;
        world.pin += 1;
    });
    ready(bench.reconciler.notice_key());
    bench.run(5);
    for name in ["ada", "bob"] {
        assert_eq!(
            bench.held(name),
            BTreeSet::new(),
            "{name} waits for its pause"
        );
    }
    bench.run(HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn a_key_that_is_refused_every_removal_is_at_fault_whoever_asks() {
    let mut bench = Bench::new();
    let ids = [
        bench.grant("ada", &[viewer("a")], 60),
        bench.grant("bob", &[editor("b")], 60),
    ];
    bench.run(10);
    // It still sees what an owner sees, and may change nothing.
    bench.world.change(|world| world.deny_all = true);
    bench.run(HOUR);
    assert!(ids.iter().all(|id| bench.state(*id) == "revoking"));
    let blocked = ["ada", "bob"].map(|name| bench.record(name).owned[0].blocked.is_some());
    assert_eq!(blocked, [false, false]);
    let board = bench.reconciler.observer.board();
    assert!(board.is_key_refused(crate::ports::provider::KeyPin(1)));
    bench.world.change(|world| world.deny_all = false);
    bench.run(120);
    let board = bench.reconciler.observer.board();
    assert!(!board.is_key_refused(crate::ports::provider::KeyPin(1)));
    bench.run(HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn the_own_identity_stays_protected_while_a_new_key_has_not_named_it() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.status.own_user_id = Some(user("ada")));
    bench.grant("bob", &[viewer("a")], 60);
    bench.run(10);
    bench.world.change(|world| {
        world.status.own_user_id = None;
        world.pin += 1;
    });
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(60);
    let code = "own_identity".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    assert!(!bench.holds("ada", &viewer("a")));
}

#[test]
fn an_owner_whose_removal_may_still_land_is_not_counted_as_one_who_is_left() {
    for restart in [false, true] {
        let mut bench = Bench::new();
        let owner = on("organization-admin", "");
        let first = bench.grant("ada", std::slice::from_ref(&owner), 60);
        let second = bench.grant("bob", std::slice::from_ref(&owner), 120);
        bench.run(10);
        bench.takes("boss", &owner);
        bench.world.change(|world| {
            let late = Fault::Unknown(super::world::Lands::After(seconds(100)));
            // The first removal has no answer and lands late; meanwhile it is refused.
            world.removes.push_back(Some(late));
            let refused = || Some(Fault::Refuse(Refusal::Throttled { retry_after: None }));
            world.removes.extend((0..30).map(|_| refused()));
        });
        bench.run_until(bench.expires_at(first) + seconds(5));
        if restart {
            bench.restart();
        }
        bench.world.change(|world| world.removes.clear());
        bench.run(600);
        let left = ["ada", "bob"]
            .iter()
            .filter(|name| bench.holds(name, &owner));
        assert!(left.count() >= 1, "restart {restart}: nobody is an owner");
        assert_ne!(
            (bench.state(first), bench.state(second)),
            ("ended", "ended")
        );
        bench.gives("boss", &owner);
        bench.run(2 * HOUR);
        bench.assert_clean(&["ada", "bob"]);
    }
}

#[test]
fn an_owner_removed_by_an_earlier_process_is_not_counted_by_a_read_that_still_shows_it() {
    for restart in [false, true] {
        let mut bench = Bench::new();
        let owner = on("organization-admin", "");
        let first = bench.grant("ada", std::slice::from_ref(&owner), 60);
        let second = bench.grant("bob", std::slice::from_ref(&owner), 120);
        bench.run(30);
        bench.takes("boss", &owner);
        bench.run_until(bench.expires_at(first) - seconds(3));
        // What was cached somewhere upstream is served for a while.
        bench
            .world
            .change(|world| world.lag = TimeDelta::milliseconds(1_900));
        bench.run_until(bench.expires_at(first) + TimeDelta::milliseconds(200));
        assert!(!bench.holds("ada", &owner), "somebody else is an owner");
        if restart {
            bench.restart();
        }
        bench.revoke(second);
        bench.run(60);
        assert!(
            bench.holds("bob", &owner),
            "restart {restart}: nobody is an owner"
        );
        bench.gives("boss", &owner);
        bench.run(2 * HOUR);
        bench.assert_clean(&["ada", "bob"]);
    }
}

/// Runs passes over one member alone, a second apart.
fn pass_over(bench: &mut Bench, name: &str, times: usize) {
    let key = bench.record(name).key;
    for _ in 0..times {
        bench.pass(&key);
        bench.clock.advance(seconds(1));
    }
}

#[test]
fn what_is_known_of_removed_owners_outlives_a_claim_as_far_as_it_must() {
    // Answered by another process under its claim, or sent by this one without a record and without an answer.
    for unrecorded in [false, true] {
        let mut bench = Bench::new();
        let standing = Arc::new(Standing::none());
        let for_ever = std::time::Duration::from_secs(1 << 40);
        standing.hold(1, for_ever);
        let settings = bench.settings;
        let own = build(&bench.clock, &bench.world, &bench.ledger, settings);
        bench.reconciler = own.under(Arc::clone(&standing));
        let owner = on("organization-admin", "");
        let first = bench.grant("ada", std::slice::from_ref(&owner), 60);
        let second = bench.grant("bob", std::slice::from_ref(&owner), 300);
        let third = bench.grant("boss", std::slice::from_ref(&viewer("a")), 60);
        bench.run(30);
        bench.takes("boss", &owner);
        assert!(bench.is_active(third));
        bench.run_until(bench.expires_at(first) - seconds(3));
        let end = bench.expires_at(first);
        if unrecorded {
            let late = Fault::Unknown(super::world::Lands::After(seconds(100)));
            bench
                .world
                .change(|world| world.removes.push_back(Some(late)));
            bench.ledger.read_only.store(true, Ordering::SeqCst);
            bench.run_until(end + TimeDelta::milliseconds(500));
            assert_eq!(bench.removals(), 1, "sent without a record");
            bench.ledger.read_only.store(false, Ordering::SeqCst);
        } else {
            // This process has looked up what there is under its first claim.
            pass_over(&mut bench, "bob", 1);
            bench.clock.advance(end - bench.now());
            let other = build(&bench.clock, &bench.world, &bench.ledger, settings);
            let ours = std::mem::replace(&mut bench.reconciler, other);
            bench
                .world
                .change(|world| world.lag = TimeDelta::milliseconds(1_900));
            pass_over(&mut bench, "ada", 1);
            assert!(!bench.holds("ada", &owner), "bob is an owner");
            bench.reconciler = ours;
        }
        standing.lose();
        standing.hold(2, for_ever);
        bench.revoke(second);
        pass_over(&mut bench, "bob", 10);
        bench.run(200);
        let left = ["ada", "bob"]
            .iter()
            .filter(|name| bench.holds(name, &owner));
        assert!(
            left.count() > 0,
            "unrecorded {unrecorded}: nobody is an owner"
        );
        bench.world.change(|world| world.lag = TimeDelta::zero());
        bench.gives("boss", &owner);
        bench.run(2 * HOUR);
        bench.assert_clean(&["ada", "bob"]);
    }
}
