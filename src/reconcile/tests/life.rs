//! Grants come and go: activation, expiry, overlap, standing access, extension.

use super::*;
use crate::domain::grant::EndCause;

#[test]
fn a_grant_is_active_once_read_back_and_gone_at_its_end() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(1);
    assert!(bench.is_active(id));
    assert!(bench.holds("ada", &viewer("a")));
    let end = bench.expires_at(id);
    bench.run_until(end - seconds(1));
    assert!(bench.holds("ada", &viewer("a")));
    bench.run_until(end + seconds(1));
    assert!(!bench.holds("ada", &viewer("a")), "removed at its end");
    bench.run(10);
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
    let (add, remove) = (
        Call::Add(vec![viewer("a")]),
        Call::Remove(vec![viewer("a")]),
    );
    assert_eq!(bench.mutations(), [add, remove]);
}

#[test]
fn overlapping_grants_of_one_role_have_no_gap_and_one_removal() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let second = bench.grant("ada", &[viewer("a")], 60);
    bench.run(3);
    assert!(
        bench.is_active(second),
        "the second is verified by its own read"
    );
    assert!(bench.get(second).assignments[0].holding == Holding::Owned);
    let (one, two) = (bench.expires_at(first), bench.expires_at(second));
    bench.run_until(one + seconds(5));
    assert_eq!(bench.state(first), "ended");
    assert!(bench.holds("ada", &viewer("a")));
    bench.run_until(two + seconds(1));
    assert!(!bench.holds("ada", &viewer("a")));
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
    assert_eq!(bench.mutations().len(), 2, "one POST, one DELETE");
}

#[test]
fn different_roles_that_expire_together_cost_one_removal() {
    let mut bench = Bench::new();
    let end = bench.now() + seconds(120);
    for wants in [viewer("a"), editor("b"), on("billing-admin", "")] {
        let mut ask = Ask::new("ada", &[wants], HOUR);
        ask.not_after = Some(end);
        bench.ask(&ask);
    }
    bench.run_until(end + seconds(60));
    assert_eq!(bench.mutations().len(), 2);
    assert_eq!(bench.removals(), 1);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn standing_access_covers_a_grant_and_stays_when_the_grant_ends() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(1);
    assert!(bench.is_active(id));
    assert_eq!(bench.get(id).assignments[0].holding, Holding::Standing);
    bench.run(HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    assert_eq!(bench.mutations(), []);
    assert!(bench.holds("ada", &viewer("a")));
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_covered_grant_revoked_before_its_first_check_leaves_nothing_due() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.revoke(id);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn standing_access_withdrawn_during_a_grant_is_added() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.takes("ada", &viewer("a"));
    bench.run(120);
    assert!(bench.is_active(id));
    assert!(bench.holds("ada", &viewer("a")));
    assert_eq!(bench.get(id).assignments[0].holding, Holding::Owned);
    assert_eq!(bench.get(id).certainty, Certainty::Verified);
    bench.run(2 * HOUR);
    assert!(!bench.holds("ada", &viewer("a")));
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_stripped_grant_ends_superseded_and_its_other_pairs_are_removed() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), editor("b")], HOUR);
    bench.run(5);
    bench.takes("ada", &viewer("a"));
    bench.run(120);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    assert!(bench.get(id).externally_modified);
    assert_eq!(bench.held("ada"), BTreeSet::new());
    assert_eq!(bench.drift("missing"), 1);
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn access_stripped_after_an_unanswered_addition_is_not_fought_for() {
    let mut bench = Bench::new();
    let fault = world::Fault::Unknown(world::Lands::Now);
    bench
        .world
        .change(|world| world.adds.push_back(Some(fault)));
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(10);
    assert!(bench.is_active(id));
    bench.takes("ada", &viewer("a"));
    bench.run(120);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    assert!(!bench.holds("ada", &viewer("a")));
}

