//! A restored ledger, a lost one, a missing witness: what is touched, and what is not.

use super::world::{Call, Delete};
use super::*;
use crate::ports::Witness;
use crate::ports::ledger::Evidence;
use crate::ports::witness::Condition;
use crate::reconcile::hold::{HeldAction, Hold, ReleaseError, settle_at_start};
use crate::witness::MemoryWitness;

/// Starts the process again, with this witness.
pub(super) fn start(bench: &mut Bench, witness: Option<&Arc<MemoryWitness>>) -> Arc<Hold> {
    let name = main_integration();
    let witness = witness.map(|witness| Arc::clone(witness) as Arc<dyn Witness>);
    let ledger: Arc<dyn Ledger> = bench.ledger.clone();
    let clock = Arc::new(bench.clock.clone());
    let started = settle_at_start(ledger, witness, std::slice::from_ref(&name), clock);
    let hold = ready(started).expect("the ledger works")[&name].clone();
    bench.reconciler =
        build(&bench.clock, &bench.world, &bench.ledger, bench.settings).with_hold(hold.clone());
    hold
}

/// Puts another ledger in place.
pub(super) fn restore(bench: &mut Bench, memory: MemoryLedger) {
    bench.memory = Arc::new(memory);
    bench.ledger = Arc::new(Gated::new(bench.memory.clone(), bench.world.clone()));
}

pub(super) fn release(hold: &Hold) {
    let released = ready(hold.release("ops", "looked")).expect("both work");
    assert!(released.is_some());
}

fn open(witness: &MemoryWitness) -> usize {
    ready(witness.open_intents()).expect("readable").len()
}

pub(super) fn codes(hold: &Hold) -> Vec<String> {
    let record = hold.record().expect("in hold");
    record
        .reasons
        .into_iter()
        .map(|reason| reason.code)
        .collect()
}

fn items(hold: &Hold) -> Vec<(String, HeldAction, bool)> {
    let plan = ready(hold.plan(100)).expect("readable").expect("in hold");
    plan.items
        .into_iter()
        .map(|item| (item.assignment.to_string(), item.action, item.is_proven))
        .collect()
}

/// A bench that is witnessed from the beginning.
pub(super) fn witnessed() -> (Bench, Arc<MemoryWitness>) {
    let mut bench = Bench::new();
    let witness = Arc::new(MemoryWitness::new());
    start(&mut bench, Some(&witness));
    (bench, witness)
}

/// The same after its ledger was lost: a backup is in place that knows of what ada was given and not of what bob was.
pub(super) fn restored() -> (Bench, Arc<MemoryWitness>) {
    let (mut bench, witness) = witnessed();
    bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    let backup = bench.memory.copy();
    bench.grant("bob", &[editor("b")], 600);
    bench.run(10);
    restore(&mut bench, backup);
    (bench, witness)
}

#[test]
fn every_addition_is_witnessed_and_its_end_as_well() {
    let mut bench = Bench::new();
    let witness = Arc::new(MemoryWitness::new());
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.record(), None);
    let id = bench.grant("ada", &[viewer("a"), editor("b")], 60);
    bench.run(10);
    assert!(bench.is_active(id));
    assert_eq!((witness.intended(), open(&witness)), (2, 2));
    bench.run(HOUR);
    assert_eq!(open(&witness), 0);
    bench.assert_clean(&["ada"]);
    let again = start(&mut bench, Some(&witness));
    assert_eq!(again.record(), None);
}

#[test]
fn a_refused_addition_is_not_left_open() {
    let (mut bench, witness) = witnessed();
    bench
        .world
        .change(|world| world.hidden.insert(viewer("a").target));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    assert!(matches!(bench.cause(id), EndCause::ActivationFailed { .. }));
    assert!(witness.intended() > 0);
    assert_eq!(open(&witness), 0);
}

