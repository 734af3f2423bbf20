//! What single reads and instants mean for a member record, without a pass.

use super::*;
use crate::domain::drift::{DriftAction, DriftKind, OpenDrift, Watched};
use crate::domain::member::{LastSeen, LastWrite, Owned, Phase, Survivor, WriteKind, WriteOutcome};
use crate::reconcile::drift::{Overwritten, overwritten};
use crate::reconcile::plan::{Plan, Snapshot};

/// The instant of the tests; everything else is seconds from it.
pub(super) fn at(count: i64) -> Timestamp {
    ManualClock::default().now() + seconds(count)
}

/// Given ten minutes ago, and seen since.
pub(super) fn row(assignment: Assignment) -> Owned {
    Owned {
        assignment,
        phase: Phase::Live,
        since: at(-600),
        must_end_by: None,
        last_write: write(WriteKind::Add, -600),
        seen: true,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}

pub(super) fn write(kind: WriteKind, seconds: i64) -> LastWrite {
    LastWrite {
        kind,
        at: at(seconds),
        outcome: WriteOutcome::Done,
    }
}

pub(super) fn owed(assignment: Assignment) -> Survivor {
    Survivor {
        assignment,
        restored_at: None,
        restores: 0,
    }
}

pub(super) fn ada(owned: Vec<Owned>) -> MemberRecord {
    let key = MemberKey {
        integration: main_integration(),
        subject: Subject::Member(user("ada")),
    };
    MemberRecord {
        owned,
        ..MemberRecord::new(key)
    }
}

/// A complete read that started then and shows so much.
pub(super) fn shows(started: i64, assignments: &[Assignment]) -> Snapshot {
    Snapshot {
        started_at: at(started),
        complete: true,
        shown: true,
        assignments: assignments.iter().cloned().collect(),
        owners: 1,
    }
}

pub(super) fn grant_in(state: GrantState, wants: &[Assignment]) -> Grant {
    let mut bench = Bench::new();
    let grant = bench.accept_of(&Ask::new("ada", wants, HOUR)).grant;
    Grant { state, ..grant }
}

fn active() -> GrantState {
    GrantState::Active {
        activated_at: at(-600),
        expires_at: at(HOUR),
    }
}

fn revoking() -> GrantState {
    GrantState::Revoking {
        since: at(-1),
        cause: EndCause::Expired,
    }
}

/// How the differences ended that a step closed.
fn ended(draft: &Draft) -> Vec<&str> {
    let mut found = Vec::new();
    for event in &draft.audit {
        if let EventKind::DriftEnded { outcome, .. } = &event.kind {
            found.push(outcome.as_str());
        }
    }
    found
}

fn open(kind: DriftKind, assignment: Assignment, action: DriftAction) -> OpenDrift {
    OpenDrift {
        kind,
        assignment,
        first_seen: at(0),
        last_seen: at(0),
        action,
    }
}

#[test]
fn a_login_shows_by_what_others_changed_between_two_reads() {
    let m = editor("m");
    let (a, b, c) = (viewer("a"), viewer("b"), viewer("c"));
    let none = || Vec::new();
    let written = |kind, when| {
        let mut own = row(viewer("b"));
        own.last_write = write(kind, when);
        vec![own]
    };
    let echoing = || {
        let mut own = row(viewer("b"));
        own.echo_until = Some(at(100));
        vec![own]
    };
    let is = |gone: &[&Assignment], appeared: &[&Assignment]| {
        let list = |some: &[&Assignment]| some.iter().map(|one| (*one).clone()).collect();
        Some(Overwritten {
            gone: list(gone),
            appeared: list(appeared),
        })
    };
    let (add, remove) = (WriteKind::Add, WriteKind::Remove);
    for (what, before, after, owned, expected) in [
        (
            "two gone",
            vec![&a, &b, &m],
            vec![&m],
            none(),
            is(&[&a, &b], &[]),
        ),
        (
            "one exchanged",
            vec![&a, &m],
            vec![&c, &m],
            none(),
            is(&[&a], &[&c]),
        ),
        ("one gone", vec![&a, &m], vec![&m], none(), None),
        ("two new", vec![&m], vec![&a, &b, &m], none(), None),
        ("nothing left", vec![&a, &b], vec![], none(), None),
        (
            "ours was given since",
            vec![&a, &m],
            vec![&b, &m],
            written(add, -5),
            None,
        ),
        (
            "ours was given with the read",
            vec![&a, &m],
            vec![&b, &m],
            written(add, -10),
            None,
        ),
        (
            "ours landed late",
            vec![&a, &m],
            vec![&b, &m],
            echoing(),
            None,
        ),
        (
            "ours was given long before",
            vec![&a, &b, &m],
            vec![&m],
            written(add, -11),
            is(&[&a, &b], &[]),
        ),
        (
            "an addition takes nothing along",
            vec![&a, &c, &m],
            vec![&b, &m],
            written(add, -5),
            is(&[&a, &c], &[]),
        ),
        (
            "a removal may take neighbours along",
            vec![&a, &b, &c, &m],
            vec![&m],
            written(remove, -5),
            None,
        ),
        (
            "but no other roles",
            vec![&b, &m, &editor("n"), &editor("o")],
            vec![&m],
            written(remove, -5),
            is(&[&editor("n"), &editor("o")], &[]),
        ),
    ] {
        let list = |some: Vec<&Assignment>| some.into_iter().cloned().collect::<Vec<_>>();
        let mut record = ada(owned);
        record.last_seen = Some(LastSeen {
            at: at(-10),
            assignments: list(before).into_iter().collect(),
        });
        let mut snapshot = shows(0, &list(after));
        assert_eq!(overwritten(&record, &snapshot), expected, "{what}");
        snapshot.complete = false;
        assert_eq!(overwritten(&record, &snapshot), None, "{what}, filtered");
    }
}

#[test]
fn what_nobody_holds_any_more_is_there_again_only_by_a_read_since_it_was_missed() {
    let settings = Settings::default();
    for (started, shown, outcome) in [
        (0, true, "there again"),
        (5, true, "there again"),
        (-1, true, "no longer wanted"),
        (5, false, "no longer wanted"),
    ] {
        let mut record = ada(Vec::new());
        let missing = open(DriftKind::Missing, viewer("a"), DriftAction::GrantEnds);
        record.drifts.push(missing);
        let mut draft = Draft::new(record);
        let held = if shown { vec![viewer("a")] } else { vec![] };
        let read = shows(started, &held);
        draft.settle(&Plan::default(), Some(&read), at(6), &settings);
        assert_eq!(ended(&draft), [outcome], "{started} {shown}");
    }
}

#[test]
fn what_is_ours_and_missing_stays_open_until_the_plan_finds_it() {
    let mut record = ada(vec![row(viewer("a"))]);
    let missing = open(DriftKind::Missing, viewer("a"), DriftAction::GrantEnds);
    record.drifts.push(missing);
    let mut draft = Draft::new(record);
    let read = shows(5, &[viewer("a")]);
    draft.settle(&Plan::default(), Some(&read), at(6), &Settings::default());
    assert_eq!(ended(&draft), [""; 0]);
    assert_eq!(draft.record.drifts.len(), 1);
}

#[test]
fn a_resurrection_ends_when_a_grant_wants_the_pair_again() {
    for (wanted, outcomes) in [(true, vec!["wanted again"]), (false, vec![])] {
        let mut record = ada(vec![row(viewer("a"))]);
        let back = open(
            DriftKind::Resurrected,
            viewer("a"),
            DriftAction::RemovedAgain,
        );
        record.drifts.push(back);
        if wanted {
            record.grants.push(grant_in(active(), &[viewer("a")]));
        }
        let mut draft = Draft::new(record);
        draft.settle(&Plan::default(), None, at(6), &Settings::default());
        assert_eq!(ended(&draft), outcomes);
    }
}

#[test]
fn a_neighbour_that_was_given_up_and_is_there_again_is_no_difference_any_more() {
    for (shown, outcomes) in [(true, vec!["there again"]), (false, vec![])] {
        let mut record = ada(Vec::new());
        let lost = open(
            DriftKind::SurvivorMissing,
            viewer("b"),
            DriftAction::GivenUp,
        );
        record.drifts.push(lost);
        let mut draft = Draft::new(record);
        let held = if shown { vec![viewer("b")] } else { vec![] };
        let read = shows(5, &held);
        draft.settle(&Plan::default(), Some(&read), at(6), &Settings::default());
        assert_eq!(ended(&draft), outcomes);
    }
}

#[test]
fn a_neighbour_that_was_given_up_is_told_of_for_as_long_as_anything_is_watched() {
    let settings = Settings::default();
    let over = settings.watch.num_seconds();
    for (now, outcomes) in [(over - 1, vec![]), (over, vec!["given up"])] {
        let mut record = ada(Vec::new());
        let lost = open(
            DriftKind::SurvivorMissing,
            viewer("b"),
            DriftAction::GivenUp,
        );
        record.drifts.push(lost);
        let mut draft = Draft::new(record);
        draft.settle(&Plan::default(), None, at(now), &settings);
        assert_eq!(ended(&draft), outcomes, "{now}");
    }
}

#[test]
fn what_somebody_took_away_ends_the_grants_that_need_it_now_and_no_others() {
    let scheduled = GrantState::Scheduled { starts_at: at(60) };
    let mut record = ada(vec![row(viewer("a")), row(viewer("b"))]);
    for (state, pair) in [
        (active(), viewer("a")),
        (active(), viewer("b")),
        (scheduled, viewer("a")),
    ] {
        record.grants.push(grant_in(state, &[pair]));
    }
    let mut draft = Draft::new(record);
    let plan = Plan {
        missing: vec![viewer("a")],
        ..Plan::default()
    };
    draft.settle(&plan, None, at(0), &Settings::default());
    let states = draft.record.grants.iter();
    let states: Vec<&str> = states.map(|grant| grant.state.name()).collect();
    assert_eq!(states, ["revoking", "active", "scheduled"]);
}

#[test]
fn a_read_is_kept_when_it_is_the_first_that_tells_for_certain_what_came_of_a_write() {
    // The call has been carried out by the instant of the tests at the latest.
    for (earlier, started, kept) in [
        (-5, -1, false),
        (-5, 0, false),
        (-5, 1, true),
        (0, 1, true),
        (1, 2, false),
    ] {
        let mut own = row(viewer("a"));
        own.last_write = write(WriteKind::Add, -32);
        let mut record = ada(vec![own]);
        record.last_seen = Some(LastSeen {
            at: at(earlier),
            assignments: BTreeSet::from([viewer("a")]),
        });
        let mut draft = Draft::new(record);
        let read = shows(started, &[viewer("a")]);
        draft.settle(&Plan::default(), Some(&read), at(3), &Settings::default());
        assert_eq!(draft.changed, kept, "{earlier} {started}");
    }
}

#[test]
fn what_ended_is_watched_until_its_time_and_told_by_reads_after_it_was_gone() {
    for (until, gone, told) in [
        (10, -60, true),
        (5, -60, false),
        (4, -60, false),
        (10, 4, false),
        (10, 3, true),
    ] {
        let mut record = ada(Vec::new());
        record.watched.push(Watched {
            assignment: viewer("a"),
            gone_at: at(gone),
            until: at(until),
        });
        let mut draft = Draft::new(record);
        draft.watch(&shows(4, &[viewer("a")]), at(5));
        assert_eq!(
            draft.record.drifts.len(),
            usize::from(told),
            "{until} {gone}"
        );
        let watched = draft.record.watched.len();
        assert_eq!(watched, usize::from(until > 5), "{until} {gone}");
    }
}

#[test]
fn a_neighbour_that_survived_is_written_down_and_one_that_nobody_owes_is_not() {
    for (survivor, changes) in [(viewer("b"), true), (viewer("c"), false)] {
        let mut own = row(viewer("a"));
        own.must_survive.push(owed(viewer("b")));
        let mut draft = Draft::new(ada(vec![own]));
        let plan = Plan {
            survived: vec![survivor],
            ..Plan::default()
        };
        draft.settle(&plan, None, at(0), &Settings::default());
        assert_eq!(draft.changed, changes);
        assert_eq!(draft.record.owned[0].must_survive.is_empty(), changes);
    }
}

#[test]
fn a_blocked_removal_is_told_to_the_grants_that_wait_for_it_and_to_no_others() {
    let mut record = ada(vec![row(viewer("a")), row(viewer("b"))]);
    for (state, pair) in [
        (revoking(), viewer("a")),
        (revoking(), viewer("b")),
        (active(), viewer("a")),
        (active(), viewer("b")),
    ] {
        record.grants.push(grant_in(state, &[pair]));
    }
    let mut draft = Draft::new(record);
    draft.block(&viewer("a"), "no", at(0), &Settings::default());
    let told: Vec<bool> = draft
        .record
        .grants
        .iter()
        .map(|grant| grant.last_error.is_some())
        .collect();
    assert_eq!(told, [true, false, false, false]);
}

#[test]
fn what_was_given_and_asked_for_with_the_new_membership_belongs_to_it() {
    let given = |seconds: i64| {
        let mut own = row(viewer(if seconds < 0 { "old" } else { "new" }));
        own.since = at(seconds);
        own
    };
    let asked = |seconds: i64| Grant {
        created_at: at(seconds),
        ..grant_in(active(), &[viewer("x")])
    };
    let mut record = ada(vec![given(-1), given(0)]);
    record.grants = vec![asked(-1), asked(0)];
    let mut draft = Draft::new(record);
    draft.member_left(at(5), at(0), at(6), &Settings::default());
    let live = draft.record.owned.iter();
    let live: Vec<bool> = live.map(|row| row.phase == Phase::Live).collect();
    assert_eq!(live, [false, true]);
    let states = draft.record.grants.iter();
    let states: Vec<&str> = states.map(|grant| grant.state.name()).collect();
    assert_eq!(states, ["ended", "active"]);
}

#[test]
fn of_an_earlier_membership_stays_ours_what_we_may_have_given_to_the_new_one() {
    let old = |id: &str, last_write: LastWrite, echo: Option<i64>| {
        let mut own = row(viewer(id));
        own.last_write = last_write;
        own.echo_until = echo.map(at);
        own
    };
    // The new membership began at the instant of the tests, long before the old one was last taken for seen.
    let mut record = ada(vec![
        old("givenbefore", write(WriteKind::Add, -400), None),
        old("givenwithit", write(WriteKind::Add, 0), None),
        old("givensince", write(WriteKind::Add, 1), None),
        old("takensince", write(WriteKind::Remove, 1), None),
        old("mayland", write(WriteKind::Add, -400), Some(800)),
    ]);
    record.last_seen = Some(LastSeen {
        at: at(500),
        assignments: BTreeSet::new(),
    });
    let mut draft = Draft::new(record);
    draft.member_rejoined(at(599), at(0), at(600), &Settings::default());
    let kept: Vec<Assignment> = draft
        .record
        .owned
        .iter()
        .map(|row| row.assignment.clone())
        .collect();
    let expected = ["givenwithit", "givensince", "mayland"].map(viewer);
    assert_eq!(kept, expected);
}
