//! What a hold shows to its operator, and how the time before it is closed when it ends.

use super::hold::{codes, release, restore, restored, start, witnessed};
use super::service_level::{measured, value};
use super::world::{Call, Fault};
use super::*;
use crate::domain::grant::ACTIVATION_ALLOWANCE;
use crate::ports::Witness;
use crate::ports::ledger::Evidence;
use crate::ports::witness::{Binding, Condition};
use crate::reconcile::hold::{Closed, HeldAction, Hold, HoldPlan};
use crate::reconcile::plan::Plan;
use crate::witness::MemoryWitness;

fn plan(hold: &Hold, limit: usize) -> HoldPlan {
    ready(hold.plan(limit)).expect("readable").expect("in hold")
}

/// In hold by a witness that cannot be read: nothing is proven, and nothing contradicted.
fn unread(bench: &mut Bench, witness: &Arc<MemoryWitness>) -> Arc<Hold> {
    let backup = bench.memory.copy();
    bench.grant("boss", &[viewer("lost")], 600);
    bench.run(10);
    restore(bench, backup);
    witness.hide(true);
    start(bench, Some(witness))
}

#[test]
fn the_operator_is_told_where_the_witness_is() {
    let (mut bench, witness) = restored();
    let place = Some("memory".to_owned());
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.witness_place(), place);
    assert_eq!(plan(&hold, 10).witness, place);
    let hold = start(&mut bench, None);
    assert_eq!(hold.witness_place(), None);
    assert_eq!(plan(&hold, 10).witness, None);
}

#[test]
fn a_witness_that_failed_from_the_start_opens_nothing_before_it_works() {
    let mut bench = Bench::new();
    let witness = Arc::new(MemoryWitness::new());
    witness.fail(true);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.closed(), Some(Closed::Unwitnessed));
    ready(hold.tend());
    assert_eq!(hold.closed(), Some(Closed::Unwitnessed));
    witness.fail(false);
    ready(hold.tend());
    assert_eq!(hold.closed(), None);
    // Also when nobody asks for anything that has to be witnessed.
    witness.fail(true);
    ready(hold.tend());
    assert_eq!(hold.closed(), Some(Closed::Unwitnessed));
}

#[test]
fn the_metrics_tell_whether_an_integration_is_in_hold() {
    let shown = |story: fn()| {
        let text = measured(story);
        let series = format!("latchkey_hold{{integration=\"{}\"}}", main_integration());
        value(&text, &series)
    };
    let calm = || drop(witnessed());
    let in_hold = || {
        let (mut bench, witness) = restored();
        start(&mut bench, Some(&witness));
    };
    let released = || {
        let (mut bench, witness) = restored();
        release(&start(&mut bench, Some(&witness)));
    };
    assert_eq!([calm, in_hold, released].map(shown), [0.0, 1.0, 0.0]);
}

#[test]
fn a_plan_that_does_not_fit_says_so() {
    let (mut bench, witness) = witnessed();
    bench.grant("ada", &[viewer("a"), editor("b")], 600);
    bench.grant("bob", &[viewer("c")], 600);
    bench.run(10);
    let hold = unread(&mut bench, &witness);
    for limit in 0..5 {
        let plan = plan(&hold, limit);
        let shown = (plan.items.len(), plan.is_cut);
        assert_eq!(shown, (limit.min(3), limit < 3), "{limit}");
    }
}

#[test]
fn what_goes_later_goes_with_the_last_grant_that_wants_it() {
    let (mut bench, witness) = witnessed();
    bench.grant("ada", &[viewer("a")], 600);
    let last = bench.grant("ada", &[viewer("a")], 900);
    let other = bench.grant("ada", &[editor("b")], 3000);
    bench.run(10);
    let hold = unread(&mut bench, &witness);
    let items: Vec<_> = plan(&hold, 10)
        .items
        .into_iter()
        .map(|item| (item.assignment, item.action, item.ends_at))
        .collect();
    let later = |assignment, id| {
        let end = bench.expires_at(id);
        (assignment, HeldAction::RemoveLater, Some(end))
    };
    assert_eq!(items, [later(editor("b"), other), later(viewer("a"), last)]);
}

#[test]
fn a_member_whose_work_is_withheld_is_looked_at_every_ten_seconds_and_at_each_end() {
    let (mut bench, witness) = witnessed();
    let id = bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    unread(&mut bench, &witness);
    let record = bench.record("ada");
    let end = bench.expires_at(id);
    for (before_end, looked_after) in [(30, 10), (3, 3), (0, 10)] {
        let now = end - seconds(before_end);
        let due = Due {
            at: now,
            kind: DueKind::Verify,
            weight: 0,
        };
        let paced = bench
            .reconciler
            .at_hold_pace(Some(due), &Plan::default(), &record, now);
        let at = paced.map(|due| due.at);
        assert_eq!(at, Some(now + seconds(looked_after)), "{before_end}");
    }
}

