//! What a pass may send, in which order and with which claim, decided on records made for it.

use super::facts::{ada, at, grant_in, owed, row, shows, write};
use super::outage::Replica;
use super::world::{Call, Fault, Lands};
use super::*;
use crate::domain::event::CallEvidence;
use crate::domain::member::{Backoff, Blocked, Owned, Phase, WriteKind};
use crate::ports::journal::Answer;
use crate::ports::ownership::Standing;
use crate::ports::provider::{KeyPin, Outcome, Priority, Refusal};
use crate::reconcile::pass::{Progress, claim_of_removal};
use crate::reconcile::plan::{Plan, Snapshot};

fn having_read(snapshot: Snapshot) -> Progress {
    Progress {
        snapshot: Some(snapshot),
        ..Progress::default()
    }
}

/// Somebody to whom these are to be given.
fn waiting_for(wants: &[Assignment]) -> MemberRecord {
    let mut record = ada(Vec::new());
    let state = GrantState::Activating {
        since: at(0),
        must_end_by: None,
    };
    record.grants.push(grant_in(state, wants));
    record
}

#[test]
fn what_does_not_go_with_this_call_is_put_off_and_what_goes_is_not() {
    for (pairs, put_off) in [(1, false), (2, true), (3, true)] {
        let wants = &[viewer("a"), viewer("b"), viewer("c")][..pairs];
        let mut bench = Bench::new();
        let mut record = waiting_for(wants);
        record.isolate_adds = true;
        let progress = having_read(shows(0, &[]));
        let (plan, later) = bench.reconciler.plan(&record, &progress, at(0));
        assert_eq!((plan.add.len(), later.add), (1, put_off), "isolated");

        bench.settings.one_pair_per_call = true;
        bench.restart();
        record.isolate_adds = false;
        let (plan, later) = bench.reconciler.plan(&record, &progress, at(0));
        assert_eq!((plan.add.len(), later.add), (1, put_off), "added");
        assert!(!later.remove);

        let record = ada(wants.iter().cloned().map(row).collect());
        let progress = having_read(shows(0, wants));
        let (plan, later) = bench.reconciler.plan(&record, &progress, at(0));
        assert_eq!((plan.remove.len(), later.remove), (1, put_off), "removed");
        assert!(!later.add);
    }
}

#[test]
fn the_neighbour_that_was_tried_longest_ago_is_put_back_first() {
    let mut bench = Bench::new();
    let mut own = row(viewer("a"));
    own.last_write = write(WriteKind::Remove, -300);
    own.phase = Phase::Closing {
        gone_at: at(-290),
        look_at: at(300),
    };
    own.must_survive = vec![owed(viewer("b")), owed(viewer("c"))];
    for (survivor, tried) in own.must_survive.iter_mut().zip([-60, -120]) {
        survivor.restored_at = Some(at(tried));
        survivor.restores = 1;
    }
    let mut record = ada(vec![own]);
    record.due = Some(Due {
        at: at(0),
        kind: DueKind::Verify,
        weight: 0,
    });
    let key = record.key.clone();
    let (audit, request) = (Vec::new(), None);
    ready(bench.memory.commit(MemberCommit {
        record,
        audit,
        request,
    }))
    .expect("new");
    assert!(bench.pass(&key));
    let sent = [Call::Add(vec![viewer("c")]), Call::Add(vec![viewer("b")])];
    assert_eq!(bench.mutations(), sent);
}

#[test]
fn what_becomes_due_while_a_turn_is_waited_for_goes_with_the_same_call() {
    let mut bench = Bench::new();
    bench.world.change(|world| world.turn_takes = seconds(2));
    let first = bench.grant("ada", &[viewer("a")], HOUR);
    let mut ask = Ask::new("ada", &[viewer("b")], HOUR);
    ask.starts_at = Some(bench.now() + seconds(1));
    let second = bench.ask(&ask);
    bench.run(20);
    assert!(bench.is_active(first) && bench.is_active(second));
    assert_eq!(bench.world.look().added_in_turn, 1);
    let both = Call::Add(vec![viewer("a"), viewer("b")]);
    assert_eq!(bench.mutations(), [both]);
}

#[test]
fn a_call_is_made_in_a_turn_only_where_one_was_waited_for() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(20);
    assert!(bench.is_active(id));
    assert_eq!(bench.world.look().added_in_turn, 0);
}

#[test]
fn during_a_pause_only_what_failed_waits() {
    let bench = Bench::new();
    for (attempts, until, goes) in [(0, 5, true), (1, 5, false), (1, 0, true), (0, 0, true)] {
        let mut own = row(viewer("a"));
        own.last_write = write(WriteKind::Remove, -60);
        own.attempts = attempts;
        let mut record = ada(vec![own]);
        record.backoff = Some(Backoff {
            failures: 1,
            until: at(until),
            code: "no".to_owned(),
        });
        let progress = having_read(shows(0, &[viewer("a")]));
        let (plan, later) = bench.reconciler.plan(&record, &progress, at(0));
        assert_eq!(plan.remove.len(), usize::from(goes), "{attempts} {until}");
        assert_eq!(later.remove, !goes, "{attempts} {until}");
    }
}

