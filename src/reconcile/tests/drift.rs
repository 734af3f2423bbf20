//! Drift: opened once, closed once, watched after the end, repaired only after a login and only so often.

use super::world::{Delete, Fault, Lands};
use super::*;
use crate::domain::drift::{DriftAction, DriftKind};
use crate::reconcile::Reapply;

fn open(bench: &Bench, name: &str, kind: DriftKind) -> Vec<crate::domain::drift::OpenDrift> {
    let drifts = bench.record(name).drifts;
    drifts
        .into_iter()
        .filter(|open| open.kind == kind)
        .collect()
}

fn ended(bench: &Bench, wanted: &str) -> usize {
    let events = bench.events();
    let found =
        |event: &&EventKind| matches!(event, EventKind::DriftEnded { kind, .. } if kind == wanted);
    events.iter().filter(found).count()
}

/// Lets the sweep run every minute for so many seconds.
fn sweep(bench: &mut Bench, seconds: i64) {
    let end = bench.now() + TimeDelta::seconds(seconds);
    while bench.now() < end {
        bench.run_until((bench.now() + TimeDelta::seconds(60)).min(end));
        ready(bench.reconciler.sweep()).expect("readable");
        bench.run(1);
    }
}

/// A login through single sign-on: the member holds exactly this from now on.
fn login(bench: &Bench, name: &str, mapped: &[Assignment]) {
    let held = bench.held(name);
    for one in held.difference(&mapped.iter().cloned().collect()) {
        bench.takes(name, one);
    }
    for one in mapped {
        bench.gives(name, one);
    }
}

fn with_reapply() -> Bench {
    let mut bench = Bench::new();
    bench.settings.reapply = Reapply::Sso;
    bench.restart();
    bench
}

#[test]
fn access_that_reappears_after_its_end_is_reported_with_its_first_sight_and_left_alone() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    assert_eq!(bench.state(id), "ended");
    assert_eq!(bench.record("ada").watched.len(), 1);
    bench.gives("ada", &viewer("a"));
    let given_at = bench.now();
    sweep(&mut bench, 2 * HOUR);
    let found = open(&bench, "ada", DriftKind::Reappeared);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].assignment, viewer("a"));
    assert_eq!(found[0].action, DriftAction::LeftAlone);
    assert!(found[0].first_seen - given_at <= seconds(11 * 60));
    assert_eq!(
        bench.drift("reappeared"),
        1,
        "one event, however often it is seen"
    );
    assert!(bench.holds("ada", &viewer("a")), "it may be standing");
    assert_eq!(bench.removals(), 1);
    bench.takes("ada", &viewer("a"));
    sweep(&mut bench, HOUR);
    assert_eq!(bench.record("ada").drifts, []);
    assert_eq!(ended(&bench, "reappeared"), 1);
}

#[test]
fn nothing_is_watched_for_ever_and_what_still_stands_then_is_standing() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    bench.gives("ada", &viewer("a"));
    sweep(&mut bench, HOUR);
    assert_eq!(open(&bench, "ada", DriftKind::Reappeared).len(), 1);
    bench.clock.advance(TimeDelta::hours(24));
    sweep(&mut bench, HOUR);
    let record = bench.record("ada");
    assert_eq!((record.watched, record.drifts), (Vec::new(), Vec::new()));
    assert_eq!(ended(&bench, "reappeared"), 1);
    let key = record.key;
    let page = ready(bench.memory.members(&main_integration(), None, 10)).expect("readable");
    assert!(
        page.items.iter().all(|other| other.key != key),
        "nobody looks any more"
    );
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_given_again_is_no_reappearance() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    sweep(&mut bench, 600);
    assert!(bench.is_active(second));
    assert_eq!(bench.drift("reappeared"), 0);
    assert_eq!(bench.record("ada").watched, []);
}

#[test]
fn a_stripped_grant_opens_one_drift_and_closes_it() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), editor("b")], HOUR);
    bench.run(5);
    bench.takes("ada", &viewer("a"));
    bench.run(300);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    assert_eq!((bench.drift("missing"), ended(&bench, "missing")), (1, 1));
    assert_eq!(bench.record("ada").drifts, []);
}