#[test]
fn extension_moves_the_end_and_one_after_the_end_is_refused() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let end = bench.extend(id, 60);
    bench.run_until(end - seconds(1));
    assert!(bench.holds("ada", &viewer("a")));
    bench.run_until(end + seconds(1));
    assert!(!bench.holds("ada", &viewer("a")));
    let late = bench
        .get(id)
        .extend(Ttl::from_seconds(60).expect("in range"), bench.now());
    assert!(late.is_err());
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn the_hard_end_wins_over_the_duration() {
    let mut bench = Bench::new();
    let mut ask = Ask::new("ada", &[viewer("a")], HOUR);
    ask.not_after = Some(bench.now() + seconds(30));
    let id = bench.ask(&ask);
    bench.run(5);
    assert_eq!(Some(bench.expires_at(id)), ask.not_after);
    bench.run(26);
    assert!(!bench.holds("ada", &viewer("a")));
    bench.run(HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.assert_clean(&["ada"]);
}

#[test]
fn access_that_is_never_verified_ends_by_its_bound() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.world.change(|world| {
        let unanswered = world::Fault::Unknown(world::Lands::Now);
        world.adds.push_back(Some(unanswered));
        world.reads.push_back(None);
    });
    let key = bench.key_of(&Subject::Member(user("ada")));
    // The first read proves absence; every later one fails.
    bench.world.crash.never();
    bench
        .world
        .change(|world| world.reads.extend(vec![Some("http_503"); 10_000]));
    assert!(bench.pass(&key));
    bench.run(170);
    assert_eq!(bench.state(id), "activating");
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(20);
    assert_eq!(bench.state(id), "revoking");
    assert!(
        !bench.holds("ada", &viewer("a")),
        "removed without any read"
    );
    bench.world.change(|world| world.reads.clear());
    bench.run(HOUR);
    let code = "not_verified_in_time".to_owned();
    assert_eq!(bench.cause(id), EndCause::ActivationFailed { code });
    bench.assert_clean(&["ada"]);
}

#[test]
fn twenty_grants_with_one_start_and_one_end_cost_one_post_one_delete_and_few_reads() {
    let mut bench = Bench::new();
    let starts_at = Some(bench.now() + seconds(100));
    let not_after = Some(bench.now() + seconds(700));
    let ids: Vec<_> = (0..20)
        .map(|number| {
            let wants = [viewer(&format!("d{number}"))];
            let ask = Ask::new("ada", &wants, HOUR);
            bench.ask(&Ask {
                starts_at,
                not_after,
                ..ask
            })
        })
        .collect();
    bench.run(110);
    assert!(ids.iter().all(|id| bench.is_active(*id)));
    bench.run(HOUR);
    assert!(ids.iter().all(|id| bench.cause(*id) == EndCause::Expired));
    assert_eq!(bench.mutations().len(), 2);
    assert!(bench.reads() <= 8, "{} reads", bench.reads());
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_accepted_between_intent_and_send_is_decided_on_first() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench.run_until(end - seconds(1));
    let ask = Ask::new("ada", &[viewer("a")], 60);
    let accept = bench.accept_of(&ask);
    let second = accept.grant.id;
    *bench.ledger.after_intent.lock().expect("not poisoned") = Some(accept);
    bench.run_until(end + seconds(10));
    assert_eq!(bench.state(id), "ended");
    assert!(bench.is_active(second));
    assert_eq!(bench.removals(), 0, "the removal was taken back");
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
    assert_eq!(bench.mutations().len(), 2);
}

#[test]
fn an_extension_that_comes_before_the_removal_wins() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench.run_until(end - TimeDelta::milliseconds(1));
    let later = bench.extend(id, 60);
    bench.run_until(end + seconds(5));
    assert!(bench.is_active(id));
    assert_eq!(bench.removals(), 0);
    bench.run_until(later + seconds(1));
    assert_eq!(bench.removals(), 1);
}

#[test]
fn a_removed_grant_given_again_at_once_stays() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(5);
    bench.revoke(first);
    bench.run(1);
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(60);
    assert_eq!(bench.state(first), "ended");
    assert!(bench.is_active(second));
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_removal_behind_an_earlier_look_is_known_for_what_it_is() {
    use crate::domain::overdue::hidden_removal;
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(30);
    let end = bench.expires_at(id);
    bench.look_at("ada");
    let hidden = |bench: &Bench| hidden_removal(&bench.record("ada"), bench.now());
    assert_eq!(hidden(&bench), None, "it has not ended");
    bench.clock.advance(end + seconds(1) - bench.now());
    let raised = hidden(&bench).expect("the look was never made");
    assert_eq!((raised.at, raised.kind), (end, DueKind::Remove));
    assert!(raised.weight > 0);
    bench.world.change(|world| world.reads_down = true);
    bench.run(3);
    assert_eq!(bench.removals(), 1);
    assert_eq!(hidden(&bench), None, "it was sent, and waits for a read");
}

#[test]
fn an_active_grant_is_next_due_at_its_end() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 2 * HOUR);
    bench.run(HOUR);
    let due = bench.record("ada").due.expect("it ends");
    assert_eq!(
        (due.at, due.kind),
        (bench.expires_at(id), DueKind::Remove),
        "nothing has to be done before"
    );
}