#[test]
fn the_newer_ledger_is_held_when_it_comes_back_after_the_release_of_a_backup() {
    for started_since in [false, true] {
        let (mut bench, witness) = witnessed();
        let backup = bench.memory.copy();
        if started_since {
            start(&mut bench, Some(&witness));
        }
        bench.grant("ada", &[viewer("a")], 600);
        bench.run(10);
        let newer = bench.memory.copy();
        restore(&mut bench, backup);
        let hold = start(&mut bench, Some(&witness));
        assert_eq!(codes(&hold), ["ledger_behind"]);
        release(&hold);
        restore(&mut bench, newer);
        let hold = start(&mut bench, Some(&witness));
        assert_eq!(codes(&hold), ["ledger_behind"], "started {started_since}");
    }
}

#[test]
fn a_backup_from_before_the_last_start_is_noticed_also_where_nothing_happened_since() {
    let (mut bench, witness) = witnessed();
    let backup = bench.memory.copy();
    start(&mut bench, Some(&witness));
    restore(&mut bench, backup);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(codes(&hold), ["ledger_behind"]);
}

#[test]
fn a_witness_that_is_an_old_copy_or_of_no_ledger_is_no_evidence() {
    let (mut bench, witness) = witnessed();
    for _ in 0..2 {
        start(&mut bench, Some(&witness));
    }
    let identity = ready(bench.memory.identity()).expect("readable");
    let old = Arc::new(MemoryWitness::new());
    let first = Binding {
        ledger: identity.id,
        generation: 1,
    };
    ready(old.begin(first, 0, Vec::new())).expect("writable");
    let empty = Arc::new(MemoryWitness::new());
    empty.lose(Condition::Whole);
    for (witness, code) in [(old, "witness_behind"), (empty, "witness_missing")] {
        let ledger = bench.memory.copy();
        restore(&mut bench, ledger);
        let before = bench.memory.copy();
        let hold = start(&mut bench, Some(&witness));
        assert_eq!(codes(&hold), [code]);
        assert_eq!(hold.record().expect("held").evidence, Evidence::Ledger);
        restore(&mut bench, before);
    }
}

#[test]
fn a_release_does_not_give_again_what_was_on_its_way_out() {
    let (mut bench, _) = witnessed();
    let first = bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    bench.world.change(|world| world.reads_down = true);
    bench.revoke(first);
    bench.run(5);
    assert_eq!(bench.removals(), 1);
    let second = bench.grant("ada", &[viewer("a")], 600);
    bench.clock.advance(seconds(1));
    let hold = start(&mut bench, None);
    release(&hold);
    let code = "hold".to_owned();
    let GrantState::Revoking { cause, .. } = bench.get(second).state else {
        panic!("{}", bench.get(second));
    };
    assert_eq!(cause, EndCause::ActivationFailed { code });
    bench.world.change(|world| world.reads_down = false);
    bench.run(HOUR);
    assert_eq!(bench.count(|call| matches!(call, Call::Add(_))), 1);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_release_gives_nothing_that_was_asked_for_before_the_hold_and_leaves_what_was_given_since() {
    let (mut bench, witness) = witnessed();
    let asked_at = bench.now();
    let over = bench.grant("bob", &[viewer("b")], 60);
    let given = bench.grant("ada", &[viewer("a")], 3000);
    // Before anything was sent.
    let backup = bench.memory.copy();
    bench.run(300);
    assert_eq!(bench.cause(over), EndCause::Expired);
    restore(&mut bench, backup);
    let hold = start(&mut bench, Some(&witness));
    release(&hold);
    bench.run(60);
    let code = "hold".to_owned();
    assert_eq!(bench.cause(over), EndCause::ActivationFailed { code });
    assert_eq!(bench.held("bob"), BTreeSet::new());
    // Its end was fixed when it was sent: the hold makes it no longer.
    let latest = asked_at + seconds(3000) + ACTIVATION_ALLOWANCE + seconds(1);
    assert!(bench.expires_at(given) < latest, "{}", bench.get(given));
    assert!(bench.holds("ada", &viewer("a")));
    assert_eq!(bench.count(|call| matches!(call, Call::Add(_))), 2);
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn what_is_there_already_is_not_listed_as_to_be_given() {
    let (mut bench, _) = witnessed();
    bench.gives("ada", &viewer("z"));
    // Answered, and not there for a while.
    bench
        .world
        .change(|world| world.adds.push_back(Some(Fault::Lie)));
    let standing = bench.grant("ada", &[viewer("z")], 600);
    bench.run(10);
    assert!(bench.is_active(standing));
    let sent = bench.grant("bob", &[viewer("b")], 600);
    bench.run(1);
    assert_eq!(bench.record("bob").owned.len(), 1);
    assert_eq!(bench.state(sent), "activating");
    bench.grant("boss", &[viewer("c")], 600);
    let hold = start(&mut bench, None);
    let items: Vec<_> = plan(&hold, 10)
        .items
        .into_iter()
        .map(|item| (item.assignment, item.action))
        .collect();
    assert_eq!(items, [(viewer("c"), HeldAction::Add)]);
}

#[test]
fn starts_that_the_witness_did_not_take_leave_no_gap_between_it_and_the_ledger() {
    let (mut bench, witness) = witnessed();
    witness.fail(true);
    for _ in 0..4 {
        let hold = start(&mut bench, Some(&witness));
        assert_eq!(hold.closed(), Some(Closed::Unwitnessed));
    }
    witness.fail(false);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.closed(), None);
}
