//! The decision table row by row.

mod edges;
mod laws;
mod neighbours;

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::ids::{ApplicationRole, DeploymentId};
use crate::domain::member::{Blocked, LastWrite, Survivor};

/// The instant of the tests; everything else is seconds from it.
fn at(seconds: i64) -> Timestamp {
    chrono::DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

const BOUNDS: Bounds = Bounds {
    read_staleness: TimeDelta::seconds(2),
    request_lifetime: TimeDelta::seconds(30),
};

fn viewer(id: &str) -> Assignment {
    let target = match id {
        "all" => Target::AllDeployments,
        id => Target::Deployment {
            id: DeploymentId::parse(id).expect("well formed"),
        },
    };
    Assignment {
        role: "deployment-viewer".to_owned(),
        target,
        application_roles: ApplicationRoles::Mapped,
    }
}

fn named(id: &str, role: &str) -> Assignment {
    let role = ApplicationRole::parse(role).expect("well formed");
    Assignment {
        application_roles: ApplicationRoles::Exactly(BTreeSet::from([role])),
        ..viewer(id)
    }
}

fn owner() -> Assignment {
    Assignment {
        role: OWNER_ROLE.to_owned(),
        target: Target::Organization,
        application_roles: ApplicationRoles::Mapped,
    }
}

/// Owned, added a minute ago, and seen since.
fn live(assignment: Assignment) -> Owned {
    Owned {
        assignment,
        phase: Phase::Live,
        since: at(-60),
        must_end_by: None,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at: at(-60),
            outcome: WriteOutcome::Done,
        },
        seen: true,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}

/// Owned and added so many seconds ago, not seen yet.
fn unseen(assignment: Assignment, added: i64) -> Owned {
    let mut row = live(assignment);
    row.last_write.at = at(-added);
    row.seen = false;
    row
}

/// Owned, and its removal was answered "done" so many seconds ago.
fn removed(assignment: Assignment, ago: i64) -> Owned {
    let mut row = live(assignment);
    row.last_write.kind = WriteKind::Remove;
    row.last_write.at = at(-ago);
    row
}

fn closing(assignment: Assignment, look: i64) -> Owned {
    let mut row = removed(assignment, 60);
    row.phase = Phase::Closing {
        gone_at: at(-30),
        look_at: at(look),
    };
    row
}

fn owing(mut row: Owned, survivor: Assignment) -> Owned {
    row.must_survive.push(Survivor {
        assignment: survivor,
        restored_at: None,
        restores: 0,
    });
    row
}

/// A complete read that starts now and shows so much.
fn showing(assignments: &[Assignment]) -> Snapshot {
    Snapshot {
        started_at: at(0),
        complete: true,
        shown: true,
        assignments: assignments.iter().cloned().collect(),
        owners: 2,
    }
}

fn expecting(assignments: &[Assignment]) -> Expected {
    Expected(assignments.iter().map(|one| (one.clone(), false)).collect())
}

fn decide(expected: &[Assignment], owned: &[Owned], snapshot: Option<&Snapshot>) -> Plan {
    decide_for(&expecting(expected), owned, snapshot)
}

fn decide_for(expected: &Expected, owned: &[Owned], snapshot: Option<&Snapshot>) -> Plan {
    let view = View {
        expected,
        owned,
        snapshot,
        last_seen: None,
        reads_fail: false,
    };
    plan(&view, at(0), &BOUNDS)
}

/// One assignment list of a plan that is otherwise empty.
macro_rules! only {
    ($($field:ident: $value:expr),* $(,)?) => {
        Plan { $($field: $value),*, ..Plan::default() }
    };
}
use only;

#[test]
fn expected_not_owned_and_absent_is_added() {
    let plan = decide(&[viewer("a")], &[], Some(&showing(&[])));
    assert_eq!(plan, only!(add: vec![viewer("a")]));
}

#[test]
fn expected_not_owned_and_present_is_covered_by_standing_access() {
    let plan = decide(&[viewer("a")], &[], Some(&showing(&[viewer("a")])));
    assert_eq!(plan, only!(covered: vec![viewer("a")]));
}

#[test]
fn expected_not_owned_and_not_looked_at_asks_for_a_read_first() {
    let plan = decide(&[viewer("a")], &[], None);
    assert_eq!(plan, only!(observe_at: Some(at(0))));
}

#[test]
fn expected_owned_and_present_is_left_alone() {
    let plan = decide(
        &[viewer("a")],
        &[live(viewer("a"))],
        Some(&showing(&[viewer("a")])),
    );
    assert_eq!(plan, only!(present: vec![viewer("a")]));
    assert!(plan.is_quiet());
}

#[test]
fn expected_owned_seen_before_and_absent_now_is_missing() {
    let plan = decide(&[viewer("a")], &[live(viewer("a"))], Some(&showing(&[])));
    assert_eq!(plan, only!(missing: vec![viewer("a")]));
}

#[test]
fn expected_owned_and_never_seen_is_added_again_when_proven_absent() {
    let plan = decide(
        &[viewer("a")],
        &[unseen(viewer("a"), 10)],
        Some(&showing(&[])),
    );
    assert_eq!(plan, only!(add: vec![viewer("a")]));
}

#[test]
fn expected_owned_active_and_not_looked_at_needs_nothing() {
    let plan = decide(&[viewer("a")], &[live(viewer("a"))], None);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_grant_that_waits_for_verification_of_a_known_pair_asks_for_a_read() {
    let waiting = Expected(BTreeMap::from([(viewer("a"), true)]));
    let plan = decide_for(&waiting, &[live(viewer("a"))], None);
    assert_eq!(plan, only!(observe_at: Some(at(0))));
}

#[test]
fn unwanted_owned_and_present_is_removed() {
    let plan = decide(&[], &[live(viewer("a"))], Some(&showing(&[viewer("a")])));
    assert_eq!(plan, only!(remove: vec![viewer("a")]));
}

#[test]
fn unwanted_owned_and_not_looked_at_is_removed_without_a_read() {
    let plan = decide(&[], &[live(viewer("a"))], None);
    assert_eq!(plan, only!(remove: vec![viewer("a")]));
}

#[test]
fn unwanted_owned_and_absent_is_gone() {
    let plan = decide(&[], &[live(viewer("a"))], Some(&showing(&[])));
    assert_eq!(plan, only!(gone: vec![viewer("a")]));
}

#[test]
fn unwanted_not_owned_and_present_is_standing_and_never_touched() {
    let plan = decide(&[], &[], Some(&showing(&[viewer("a"), owner()])));
    assert_eq!(plan, Plan::default());
}

#[test]
fn after_an_addition_any_later_read_that_shows_it_proves_it() {
    let row = unseen(viewer("a"), 1);
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[viewer("a")])));
    assert_eq!(plan, only!(present: vec![viewer("a")]));
}