#[test]
fn nothing_is_added_without_a_witness_that_can_be_written_and_removals_go_on() {
    let mut bench = Bench::new();
    let witness = Arc::new(MemoryWitness::new());
    let hold = start(&mut bench, Some(&witness));
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert!(bench.is_active(first));
    witness.fail(true);
    let second = bench.grant("ada", &[viewer("b")], 600);
    bench.run(120);
    assert_eq!(bench.cause(first), EndCause::Expired);
    assert_eq!(bench.held("ada"), BTreeSet::new());
    assert_eq!(
        hold.closed(),
        Some(crate::reconcile::hold::Closed::Unwitnessed)
    );
    witness.fail(false);
    bench.run(120);
    assert!(bench.is_active(second));
    assert_eq!(hold.closed(), None);
}

#[test]
fn yesterdays_ledger_is_held_and_touches_nothing_that_is_not_proven() {
    let (mut bench, witness) = witnessed();
    let stays = bench.grant("ada", &[viewer("a")], 600);
    let passing = bench.grant("bob", &[viewer("b")], 60);
    bench.run(10);
    let revoked = bench.grant("bob", &[editor("d")], 3000);
    bench.run(10);
    let backup = bench.memory.copy();
    let unsent = bench.grant("bob", &[editor("x")], 3000);
    bench.run(200);
    assert_eq!(bench.cause(passing), EndCause::Expired);
    bench.revoke(revoked);
    bench.revoke(unsent);
    let unknown_short = bench.grant("ada", &[editor("e")], 100);
    let unknown_long = bench.grant("ada", &[editor("f")], 3000);
    bench.run(100);
    assert!(bench.is_active(unknown_short) && bench.is_active(unknown_long));
    // Somebody gives what the old ledger still takes for its own.
    bench.gives("bob", &viewer("b"));
    bench.gives("bob", &editor("d"));
    let sent = bench.mutations().len();

    restore(&mut bench, backup);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(codes(&hold), ["ledger_behind"]);
    assert_eq!(hold.record().expect("held").evidence, Evidence::Witness);
    let waiting = bench.grant("bob", &[viewer("new")], 600);
    bench.run(30);
    assert_eq!(
        bench.mutations().len(),
        sent,
        "nothing is due and proven yet"
    );
    assert!(items(&hold).contains(&(viewer("b").to_string(), HeldAction::Leave, false)));
    assert!(items(&hold).contains(&(viewer("new").to_string(), HeldAction::Add, false)));

    // What is proven goes at its time, what is not stays; a restart changes nothing.
    let hold_again = start(&mut bench, Some(&witness));
    assert_eq!(codes(&hold_again), ["ledger_behind"]);
    bench.run(400);
    assert_eq!(bench.cause(stays), EndCause::Expired);
    assert_eq!(bench.held("ada"), BTreeSet::from([editor("f")]));
    assert_eq!(
        bench.held("bob"),
        BTreeSet::from([viewer("b"), editor("d")])
    );
    assert_eq!(bench.violations(), [""; 0]);

    release(&hold_again);
    bench.run(4 * HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::new());
    assert_eq!(
        bench.held("bob"),
        BTreeSet::from([viewer("b"), editor("d")])
    );
    assert_eq!(bench.state(waiting), "ended");
    bench.assert_clean(&["ada", "bob"]);
    assert_eq!(open(&witness), 0);
    assert_eq!(start(&mut bench, Some(&witness)).record(), None);
}

#[test]
fn a_lost_ledger_is_noticed_and_what_the_witness_proves_ends_on_time() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("z"));
    let witness = Arc::new(MemoryWitness::new());
    start(&mut bench, Some(&witness));
    let short = bench.grant("ada", &[viewer("a")], 300);
    bench.grant("bob", &[editor("b")], 3000);
    bench.run(60);
    assert!(bench.is_active(short));

    restore(&mut bench, MemoryLedger::with_id("another"));
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(codes(&hold), ["other_ledger"]);
    bench.run(100);
    assert_eq!(
        bench.held("ada"),
        BTreeSet::from([viewer("a"), viewer("z")])
    );
    // The witness knows the end that was fixed before the first byte.
    bench.run(300);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("z")]));
    assert_eq!(bench.held("bob"), BTreeSet::from([editor("b")]));
    release(&hold);
    assert!(hold.record().is_none());
    let fresh = bench.grant("ada", &[viewer("n")], 60);
    bench.run(30);
    assert!(bench.is_active(fresh));
    bench.run(2 * HOUR);
    assert_eq!(bench.held("bob"), BTreeSet::new());
    bench.assert_clean(&["ada", "bob"]);
    assert_eq!(start(&mut bench, Some(&witness)).record(), None);
}

