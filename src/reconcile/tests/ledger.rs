//! A ledger that cannot be written, or does not say whether it was.

use super::world::{Delete, Fault, Lands};
use super::*;

fn read_only(bench: &Bench, is: bool) {
    bench.ledger.read_only.store(is, Ordering::SeqCst);
}

fn removed_events(bench: &Bench) -> (usize, usize) {
    use crate::domain::member::WriteKind;
    let events = bench.events();
    let intended = |event: &&EventKind| {
        matches!(
            event,
            EventKind::CallIntended {
                write: WriteKind::Remove,
                ..
            }
        )
    };
    let ended = |event: &&EventKind| {
        matches!(
            event,
            EventKind::CallEnded {
                write: WriteKind::Remove,
                ..
            }
        )
    };
    (
        events.iter().filter(intended).count(),
        events.iter().filter(ended).count(),
    )
}

#[test]
fn what_was_removed_on_a_full_disk_is_in_the_audit_afterwards() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let end = bench.expires_at(id);
    read_only(&bench, true);
    bench.run_until(end + seconds(120));
    assert!(!bench.holds("ada", &viewer("a")));
    let sent = bench.removals();
    assert_eq!(sent, 1, "it was answered, and is not sent over and over");
    assert_eq!(removed_events(&bench), (0, 0), "nothing could be written");
    read_only(&bench, false);
    bench.run(60);
    let (intended, ended) = removed_events(&bench);
    assert_eq!((intended, ended), (bench.removals(), bench.removals()));
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn an_unanswered_removal_on_a_full_disk_that_lands_late_is_no_drift_of_what_was_given_again() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(10);
    let late = Fault::Unknown(Lands::After(seconds(60)));
    bench
        .world
        .change(|world| world.removes.push_back(Some(late)));
    bench.revoke(first);
    read_only(&bench, true);
    bench.run_until(bench.now() + TimeDelta::milliseconds(500));
    assert_eq!(bench.removals(), 1, "it was sent without a record");
    assert_eq!(removed_events(&bench), (0, 0));
    read_only(&bench, false);
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(20);
    assert!(bench.is_active(second));
    bench.run(300);
    assert!(bench.holds("ada", &viewer("a")), "it was added again");
    assert!(bench.is_active(second), "{:?}", bench.get(second).state);
    assert_eq!(bench.drift("missing"), 0);
    bench.run(3 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_neighbour_keeps_access_from_being_removed_on_a_full_disk_until_removals_are_known_to_be_exact()
{
    for is_known in [false, true] {
        let mut bench = Bench::new();
        bench.gives("ada", &viewer("b"));
        if is_known {
            bench.grant("ada", &[viewer("c")], 60);
            bench.run(HOUR);
        }
        let id = bench.grant("ada", &[viewer("a")], 60);
        bench.run(30);
        let end = bench.expires_at(id);
        read_only(&bench, true);
        bench.run_until(end + seconds(60));
        assert_eq!(
            !bench.holds("ada", &viewer("a")),
            is_known,
            "known {is_known}"
        );
        assert!(bench.holds("ada", &viewer("b")));
        read_only(&bench, false);
        bench.run(HOUR);
        assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    }
}

#[test]
fn a_removal_that_took_a_neighbour_along_once_is_never_trusted_again() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.gives("ada", &viewer("b"));
    bench.grant("ada", &[viewer("c")], 60);
    bench.run(HOUR);
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let end = bench.expires_at(id);
    read_only(&bench, true);
    bench.run_until(end + seconds(60));
    assert!(bench.holds("ada", &viewer("a")) && bench.holds("ada", &viewer("b")));
    read_only(&bench, false);
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
}

#[test]
fn the_last_owner_is_kept_on_a_full_disk_too() {
    let mut bench = Bench::new();
    let owner = on("organization-admin", "");
    let id = bench.grant("ada", std::slice::from_ref(&owner), 60);
    bench.run(30);
    let end = bench.expires_at(id);
    bench.takes("boss", &owner);
    read_only(&bench, true);
    bench.run_until(end + seconds(60));
    assert!(bench.holds("ada", &owner));
    assert_eq!(bench.removals(), 0);
    read_only(&bench, false);
    bench.gives("boss", &owner);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_commit_of_unknown_outcome_is_read_back_wherever_it_happens() {
    for landed in [false, true] {
        for after in 0..24 {
            let mut bench = Bench::new();
            bench.ledger.unknown(after, landed);
            let id = bench.grant("ada", &[viewer("a")], 60);
            bench.run(200);
            let what = format!("commit {after}, landed {landed}");
            assert_eq!(bench.cause(id), EndCause::Expired, "{what}");
            bench.run(HOUR);
            bench.assert_clean(&["ada"]);
            assert_eq!(bench.mutations().len(), 2, "{what}: nothing is sent twice");
        }
    }
}

#[test]
fn a_commit_that_happened_unheard_does_not_end_its_pass() {
    for after in 0..4 {
        let mut bench = Bench::new();
        bench.ledger.unknown(after, true);
        let id = bench.grant("ada", &[viewer("a")], 60);
        let key = bench.record("ada").key;
        ready(bench.reconciler.pass(&key)).expect("found by reading back");
        bench.run(5);
        assert!(bench.is_active(id));
    }
}
