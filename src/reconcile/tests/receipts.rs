//! Receipts: written with the end, closed by the second look, reopened by what comes back, and never claiming more than
//! was seen.

use super::world::{Delete, Fault, Lands};
use super::*;
use crate::domain::evidence::{Evidence, Forgotten};
use crate::domain::receipt::{Assurance, Fate, Line, Look, Receipt, Warning};
use crate::ports::ledger::ReceiptFilter;

fn receipt(bench: &Bench, id: GrantId) -> Receipt {
    ready(bench.memory.receipt(id))
        .expect("readable")
        .unwrap_or_else(|| panic!("no receipt of {}", bench.get(id)))
}

fn line(receipt: &Receipt, assignment: &Assignment) -> Line {
    let mut lines = receipt.lines.iter();
    lines
        .find(|line| line.trail.assignment == *assignment)
        .expect("it was asked for")
        .clone()
}

/// Every grant that has ended has its receipt, and no other one has.
fn assert_receipts_match(bench: &Bench) {
    let grants = ready(bench.memory.list_grants(
        &crate::ports::ledger::GrantFilter::default(),
        None,
        1_000,
    ))
    .expect("readable");
    for grant in grants.items {
        let receipt = ready(bench.memory.receipt(grant.id)).expect("readable");
        assert_eq!(receipt.is_some(), grant.state.is_ended(), "{grant}");
    }
}

#[test]
fn a_receipt_comes_with_the_end_and_is_closed_by_the_second_look() {
    let mut bench = Bench::new();
    bench.gives("ada", &editor("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    assert_receipts_match(&bench);
    let due = bench.expires_at(id);
    bench.run_until(due + seconds(8));
    let first = receipt(&bench, id);
    assert_eq!(first.assurance(), Assurance::SeenGoneOnce);
    assert!(first.is_open());
    assert_eq!(first.due_at, Some(due));
    let late = first.due_to_gone().expect("it was seen gone");
    assert!(late >= seconds(2) && late < seconds(8), "{late}");
    let one = line(&first, &viewer("a"));
    assert_eq!(one.fate, Fate::Removed);
    assert_eq!((one.trail.added.intents, one.trail.removed.intents), (1, 1));
    assert!(one.trail.seen_at.is_some() && one.trail.added.done_at.is_some());
    let gone = one.trail.gone.expect("seen gone");
    assert!(gone.read_started_at >= one.trail.removed.done_at.expect("done"));
    let before = first.before.clone().expect("it was read before");
    assert_eq!(before.assignments, [editor("b")]);
    let after = first.after.clone().expect("it was read after");
    assert_eq!(after.assignments, [editor("b")]);
    bench.run(HOUR);
    let last = receipt(&bench, id);
    assert_eq!(last.assurance(), Assurance::SeenGoneTwice);
    assert!(!last.is_open());
    let look = line(&last, &viewer("a")).trail.look;
    assert!(
        matches!(look, Look::Done { at } if at > gone.at),
        "{look:?}"
    );
    assert_eq!(last.ended_at, first.ended_at);
    assert_eq!(last.warnings(), []);
    assert_eq!(last.notes().len(), 2);
    bench.assert_clean(&["ada"]);
    assert_eq!(bench.record("ada").evidence, Evidence::default());
}

#[test]
fn what_two_grants_share_is_kept_at_the_first_end_and_proven_at_the_last() {
    let mut bench = Bench::new();
    let short = bench.grant("ada", &[viewer("a"), viewer("b")], 60);
    let long = bench.grant("ada", &[viewer("a")], 600);
    bench.run(120);
    let first = receipt(&bench, short);
    assert_eq!(line(&first, &viewer("a")).fate, Fate::Kept);
    assert_eq!(line(&first, &viewer("b")).fate, Fate::Removed);
    assert!(bench.holds("ada", &viewer("a")));
    bench.run(HOUR);
    assert_eq!(receipt(&bench, short).assurance(), Assurance::SeenGoneTwice);
    let last = receipt(&bench, long);
    assert_eq!(line(&last, &viewer("a")).fate, Fate::Removed);
    assert_eq!(last.assurance(), Assurance::SeenGoneTwice);
    bench.assert_clean(&["ada"]);
}

#[test]
fn standing_access_is_named_as_such_and_nothing_is_claimed_to_be_removed() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("a"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    let found = receipt(&bench, id);
    assert_eq!(line(&found, &viewer("a")).fate, Fate::Standing);
    assert_eq!(found.assurance(), Assurance::NothingToRemove);
    assert_eq!((found.due_to_gone(), found.due_at), (None, None));
    assert_eq!(found.notes(), [""; 0]);
}

#[test]
fn what_somebody_else_took_away_is_not_claimed() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(10);
    bench.takes("ada", &viewer("a"));
    bench.run(300);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    let found = receipt(&bench, id);
    let one = line(&found, &viewer("a"));
    assert_eq!(one.fate, Fate::TakenAway);
    assert!(one.trail.missing_at.is_some());
    assert_eq!(one.trail.removed.intents, 0);
    assert_eq!(found.warnings(), [Warning::ExternallyModified]);
}

#[test]
fn what_comes_back_reopens_the_receipt_and_the_end_says_so() {
    let mut bench = Bench::new();
    bench.world.change(|world| {
        world
            .adds
            .push_back(Some(Fault::Unknown(Lands::After(seconds(300)))));
    });
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(200);
    let first = receipt(&bench, id);
    assert_eq!(first.assurance(), Assurance::SeenGoneOnce);
    let ended_at = first.ended_at;
    let mut reopened = false;
    for _ in 0..HOUR {
        bench.run(1);
        reopened |= receipt(&bench, id).assurance() == Assurance::Reopened;
    }
    assert!(reopened, "the receipt never said that it came back");
    let last = receipt(&bench, id);
    assert_eq!(last.assurance(), Assurance::SeenGoneTwice);
    assert_eq!(last.warnings(), [Warning::RemovedAgain]);
    assert_eq!(line(&last, &viewer("a")).trail.resurrections, 1);
    assert_eq!(
        last.ended_at, ended_at,
        "a resurrection does not move the end"
    );
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_later_grant_of_the_same_takes_the_second_look_over() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let due = bench.expires_at(first);
    bench.run_until(due + seconds(6));
    assert_eq!(bench.state(first), "ended");
    let second = bench.grant("ada", &[viewer("a")], 600);
    bench.run(120);
    assert!(bench.is_active(second));
    let found = receipt(&bench, first);
    let look = line(&found, &viewer("a")).trail.look;
    assert!(matches!(look, Look::TakenOver { .. }), "{look:?}");
    assert!(!found.is_open());
    bench.run(HOUR);
    let last = receipt(&bench, second);
    assert_eq!(last.assurance(), Assurance::SeenGoneTwice);
    assert_eq!(line(&last, &viewer("a")).trail.added.intents, 1);
}

#[test]
fn neighbours_that_were_put_back_stand_on_the_receipt() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    bench.world.change(|world| world.delete = Delete::WholeRole);
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    assert!(bench.holds("ada", &viewer("b")));
    let found = receipt(&bench, id);
    assert_eq!(line(&found, &viewer("a")).trail.restored, [viewer("b")]);
    assert_eq!(found.warnings(), [Warning::SurvivorsRestored]);
    assert_eq!(found.assurance(), Assurance::SeenGoneTwice);
}