#[test]
fn a_missing_witness_holds_additions_and_not_what_the_ledger_says_is_due() {
    for lost in [
        Some(Condition::Missing),
        Some(Condition::Damaged {
            detail: "byte 9".to_owned(),
        }),
        None,
    ] {
        let (mut bench, witness) = witnessed();
        let first = bench.grant("ada", &[viewer("a")], 60);
        bench.run(30);
        assert!(bench.is_active(first));
        let configured = lost.as_ref().map(|_| &witness);
        if let Some(condition) = lost.clone() {
            witness.lose(condition);
        }
        let hold = start(&mut bench, configured);
        assert_eq!(hold.record().expect("held").evidence, Evidence::Ledger);
        let second = bench.grant("bob", &[viewer("b")], 600);
        bench.run(300);
        assert_eq!(bench.cause(first), EndCause::Expired);
        assert_eq!(bench.state(second), "activating");
        assert_eq!(bench.held("bob"), BTreeSet::new());
        release(&hold);
        bench.run(60);
        assert!(bench.is_active(second), "it was asked for during the hold");
        assert_eq!(start(&mut bench, configured).record(), None);
        bench.run(HOUR);
        bench.assert_clean(&["ada", "bob"]);
    }
}

#[test]
fn a_witness_that_cannot_be_read_contradicts_nothing_and_its_hold_is_not_released() {
    for seen_again_before_release in [false, true] {
        let (mut bench, witness) = witnessed();
        let backed_up = bench.grant("ada", &[viewer("a")], 600);
        bench.run(10);
        let backup = bench.memory.copy();
        let later = bench.grant("bob", &[editor("b")], 600);
        bench.run(10);
        assert!(bench.is_active(backed_up) && bench.is_active(later));
        restore(&mut bench, backup);
        start(&mut bench, Some(&witness));
        let noticed = bench.memory.copy();

        restore(&mut bench, noticed);
        witness.hide(true);
        let hold = start(&mut bench, Some(&witness));
        assert_eq!(hold.record().expect("held").evidence, Evidence::Witness);
        assert!(
            items(&hold).iter().all(|item| item.1 != HeldAction::Leave),
            "{:?}",
            items(&hold)
        );
        let refused = ready(hold.release("ops", "looked"));
        assert!(matches!(refused, Err(ReleaseError::Unreadable(_))));
        assert!(hold.record().is_some());
        witness.hide(false);
        assert_eq!(open(&witness), 2, "it is as it was");
        if seen_again_before_release {
            ready(hold.tend());
            bench.run(HOUR);
            bench.assert_clean(&["ada", "bob"]);
        }
        release(&hold);
        bench.run(HOUR);
        bench.assert_clean(&["ada", "bob"]);
        assert_eq!(open(&witness), 0);
    }
}

#[test]
fn what_only_the_witness_knows_survives_a_start_at_which_it_could_not_be_read() {
    let (mut bench, witness) = witnessed();
    bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    restore(&mut bench, MemoryLedger::with_id("another"));
    witness.hide(true);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.record().expect("held").evidence, Evidence::Witness);
    witness.hide(false);
    release(&hold);
    assert_eq!(open(&witness), 1, "begun anew with what it knew");
    bench.run(60);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(HOUR);
    bench.assert_clean(&["ada"]);
}