#[test]
fn a_login_that_overwrote_a_grant_is_undone_and_told() {
    let mut bench = with_reapply();
    bench.gives("ada", &editor("m"));
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
    bench.run(5);
    login(&bench, "ada", &[editor("m")]);
    sweep(&mut bench, 120);
    assert!(bench.is_active(id), "{:?}", bench.get(id).state);
    assert!(bench.holds("ada", &viewer("a")) && bench.holds("ada", &viewer("b")));
    assert!(bench.get(id).externally_modified);
    assert_eq!(bench.get(id).certainty, Certainty::Verified);
    assert_eq!((bench.drift("missing"), ended(&bench, "missing")), (2, 2));
    assert!(bench.reconciler.observer.board().overwrites_seen());
    bench.run(2 * HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    assert_eq!(bench.held("ada"), BTreeSet::from([editor("m")]));
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_is_added_again_only_so_often() {
    let mut bench = with_reapply();
    bench.gives("ada", &editor("m"));
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 3 * HOUR);
    bench.run(5);
    for round in 0..4 {
        assert!(bench.is_active(id), "round {round}");
        login(&bench, "ada", &[editor("m")]);
        sweep(&mut bench, 300);
    }
    assert_eq!(bench.cause(id), EndCause::Superseded);
    bench.run(HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([editor("m")]));
    bench.assert_clean(&["ada"]);
}

#[test]
fn neither_a_single_role_nor_a_member_left_with_nothing_looks_like_a_login() {
    for mapped in [vec![editor("m"), viewer("b")], vec![]] {
        let mut bench = with_reapply();
        bench.gives("ada", &editor("m"));
        let id = bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
        bench.run(5);
        login(&bench, "ada", &mapped);
        sweep(&mut bench, 300);
        assert_eq!(bench.cause(id), EndCause::Superseded, "{mapped:?}");
    }
}

#[test]
fn without_reapply_a_login_ends_the_grant() {
    let mut bench = Bench::new();
    bench.gives("ada", &editor("m"));
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
    bench.run(5);
    login(&bench, "ada", &[editor("m")]);
    bench.run(300);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    assert!(bench.reconciler.observer.board().overwrites_seen());
}

#[test]
fn too_many_members_overwritten_at_once_wait_for_an_operator_also_after_a_restart() {
    let mut bench = with_reapply();
    bench.settings.reapply_max_members = 1;
    bench.restart();
    let mut ids = Vec::new();
    for name in ["ada", "bob"] {
        bench.gives(name, &editor("m"));
        ids.push(bench.grant(name, &[viewer("a"), viewer("b")], HOUR));
    }
    bench.run(5);
    for name in ["ada", "bob"] {
        login(&bench, name, &[editor("m")]);
    }
    sweep(&mut bench, 300);
    let held: Vec<_> = ["ada", "bob"]
        .into_iter()
        .filter(|name| !bench.holds(name, &viewer("a")))
        .collect();
    assert_eq!(held.len(), 1, "one is repaired, the other waits");
    assert!(
        ids.iter().all(|id| bench.is_active(*id)),
        "nothing is decided"
    );
    assert!(bench.reconciler.observer.board().is_breaker_open());
    bench.restart();
    sweep(&mut bench, 300);
    assert!(
        !bench.holds(held[0], &viewer("a")),
        "a restart confirms nothing"
    );
    assert!(bench.reconciler.observer.board().is_breaker_open());
    // An operator's word is written into the member; the service does this.
    let mut record = bench.record(held[0]);
    for open in &mut record.drifts {
        open.action = DriftAction::Confirmed;
    }
    record.check_at = Some(bench.now());
    let (audit, request) = (Vec::new(), None);
    let commit = MemberCommit {
        record,
        audit,
        request,
    };
    ready(bench.memory.commit(commit)).expect("nobody in between");
    sweep(&mut bench, 120);
    assert!(bench.holds(held[0], &viewer("a")));
    sweep(&mut bench, 60);
    assert!(!bench.reconciler.observer.board().is_breaker_open());
    bench.run(2 * HOUR);
    bench.assert_clean(&["ada", "bob"]);
}

#[test]
fn held_access_still_ends_at_its_time() {
    let mut bench = with_reapply();
    bench.settings.reapply_max_members = 0;
    bench.restart();
    bench.gives("ada", &editor("m"));
    let id = bench.grant("ada", &[viewer("a"), viewer("b")], 600);
    bench.run(5);
    login(&bench, "ada", &[editor("m")]);
    sweep(&mut bench, 300);
    assert!(bench.is_active(id));
    assert_eq!(open(&bench, "ada", DriftKind::Missing).len(), 2);
    sweep(&mut bench, HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    assert_eq!(bench.record("ada").drifts, []);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_raised_limit_lets_held_repairs_go_on() {
    let mut bench = with_reapply();
    bench.settings.reapply_max_members = 0;
    bench.restart();
    bench.gives("ada", &editor("m"));
    bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
    bench.run(5);
    login(&bench, "ada", &[editor("m")]);
    sweep(&mut bench, 120);
    assert!(!bench.holds("ada", &viewer("a")));
    bench.settings.reapply_max_members = 5;
    bench.restart();
    sweep(&mut bench, 120);
    assert!(bench.holds("ada", &viewer("a")));
}

#[test]
fn putting_back_a_neighbour_is_one_drift_that_stays_open_until_it_is_there() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.world.change(|world| {
        world.delete = Delete::WholeRole;
        // It says "done" for two hours and does nothing.
        world.adds.extend(vec![Some(Fault::Lie); 20]);
    });
    bench.run_until(bench.expires_at(id) + seconds(HOUR));
    assert_eq!(bench.state(id), "ended");
    assert!(!bench.holds("ada", &viewer("b")));
    let found = open(&bench, "ada", DriftKind::SurvivorMissing);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].action, DriftAction::PutBack);
    bench.run(3 * HOUR);
    assert_eq!(bench.held("ada"), BTreeSet::from([viewer("b")]));
    let events = (
        bench.drift("survivor_missing"),
        ended(&bench, "survivor_missing"),
    );
    assert_eq!(events, (1, 1));
    let record = bench.record("ada");
    assert_eq!((record.drifts, record.owned), (Vec::new(), Vec::new()));
}