#[test]
fn a_read_from_before_the_addition_proves_nothing() {
    let row = unseen(viewer("a"), -1);
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[viewer("a")])));
    assert_eq!(plan, only!(observe_at: Some(at(0))));
}

#[test]
fn soon_after_an_addition_absence_proves_nothing() {
    let row = unseen(viewer("a"), 1);
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[])));
    assert_eq!(plan, only!(observe_at: Some(at(1))));
}

#[test]
fn soon_after_a_removal_a_read_says_nothing_either_way() {
    for shown in [vec![], vec![viewer("a")]] {
        let plan = decide(&[], &[removed(viewer("a"), 1)], Some(&showing(&shown)));
        assert_eq!(plan, only!(observe_at: Some(at(1))), "{shown:?}");
    }
}

#[test]
fn a_removal_that_did_not_help_is_repeated_once_the_read_is_late_enough() {
    let plan = decide(
        &[],
        &[removed(viewer("a"), 2)],
        Some(&showing(&[viewer("a")])),
    );
    assert_eq!(plan, only!(remove: vec![viewer("a")]));
}

#[test]
fn a_pair_wanted_again_after_our_removal_is_an_addition_whatever_is_shown() {
    for snapshot in [None, Some(showing(&[])), Some(showing(&[viewer("a")]))] {
        let rows = [removed(viewer("a"), 2)];
        let plan = decide(&[viewer("a")], &rows, snapshot.as_ref());
        assert_eq!(plan, only!(add: vec![viewer("a")]));
    }
}