#[test]
fn what_only_the_witness_knows_ends_on_time_in_a_hold_that_could_not_read_it_at_first() {
    let (mut bench, witness) = witnessed();
    bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    restore(&mut bench, MemoryLedger::with_id("another"));
    witness.hide(true);
    let hold = start(&mut bench, Some(&witness));
    ready(hold.tend());
    assert_eq!(bench.record("ada").owned, [], "nobody can tell yet");
    witness.hide(false);
    ready(hold.tend());
    assert!(bench.record("ada").owned(&viewer("a")).is_some());
    bench.run(60);
    assert!(bench.holds("ada", &viewer("a")), "not before its time");
    bench.run(HOUR);
    assert!(hold.record().is_some(), "nobody released it");
    assert_eq!(bench.held("ada"), BTreeSet::new());
}

#[test]
fn a_hold_that_began_without_the_witness_goes_by_it_once_it_is_there() {
    let (mut bench, witness) = restored();
    let hold = start(&mut bench, None);
    assert_eq!(hold.record().expect("held").evidence, Evidence::Ledger);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.record().expect("held").evidence, Evidence::Witness);
    release(&hold);
    assert_eq!(open(&witness), 2, "also what the backup does not know");
    bench.run(HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn a_release_gives_nothing_again_that_was_taken_away_during_the_hold() {
    for looked_meanwhile in [false, true] {
        let (mut bench, witness) = witnessed();
        bench.grant("ada", &[viewer("a")], 600);
        bench.run(10);
        restore(&mut bench, MemoryLedger::with_id("another"));
        let hold = start(&mut bench, Some(&witness));
        bench.takes("ada", &viewer("a"));
        if looked_meanwhile {
            bench.run(30);
        }
        release(&hold);
        bench.run(60);
        assert!(
            !bench.holds("ada", &viewer("a")),
            "looked {looked_meanwhile}: given again"
        );
        assert_eq!(bench.count(|call| matches!(call, Call::Add(_))), 1);
        bench.run(HOUR);
        bench.assert_clean(&["ada"]);
    }
}

#[test]
fn a_release_begins_nothing_that_was_scheduled_before_the_hold() {
    let (mut bench, witness) = witnessed();
    let mut later = Ask::new("ada", &[viewer("a")], 600);
    later.starts_at = Some(bench.now() + seconds(300));
    let scheduled = bench.ask(&later);
    let invited = bench.ask(&Ask::invited("eve@example.com", &[viewer("b")], 600));
    bench.run(10);
    let backup = bench.memory.copy();
    bench.grant("bob", &[editor("b")], 60);
    bench.run(10);
    restore(&mut bench, backup);
    let hold = start(&mut bench, Some(&witness));
    release(&hold);
    bench.run(HOUR);
    for id in [scheduled, invited] {
        assert_eq!(bench.state(id), "ended");
    }
    assert_eq!(bench.held("ada"), BTreeSet::new());
}

#[test]
fn releases_that_the_witness_did_not_take_can_be_repeated() {
    let (mut bench, witness) = restored();
    let hold = start(&mut bench, Some(&witness));
    witness.fail(true);
    for _ in 0..4 {
        let refused = ready(hold.release("ops", "looked"));
        assert!(
            matches!(refused, Err(ReleaseError::Witness(_))),
            "{refused:?}"
        );
    }
    witness.fail(false);
    release(&hold);
    assert_eq!(start(&mut bench, Some(&witness)).record(), None);
    bench.run(HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn a_witness_that_was_moved_away_leaves_the_ledger_at_its_word() {
    let (mut bench, witness) = witnessed();
    let backup_of = bench.grant("ada", &[viewer("a")], 600);
    bench.run(10);
    let backup = bench.memory.copy();
    bench.grant("bob", &[viewer("b")], 60);
    bench.run(10);
    restore(&mut bench, backup);
    start(&mut bench, Some(&witness));
    witness.lose(Condition::Missing);
    let hold = start(&mut bench, Some(&witness));
    assert_eq!(hold.record().expect("held").evidence, Evidence::Witness);
    release(&hold);
    assert!(bench.is_active(backup_of));
    bench.run(HOUR);
    assert_eq!(bench.cause(backup_of), EndCause::Expired);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn the_right_ledger_put_back_needs_no_release() {
    let (mut bench, witness) = witnessed();
    let backup = bench.memory.copy();
    let id = bench.grant("ada", &[viewer("a")], 600);
    bench.run(30);
    let right = bench.memory.clone();
    restore(&mut bench, backup);
    assert_eq!(codes(&start(&mut bench, Some(&witness))), ["ledger_behind"]);
    bench.run(30);
    bench.memory = right.clone();
    bench.ledger = Arc::new(Gated::new(right, bench.world.clone()));
    assert_eq!(start(&mut bench, Some(&witness)).record(), None);
    bench.run(HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_witness_that_comes_later_learns_what_is_owned_already() {
    let mut bench = Bench::new();
    start(&mut bench, None);
    bench.grant("ada", &[viewer("a"), viewer("b")], 600);
    bench.run(30);
    let witness = Arc::new(MemoryWitness::new());
    assert_eq!(start(&mut bench, Some(&witness)).record(), None);
    assert_eq!(open(&witness), 2);
    restore(&mut bench, MemoryLedger::with_id("another"));
    start(&mut bench, Some(&witness));
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::new());
}

#[test]
fn an_extension_reaches_the_witness() {
    let mut bench = Bench::new();
    let witness = Arc::new(MemoryWitness::new());
    let hold = start(&mut bench, Some(&witness));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let until = bench.extend(id, HOUR);
    let mut record = bench.record("ada");
    for row in &mut record.owned {
        row.must_end_by = Some(until);
    }
    ready(hold.note_extension(&record, &[viewer("a")]));
    restore(&mut bench, MemoryLedger::with_id("another"));
    start(&mut bench, Some(&witness));
    bench.run(600);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(2 * HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::new());
}

#[test]
fn nobody_is_invited_during_a_hold() {
    let (mut bench, witness) = witnessed();
    witness.lose(Condition::Missing);
    start(&mut bench, Some(&witness));
    bench.ask(&Ask::invited("new@example.com", &[viewer("a")], 60));
    bench.run(120);
    assert_eq!(bench.count(|call| *call == Call::Invite), 0);
}

#[test]
fn what_is_withheld_makes_no_end_of_the_same_member_later() {
    let (mut bench, _witness) = witnessed();
    let first = bench.grant("ada", &[viewer("a")], 37);
    bench.run(5);
    let end = bench.expires_at(first);
    start(&mut bench, None);
    let withheld = bench.grant("ada", &[viewer("b")], 600);
    bench.run_until(end + seconds(1));
    assert_eq!(bench.state(withheld), "activating");
    assert_eq!(bench.held("ada"), BTreeSet::new());
}

#[test]
fn a_hold_that_another_replica_released_ends_here_and_one_that_stands_stays() {
    let (mut bench, _) = restored();
    // Where there is no witness there may be other replicas.
    let hold = start(&mut bench, None);
    assert!(hold.record().is_some());
    ready(hold.tend());
    assert!(hold.record().is_some(), "nobody released it");
    // Elsewhere.
    let name = main_integration();
    let ended = bench.memory.end_hold(&name, Vec::new());
    assert!(ready(ended).expect("writable"));
    ready(hold.tend());
    assert_eq!(hold.record(), None);
}

#[test]
fn a_hold_puts_back_only_what_its_own_removals_took_along() {
    let (mut bench, witness) = restored();
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.gives("ada", &viewer("z"));
    let hold = start(&mut bench, Some(&witness));
    assert!(hold.record().is_some());
    bench.run(HOUR);
    // What the witness proves was removed at its end, the neighbour that went with it is back, and nobody gave more.
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("z")]));
    assert!(hold.record().is_some());
    assert_eq!(bench.violations(), [""; 0]);
}
