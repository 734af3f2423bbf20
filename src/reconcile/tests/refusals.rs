//! Refused calls: one poisoned id in a set, keys without rights, the last owner, the connector's own identity.

use super::world::Call;
use super::*;

#[test]
fn one_hidden_deployment_blocks_its_own_pair_only_and_goes_once_it_is_back() {
    let mut bench = Bench::new();
    let wants = [viewer("a"), viewer("b"), editor("c")];
    let id = bench.grant("ada", &wants, 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run_until(end + seconds(30));
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    assert_eq!(bench.state(id), "revoking");
    let record = bench.record("ada");
    let blocked = record.owned(&viewer("b")).expect("still ours");
    let blocked = blocked.blocked.clone().expect("blocked by the provider");
    assert_eq!(blocked.code, "root.unauthorized");
    let sent = bench.removals();
    bench.run(HOUR);
    let retries = bench.removals() - sent;
    assert!((4..=8).contains(&retries), "{retries} retries in an hour");
    bench.world.change(|world| world.hidden.clear());
    bench.run(15 * 60);
    assert_eq!(bench.state(id), "ended");
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_single_hidden_pair_is_blocked_while_the_key_sees_everything_else() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("b")], 60);
    bench.run(10);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run(300);
    let record = bench.record("ada");
    assert!(record.owned[0].blocked.is_some());
    bench.world.change(|world| world.hidden.clear());
    bench.run(15 * 60);
    assert_eq!(bench.state(id), "ended");
}

#[test]
fn when_everything_is_refused_the_key_is_at_fault_and_no_pair_is_blocked() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), editor("b")], 60);
    bench.run(10);
    bench.world.change(|world| {
        world.deny_all = true;
        world.filtered = true;
        world.status.sees_owners = Some(false);
    });
    bench.run(HOUR);
    assert_eq!(bench.state(id), "revoking");
    let record = bench.record("ada");
    assert!(record.owned.iter().all(|row| row.blocked.is_none()));
    let sent = bench.removals();
    assert!(sent < 300, "{sent} removals in an hour");
    bench.world.change(|world| {
        world.deny_all = false;
        world.filtered = false;
        world.status.sees_owners = Some(true);
    });
    bench.run(180);
    assert_eq!(bench.state(id), "ended");
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_blocked_pair_that_stays_refused_does_not_come_back_without_pause() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run_until(end + seconds(30));
    // By the time of the retry the key has lost its rights too.
    bench
        .world
        .change(|world| world.status.sees_owners = Some(false));
    let sent = bench.removals();
    bench.run(HOUR);
    let retries = bench.removals() - sent;
    assert!((4..=8).contains(&retries), "{retries} retries in an hour");
}

#[test]
fn a_refused_addition_fails_the_grant_and_leaves_nothing_owned() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.poisoned.insert(viewer("a")));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let code = "role_assignments.invalid".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    assert_eq!(bench.mutations().len(), 1);
    bench.assert_clean(&["ada"]);
}