#[test]
fn a_pair_wanted_again_waits_until_no_read_can_show_the_time_before_its_removal() {
    for snapshot in [None, Some(showing(&[])), Some(showing(&[viewer("a")]))] {
        let rows = [removed(viewer("a"), 1)];
        let plan = decide(&[viewer("a")], &rows, snapshot.as_ref());
        assert_eq!(plan, only!(observe_at: Some(at(1))));
    }
}

#[test]
fn closing_counts_as_owned_and_wanted_again_is_an_addition() {
    let plan = decide(
        &[viewer("a")],
        &[closing(viewer("a"), 10)],
        Some(&showing(&[viewer("a")])),
    );
    assert_eq!(plan, only!(add: vec![viewer("a")]));
}

#[test]
fn the_second_look_waits_for_its_time_and_then_closes() {
    let early = decide(&[], &[closing(viewer("a"), 10)], Some(&showing(&[])));
    assert_eq!(early, only!(observe_at: Some(at(10))));
    let due = decide(&[], &[closing(viewer("a"), 0)], Some(&showing(&[])));
    assert_eq!(due, only!(closed: vec![viewer("a")]));
}

#[test]
fn the_second_look_removes_what_came_back() {
    for look in [-5, 0, 5] {
        let rows = [closing(viewer("a"), look)];
        let plan = decide(&[], &rows, Some(&showing(&[viewer("a")])));
        assert_eq!(
            plan,
            only!(resurrected: vec![viewer("a")], remove: vec![viewer("a")])
        );
    }
}

#[test]
fn all_with_equal_application_roles_covers_each_target() {
    let plan = decide(&[viewer("a")], &[], Some(&showing(&[viewer("all")])));
    assert_eq!(plan, only!(covered: vec![viewer("a")]));
}

#[test]
fn all_with_other_application_roles_covers_nothing() {
    let plan = decide(&[viewer("a")], &[], Some(&showing(&[named("all", "x")])));
    assert_eq!(plan, only!(add: vec![viewer("a")]));
}

#[test]
fn an_all_of_our_own_covers_nothing() {
    let rows = [live(viewer("all"))];
    let plan = decide(
        &[viewer("a"), viewer("all")],
        &rows,
        Some(&showing(&[viewer("all")])),
    );
    assert_eq!(
        plan,
        only!(add: vec![viewer("a")], present: vec![viewer("all")])
    );
}

#[test]
fn a_member_who_is_not_shown_is_given_nothing() {
    let mut snapshot = showing(&[]);
    snapshot.shown = false;
    let plan = decide(
        &[viewer("a"), viewer("b")],
        &[live(viewer("b"))],
        Some(&snapshot),
    );
    assert_eq!(plan, Plan::default());
}

#[test]
fn an_incomplete_read_proves_presence_only() {
    let mut snapshot = showing(&[viewer("a")]);
    snapshot.complete = false;
    let present = decide(&[viewer("a")], &[live(viewer("a"))], Some(&snapshot));
    assert_eq!(present, only!(present: vec![viewer("a")]));
    let rows = [live(viewer("b"))];
    let unseen_active = decide(&[viewer("b")], &rows, Some(&snapshot));
    assert_eq!(unseen_active, Plan::default(), "not missing");
    let unproven = decide(&[], &[removed(viewer("b"), 10)], Some(&snapshot));
    assert_eq!(unproven, only!(observe_at: Some(at(-8)), blind: true));
}

#[test]
fn the_last_owner_is_not_removed_and_another_owner_is() {
    let mut snapshot = showing(&[owner()]);
    snapshot.owners = 1;
    let rows = [live(owner())];
    let last = decide(&[], &rows, Some(&snapshot));
    assert_eq!(last, only!(last_owner: vec![owner()]));
    snapshot.owners = 2;
    let other = decide(&[], &rows, Some(&snapshot));
    assert_eq!(other, only!(remove: vec![owner()]));
}