#[test]
fn a_removal_whose_intent_is_written_goes_although_the_ledger_is_gone_by_then() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(1));
    replica.owns(5);
    let gone = &replica.bench.ledger.away_after_intent;
    gone.store(true, Ordering::SeqCst);
    replica.bench.clock.advance(seconds(1));
    replica.pass();
    assert_eq!(replica.bench.removals(), 1);
    assert!(!replica.bench.holds("ada", &viewer("a")));
    assert_eq!(replica.notes.answers(), [Some(Answer::Done)]);
    replica.away(false);
    replica.owns(86_400);
    replica.bench.run(1_000);
    assert_eq!(replica.bench.cause(id), EndCause::Expired);
    replica.bench.assert_clean(&["ada"]);
}

#[test]
fn nothing_is_added_once_the_ledger_is_gone() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    let gone = &replica.bench.ledger.away_after_intent;
    gone.store(true, Ordering::SeqCst);
    replica.pass();
    assert_eq!(replica.bench.mutations(), []);
    assert_eq!(replica.notes.answers(), []);
    replica.away(false);
    replica.bench.run(30);
    assert!(replica.bench.is_active(id));
}

#[test]
fn while_the_removal_of_one_owner_may_still_land_the_other_stays() {
    let mut bench = Bench::new();
    let owner = on("organization-admin", "");
    let first = bench.grant("ada", std::slice::from_ref(&owner), 60);
    bench.grant("bob", std::slice::from_ref(&owner), 120);
    bench.run(10);
    bench.takes("boss", &owner);
    // Nobody answers removals; all that is sent lands minutes later.
    let late = Fault::Unknown(Lands::After(seconds(400)));
    bench
        .world
        .change(|world| world.removes.extend(vec![Some(late); 50]));
    bench.run_until(bench.expires_at(first) + seconds(1_000));
    assert!(!bench.holds("ada", &owner));
    assert!(bench.holds("bob", &owner), "nobody is an owner");
    let record = bench.record("bob");
    let blocked = record.owned[0].blocked.as_ref().expect("told why");
    assert_eq!(blocked.code, "last_owner");
}

#[test]
fn only_what_was_refused_before_is_removed_from_the_share_for_repeats() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run_until(end + seconds(30));
    assert!(bench.removals() > 0);
    assert_eq!(bench.world.look().removed_again, 0);
    let before = bench.removals();
    bench.run(15 * 60);
    let retries = bench.removals() - before;
    assert!(retries > 0);
    assert_eq!(bench.world.look().removed_again, retries);
}

#[test]
fn only_a_removal_of_nothing_but_refused_pairs_stands_back_behind_the_others() {
    let refused = |assignment: Assignment| {
        let blocked = Some(Blocked {
            code: "no".to_owned(),
            since: at(-60),
            retry_at: at(0),
            refusals: 1,
        });
        Owned {
            blocked,
            ..row(assignment)
        }
    };
    let (a, b, c) = (viewer("a"), viewer("b"), viewer("c"));
    let record = ada(vec![refused(a.clone()), refused(b.clone()), row(c.clone())]);
    for (removing, priority) in [
        (vec![a.clone()], Priority::Retry),
        (vec![a.clone(), b], Priority::Retry),
        (vec![a, c.clone()], Priority::Revoke),
        (vec![c], Priority::Revoke),
    ] {
        let claim = claim_of_removal(&record, &removing);
        assert_eq!(claim.priority, priority, "{removing:?}");
        assert!(claim.weight.0 > 0);
    }
}

#[test]
fn whoever_lost_the_claim_owns_nothing_and_whoever_is_alone_always_does() {
    let bench = Bench::new();
    assert!(bench.reconciler.is_owner());
    for (standing, owns) in [(Standing::none(), false), (Standing::sole(), true)] {
        let own = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
        assert_eq!(own.under(Arc::new(standing)).is_owner(), owns);
    }
}

#[test]
fn refused_additions_say_nothing_against_the_key() {
    let mut bench = Bench::new();
    bench.world.change(|world| {
        world.poisoned.insert(viewer("a"));
        world.poisoned.insert(viewer("b"));
    });
    let ids = ["a", "b"].map(|id| bench.grant("ada", &[viewer(id)], HOUR));
    bench.run(20);
    assert_eq!(ids.map(|id| bench.state(id)), ["ended"; 2]);
    assert_eq!(bench.mutations().len(), 3, "together, and each alone");
    let board = bench.reconciler.observer.board();
    assert!(!board.is_key_refused(KeyPin(1)));
}