#[test]
fn one_poisoned_addition_fails_its_own_grant_only() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.poisoned.insert(viewer("b")));
    let ids = ["a", "b", "c"].map(|id| bench.grant("ada", &[viewer(id)], HOUR));
    bench.run(20);
    assert!(bench.is_active(ids[0]) && bench.is_active(ids[2]));
    let code = "role_assignments.invalid".to_owned();
    assert_eq!(bench.cause(ids[1]), EndCause::ActivationFailed { code });
    let later = bench.grant("ada", &[editor("a"), editor("b")], HOUR);
    bench.run(10);
    assert!(bench.is_active(later));
    assert!(
        bench
            .mutations()
            .contains(&Call::Add(vec![editor("a"), editor("b")])),
        "sets are tried again"
    );
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_with_one_poisoned_pair_gives_back_the_other() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.poisoned.insert(viewer("b")));
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
    bench.run(60);
    let code = "role_assignments.invalid".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    assert_eq!(bench.held("ada"), BTreeSet::new());
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn the_last_owner_is_blocked_loudly_until_there_is_another() {
    let mut bench = Bench::new();
    let owner = on("organization-admin", "");
    let id = bench.grant("ada", std::slice::from_ref(&owner), 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench.takes("boss", &owner);
    bench.run_until(end + seconds(60));
    assert!(bench.holds("ada", &owner));
    assert_eq!(bench.state(id), "revoking");
    let error = bench.get(id).last_error.expect("said why");
    assert_eq!(error.code, "last_owner");
    assert_eq!(bench.removals(), 0);
    bench.gives("boss", &owner);
    bench.run(15 * 60);
    assert_eq!(bench.state(id), "ended");
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn two_owners_whose_access_ends_together_do_not_count_each_other() {
    let mut bench = Bench::new();
    let owner = on("organization-admin", "");
    let ids = ["ada", "bob"].map(|name| bench.grant(name, std::slice::from_ref(&owner), 60));
    bench.run(10);
    bench.takes("boss", &owner);
    // Reads are as stale as they may be: the second sees the first as an owner still.
    bench
        .world
        .change(|world| world.lag = TimeDelta::milliseconds(1_900));
    bench.run(300);
    let states = ids.map(|id| bench.state(id));
    assert_eq!(
        states.iter().filter(|state| **state == "ended").count(),
        1,
        "{states:?}"
    );
    let left = ["ada", "bob"]
        .iter()
        .filter(|name| bench.holds(name, &owner));
    assert_eq!(left.count(), 1, "one owner is left");
    bench.gives("boss", &owner);
    bench.run(HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn the_connectors_own_identity_is_never_touched() {
    let mut bench = Bench::new();
    bench
        .world
        .change(|world| world.status.own_user_id = Some(user("ada")));
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(60);
    let code = "own_identity".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    assert_eq!(bench.mutations(), []);
    bench.assert_clean(&["ada"]);
}

#[test]
fn access_of_somebody_who_became_the_own_identity_is_blocked_not_removed() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench
        .world
        .change(|world| world.status.own_user_id = Some(user("ada")));
    bench.run(HOUR);
    assert_eq!(bench.removals(), 0);
    assert_eq!(
        bench.get(id).last_error.map(|error| error.code),
        Some("own_identity".to_owned())
    );
    // The key of another member.
    bench
        .world
        .change(|world| world.status.own_user_id = Some(user("boss")));
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn whoever_changed_the_reason_of_a_refusal_need_not_wait_for_the_next_try() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    let hidden = viewer("b").target;
    bench.world.change(|world| world.hidden.insert(hidden));
    bench.run_until(end + seconds(30));
    let waits_until = |bench: &Bench| {
        let record = bench.record("ada");
        let row = record.owned(&viewer("b")).expect("still ours");
        row.blocked.as_ref().expect("refused").retry_at
    };
    assert!(waits_until(&bench) > bench.now() + seconds(60));
    bench.world.change(|world| world.hidden.clear());
    let key = bench.record("ada").key;
    ready(bench.reconciler.hurry(&key)).expect("the ledger works");
    assert_eq!(waits_until(&bench), bench.now());
    let version = bench.record("ada").version;
    ready(bench.reconciler.hurry(&key)).expect("the ledger works");
    assert_eq!(
        bench.record("ada").version,
        version,
        "there is nothing left to hurry"
    );
    bench.look_at("ada");
    bench.run(10);
    assert_eq!(bench.state(id), "ended");
}

#[test]
fn a_pause_after_failures_ends_for_whoever_hurries() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.reads_down = true);
    let id = bench.grant("ada", &[viewer("a")], 600);
    bench.run(120);
    assert!(bench.record("ada").backoff.is_some());
    bench.world.change(|world| world.reads_down = false);
    let key = bench.record("ada").key;
    ready(bench.reconciler.hurry(&key)).expect("the ledger works");
    assert_eq!(bench.record("ada").backoff, None);
    bench.look_at("ada");
    bench.run(2);
    assert!(bench.is_active(id));
}

#[test]
fn one_pair_in_each_call_gives_and_takes_the_same_in_more_calls() {
    let mut bench = Bench::new();
    bench.settings.one_pair_per_call = true;
    bench.restart();
    let wants = [viewer("a"), viewer("b"), editor("c")];
    let id = bench.grant("ada", &wants, 60);
    bench.run(30);
    assert!(bench.is_active(id));
    bench.run(HOUR);
    assert_eq!(bench.state(id), "ended");
    let calls = bench.mutations();
    assert_eq!(calls.len(), 2 * wants.len());
    for call in calls {
        match call {
            Call::Add(set) | Call::Remove(set) => assert_eq!(set.len(), 1, "{set:?}"),
            Call::Read | Call::Invite | Call::CancelInvitation | Call::Invitations => {
                panic!("no change: {call:?}")
            }
        }
    }
    bench.assert_clean(&["ada"]);
}