#[test]
fn a_refused_removal_and_a_failed_addition_are_told_as_they_were() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("b")], 60);
    bench.run(10);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run(300);
    bench.world.change(|world| world.hidden.clear());
    bench.run(HOUR);
    let found = receipt(&bench, id);
    assert_eq!(found.warnings(), [Warning::RemovalBlocked]);
    let one = line(&found, &viewer("b"));
    assert!(one.trail.removed.refused > 1, "{one:?}");
    let refused = bench.grant("bob", &[viewer("c")], 60);
    bench
        .world
        .change(|world| world.hidden.insert(viewer("c").target));
    bench.run(60);
    assert_eq!(bench.state(refused), "ended");
    let nothing = receipt(&bench, refused);
    assert_eq!(line(&nothing, &viewer("c")).fate, Fate::NotGiven);
    assert_eq!(nothing.assurance(), Assurance::NothingToRemove);
}

#[test]
fn the_receipt_of_a_member_who_left_says_that() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(10);
    bench.leaves("ada");
    bench.run(HOUR);
    let found = receipt(&bench, id);
    assert_eq!(line(&found, &viewer("a")).fate, Fate::MemberLeft);
    assert_eq!(found.assurance(), Assurance::SeenGoneTwice);
}

#[test]
fn a_crash_at_any_point_costs_no_receipt() {
    for point in 0..40 {
        let mut bench = Bench::new();
        let id = bench.grant("ada", &[viewer("a"), editor("b")], 30);
        let other = bench.grant("ada", &[viewer("a")], 90);
        bench.world.crash.after(point);
        bench.run(60);
        assert_receipts_match(&bench);
        bench.world.crash.never();
        bench.run(HOUR);
        assert_receipts_match(&bench);
        for id in [id, other] {
            let found = receipt(&bench, id);
            assert!(!found.is_open(), "point {point}: {found:?}");
        }
        bench.assert_clean(&["ada"]);
        assert!(bench.record("ada").evidence.is_empty(), "point {point}");
    }
}