#[test]
fn only_removals_of_single_pairs_that_are_refused_for_good_speak_against_the_key() {
    let code = || "no".to_owned();
    let for_good = Refusal::Forbidden { code: code() };
    let for_now = Refusal::NotSent { code: code() };
    let (a, b) = (viewer("a"), viewer("b"));
    let alone = vec![vec![a.clone()], vec![b.clone()]];
    let together = vec![vec![a.clone(), b.clone()]];
    for (refusal, kind, calls, accused) in [
        (for_good.clone(), WriteKind::Remove, alone.clone(), true),
        (for_good.clone(), WriteKind::Remove, together, false),
        (for_good, WriteKind::Add, alone.clone(), false),
        (for_now, WriteKind::Remove, alone, false),
    ] {
        let bench = Bench::new();
        // Nothing of it is looked at again.
        bench.world.trace.stop();
        let before = ada(vec![row(a.clone()), row(b.clone())]);
        let mut progress = Progress::default();
        for call in &calls {
            let outcome = Outcome::Refused(refusal.clone(), CallEvidence::default());
            ready(bench.reconciler.record_outcome(
                &before.key,
                kind,
                call,
                &before,
                &outcome,
                &mut progress,
            ))
            .expect("the ledger works");
        }
        let board = bench.reconciler.observer.board();
        assert_eq!(
            board.is_key_refused(KeyPin(1)),
            accused,
            "{kind:?} {calls:?}"
        );
    }
}

#[test]
fn a_pair_that_is_refused_before_its_sibling_is_removed_is_blocked_by_that() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 60);
    bench.run(10);
    let end = bench.expires_at(id);
    // Nothing else tells that the key works.
    bench.world.change(|world| {
        world.status.sees_owners = None;
        world.hidden.insert(viewer("a").target);
    });
    bench.run_until(end + seconds(5));
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("a")]));
    let record = bench.record("ada");
    let left = record.owned(&viewer("a")).expect("still ours");
    assert!(left.blocked.is_some(), "the key is not at fault");
}

#[test]
fn a_refused_set_may_be_tried_pair_by_pair_and_nothing_else_is_sent_twice() {
    let bench = Bench::new();
    let before = ada(vec![row(viewer("a")), row(viewer("b"))]);
    let mut progress = Progress::default();
    let sent = [
        (WriteKind::Add, viewer("a")),
        (WriteKind::Add, viewer("c")),
        (WriteKind::Remove, viewer("a")),
        (WriteKind::Remove, viewer("b")),
        (WriteKind::Remove, viewer("d")),
    ];
    progress.sent.extend(sent.clone());
    let code = "no".to_owned();
    let refused = Outcome::Refused(Refusal::Forbidden { code }, CallEvidence::default());
    ready(bench.reconciler.record_outcome(
        &before.key,
        WriteKind::Remove,
        &[viewer("a"), viewer("b")],
        &before,
        &refused,
        &mut progress,
    ))
    .expect("the ledger works");
    let [add_a, add_c, _, _, remove_d] = sent;
    assert_eq!(progress.sent, BTreeSet::from([add_a, add_c, remove_d]));
}

/// What differs from a neighbour that a removal proved to leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    Filtered,
    NotShown,
    NotGone,
    PutBackBefore,
    NotSettled,
    NotThere,
}

#[test]
fn removals_are_exact_only_where_a_neighbour_was_seen_to_survive_one() {
    for doubt in [
        Doubt::None,
        Doubt::Filtered,
        Doubt::NotShown,
        Doubt::NotGone,
        Doubt::PutBackBefore,
        Doubt::NotSettled,
        Doubt::NotThere,
    ] {
        let bench = Bench::new();
        let mut own = row(viewer("a"));
        own.must_survive.push(owed(viewer("b")));
        let mut plan = Plan {
            survived: vec![viewer("b")],
            ..Plan::default()
        };
        let mut snapshot = shows(0, &[viewer("b")]);
        if doubt != Doubt::NotGone {
            plan.gone.push(viewer("a"));
        }
        if doubt == Doubt::PutBackBefore {
            own.must_survive[0].restores = 1;
        }
        if doubt == Doubt::NotSettled {
            plan.survived.clear();
        }
        if doubt == Doubt::NotThere {
            snapshot.assignments.clear();
        }
        snapshot.complete = doubt != Doubt::Filtered;
        snapshot.shown = doubt != Doubt::NotShown;
        let record = ada(vec![own]);
        bench
            .reconciler
            .learn_of_neighbours(&record, &plan, Some(&snapshot));
        let board = bench.reconciler.observer.board();
        let is_known = doubt == Doubt::None;
        assert_eq!(board.is_removal_exact(false), is_known, "{doubt:?}");
        assert!(!board.is_removal_exact(true), "nothing on the same target");
    }
}