#[test]
fn an_owner_is_never_removed_without_a_complete_read() {
    let rows = [live(owner())];
    assert_eq!(decide(&[], &rows, None), only!(observe_at: Some(at(0))));
    let mut snapshot = showing(&[owner()]);
    snapshot.complete = false;
    let plan = decide(&[], &rows, Some(&snapshot));
    assert_eq!(plan, only!(observe_at: Some(at(0)), blind: true));
}

#[test]
fn a_blocked_removal_waits_for_its_retry() {
    let mut row = live(viewer("a"));
    row.blocked = Some(Blocked {
        code: "x".to_owned(),
        since: at(-60),
        retry_at: at(1),
        refusals: 1,
    });
    assert_eq!(decide(&[], &[row.clone()], None), Plan::default());
    row.blocked.as_mut().expect("blocked").retry_at = at(0);
    assert_eq!(decide(&[], &[row], None), only!(remove: vec![viewer("a")]));
}

#[test]
fn suspects_are_removed_one_at_a_time_after_the_others_and_the_least_tried_first() {
    let suspect = |id: &str, attempts: u32| {
        let mut row = live(viewer(id));
        row.isolate = true;
        row.attempts = attempts;
        row
    };
    let mut rows = vec![suspect("a", 2), suspect("b", 1), live(viewer("c"))];
    let first = decide(&[], &rows, None);
    let held_back = vec![viewer("b"), viewer("a")];
    assert_eq!(
        first,
        only!(remove: vec![viewer("c")], held_back: held_back)
    );
    rows.pop();
    let second = decide(&[], &rows, None);
    assert_eq!(
        second,
        only!(remove: vec![viewer("b")], held_back: vec![viewer("a")])
    );
}

#[test]
fn absence_that_a_late_removal_of_ours_explains_is_added_again() {
    let mut row = live(viewer("a"));
    row.echo_until = Some(at(100));
    row.removal_echo_until = Some(at(100));
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[])));
    assert_eq!(
        plan,
        only!(
            add: vec![viewer("a")],
            taken_along: vec![viewer("a")],
            observe_at: Some(at(100))
        )
    );
}

#[test]
fn absence_is_not_explained_by_a_late_addition() {
    let mut row = live(viewer("a"));
    row.echo_until = Some(at(100));
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[])));
    assert_eq!(
        plan,
        only!(missing: vec![viewer("a")], observe_at: Some(at(100)))
    );
}

#[test]
fn an_echo_is_over_with_the_first_complete_read_after_it() {
    let mut row = live(viewer("a"));
    row.echo_until = Some(at(0));
    let plan = decide(&[viewer("a")], &[row], Some(&showing(&[viewer("a")])));
    assert_eq!(
        plan,
        only!(present: vec![viewer("a")], echo_over: vec![viewer("a")])
    );
}

#[test]
fn an_echo_that_was_looked_at_asks_for_no_further_read_while_an_addition_waits_for_it() {
    let mut neighbour = closing(viewer("b"), 0);
    neighbour.echo_until = Some(at(0));
    neighbour.removal_echo_until = Some(at(0));
    let rows = [unseen(viewer("a"), 30), neighbour];
    let plan = decide(&[viewer("a")], &rows, Some(&showing(&[])));
    assert_eq!(
        plan,
        only!(add: vec![viewer("a")], closed: vec![viewer("b")])
    );
    let before = decide(&[viewer("a")], &rows, None);
    assert!(
        before.observe_at.is_some_and(|until| until <= at(0)),
        "{before:?}"
    );
}

#[test]
fn an_unanswered_removal_is_repeated_while_reads_fail() {
    let mut row = removed(viewer("a"), 10);
    row.last_write.outcome = WriteOutcome::Unknown;
    let rows = [row];
    let expected = Expected::default();
    let view = View {
        expected: &expected,
        owned: &rows,
        snapshot: None,
        last_seen: None,
        reads_fail: true,
    };
    assert_eq!(
        plan(&view, at(0), &BOUNDS),
        only!(remove: vec![viewer("a")], observe_at: Some(at(-8)))
    );
}