#[test]
fn receipts_are_listed_by_their_end() {
    let mut bench = Bench::new();
    let ids: Vec<GrantId> = ["ada", "bob"]
        .map(|name| bench.grant(name, &[viewer("a")], 60))
        .to_vec();
    bench.run(HOUR);
    let page = ready(
        bench
            .memory
            .list_receipts(&ReceiptFilter::default(), None, 10),
    )
    .expect("readable");
    let mut listed: Vec<GrantId> = page.items.iter().map(|one| one.grant_id).collect();
    assert!(
        page.items
            .windows(2)
            .all(|two| two[0].ended_at >= two[1].ended_at)
    );
    listed.sort();
    assert_eq!(listed, ids);
}

#[test]
fn a_reconciler_that_only_takes_adds_nothing_and_still_removes() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    let due = bench.expires_at(id);
    bench.clock.advance(due - bench.now());
    bench.grant("ada", &[viewer("b")], 60);
    let plain = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
    bench.reconciler = plain.taking_only();
    bench.run(60);
    assert_eq!(bench.held("ada"), BTreeSet::new());
    assert_eq!(bench.state(id), "ended");
}

#[test]
fn what_was_given_up_is_reported_while_it_is_there_and_then_no_more() {
    let bench = Bench::new();
    bench.gives("ada", &viewer("a"));
    let mut record = bench.record("ada");
    record.evidence.forgotten.push(Forgotten {
        assignment: viewer("a"),
        at: bench.now(),
        by: "ada".to_owned(),
        confirmed_by: "grace".to_owned(),
        reason: "the deployment is gone".to_owned(),
        reported_at: None,
    });
    ready(bench.memory.commit(MemberCommit {
        record,
        audit: Vec::new(),
        request: None,
    }))
    .expect("committed");
    for _ in 0..5 {
        bench.clock.advance(seconds(60));
        let watched = ready(bench.reconciler.watch_forgotten()).expect("readable");
        assert_eq!((watched.present, watched.gone), (1, 0));
    }
    assert_eq!(bench.drift("forgotten_still_present"), 1, "once a day");
    bench.clock.advance(TimeDelta::hours(25));
    ready(bench.reconciler.watch_forgotten()).expect("readable");
    assert_eq!(bench.drift("forgotten_still_present"), 2);
    bench.takes("ada", &viewer("a"));
    bench.clock.advance(seconds(60));
    let watched = ready(bench.reconciler.watch_forgotten()).expect("readable");
    assert_eq!((watched.present, watched.gone), (0, 1));
    assert_eq!(bench.drift("forgotten_gone"), 1);
    assert!(bench.record("ada").evidence.is_empty());
    assert_eq!(bench.removals(), 0, "what is not ours is not removed");
}

#[test]
fn what_a_member_held_before_is_what_was_there_before_the_first_call_for_that_grant() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 600);
    let mut later = Ask::new("ada", &[viewer("b")], 60);
    later.starts_at = Some(bench.now() + seconds(300));
    let later = bench.ask(&later);
    bench.run(10);
    bench.gives("ada", &editor("z"));
    bench.run(HOUR);
    let before = |id| receipt(&bench, id).before.expect("it was read").assignments;
    assert_eq!(before(first), []);
    assert_eq!(before(later), [editor("z"), viewer("a")]);
}

#[test]
fn a_read_that_began_when_access_was_given_up_does_not_prove_that_it_is_gone() {
    for (later, gone) in [(1, 0), (0, 1)] {
        let bench = Bench::new();
        let mut record = bench.record("ada");
        let at = bench.now() + TimeDelta::milliseconds(later);
        record.evidence.forgotten.push(Forgotten {
            assignment: viewer("a"),
            at,
            by: "ada".to_owned(),
            confirmed_by: "grace".to_owned(),
            reason: "the deployment is gone".to_owned(),
            reported_at: None,
        });
        ready(bench.memory.commit(MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        }))
        .expect("committed");
        let watched = ready(bench.reconciler.watch_forgotten()).expect("readable");
        let read_at = bench.world.look().calls[0].0;
        assert_eq!(read_at - at, TimeDelta::milliseconds(1 - later));
        assert_eq!((watched.present, watched.gone), (0, gone));
    }
}