#[test]
fn a_neighbour_that_cannot_be_put_back_for_a_week_is_given_up_loudly() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(10);
    bench.world.change(|world| world.delete = Delete::WholeRole);
    bench.run_until(bench.expires_at(id) + TimeDelta::milliseconds(500));
    bench
        .world
        .change(|world| world.hidden.insert(viewer("b").target));
    bench.run(6 * 24 * HOUR);
    assert_eq!(open(&bench, "ada", DriftKind::SurvivorMissing).len(), 1);
    bench.run(2 * 24 * HOUR);
    let found = open(&bench, "ada", DriftKind::SurvivorMissing);
    assert_eq!(
        found.first().map(|open| open.action),
        Some(DriftAction::GivenUp)
    );
    assert_eq!(bench.record("ada").owned, []);
    bench.clock.advance(TimeDelta::hours(25));
    sweep(&mut bench, HOUR);
    assert_eq!(bench.record("ada").drifts, []);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_resurrection_is_one_drift_that_closes_when_it_is_gone_again() {
    let mut bench = Bench::new();
    let late = Fault::Unknown(Lands::After(seconds(300)));
    bench.world.change(|world| world.adds.push_back(Some(late)));
    bench.grant("ada", &[viewer("a")], 60);
    bench.run(HOUR);
    assert_eq!(
        (bench.drift("resurrected"), ended(&bench, "resurrected")),
        (1, 1)
    );
    bench.assert_clean(&["ada"]);
}

#[test]
fn everything_that_was_removed_is_watched() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a"), editor("b")], 60);
    bench.grant("ada", &[viewer("c")], 60);
    bench.run(HOUR);
    let watched = bench.record("ada").watched;
    let watched: BTreeSet<_> = watched.into_iter().map(|one| one.assignment).collect();
    assert_eq!(
        watched,
        BTreeSet::from([viewer("a"), editor("b"), viewer("c")])
    );
}

#[test]
fn what_was_taken_away_for_good_is_closed_as_no_longer_wanted() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a"), editor("b")], HOUR);
    bench.run(5);
    bench.takes("ada", &viewer("a"));
    bench.run(300);
    assert_eq!(bench.cause(id), EndCause::Superseded);
    let events = bench.events();
    let mut outcomes = Vec::new();
    for event in &events {
        if let EventKind::DriftEnded { kind, outcome, .. } = event
            && kind == "missing"
        {
            outcomes.push(outcome.as_str());
        }
    }
    assert_eq!(outcomes, ["no longer wanted"]);
}
