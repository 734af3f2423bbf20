//! People who are invited first: one invitation per address, and the clock starts when they have access.

use super::world::{Fault, Lands};
use super::*;
use crate::ports::provider::Refusal;

const EVE: &str = "eve@example.com";

fn invites(bench: &Bench) -> usize {
    bench.count(|call| *call == Call::Invite)
}

fn open(bench: &Bench) -> usize {
    bench.world.look().invitations.len()
}

fn quiet(bench: &Bench) {
    let subject = Subject::Invitee(Email::parse(EVE).expect("well formed"));
    let record = ready(bench.memory.member(&bench.key_of(&subject))).expect("readable");
    assert!(record.is_quiet(), "{record:?}");
    assert_eq!(record.due, None);
}

#[test]
fn the_clock_of_somebody_invited_starts_when_they_joined() {
    let mut bench = Bench::new();
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(HOUR);
    assert_eq!(bench.state(id), "awaiting_member");
    assert_eq!(invites(&bench), 1);
    bench.joins("eve");
    bench.run(60);
    assert!(bench.is_active(id));
    assert!(bench.get(id).invited);
    assert!(bench.expires_at(id) > bench.now() + seconds(500));
    bench.run(2 * HOUR);
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.assert_clean(&["eve"]);
    quiet(&bench);
}

#[test]
fn somebody_who_never_joins_lapses_and_the_invitation_is_cancelled() {
    let mut bench = Bench::new();
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(71 * HOUR);
    assert_eq!(open(&bench), 1);
    bench.run(2 * HOUR);
    assert_eq!(bench.cause(id), EndCause::Lapsed);
    assert_eq!(open(&bench), 0);
    quiet(&bench);
}

#[test]
fn withdrawing_the_last_waiting_grant_cancels_the_invitation() {
    let mut bench = Bench::new();
    let first = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(60);
    let second = bench.ask(&Ask::invited(EVE, &[viewer("b")], 600));
    bench.run(60);
    assert_eq!(invites(&bench), 1, "grants share one invitation");
    assert!(bench.get(first).invited && bench.get(second).invited);
    bench.revoke(first);
    bench.run(60);
    assert_eq!(open(&bench), 1, "the second still waits");
    bench.revoke(second);
    bench.run(60);
    assert_eq!(open(&bench), 0);
    quiet(&bench);
}

#[test]
fn an_administrators_own_invitation_is_adopted_and_never_cancelled() {
    let mut bench = Bench::new();
    let now = bench.now();
    bench.world.change(|world| {
        let email = Email::parse(EVE).expect("well formed");
        let invitation = world.invitation(&email, now);
        world.invitations.push(invitation);
    });
    bench.run(300);
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(60);
    assert_eq!(invites(&bench), 0);
    assert!(!bench.get(id).invited);
    bench.revoke(id);
    bench.run(HOUR);
    assert_eq!(open(&bench), 1);
    assert_eq!(bench.count(|call| *call == Call::CancelInvitation), 0);
    quiet(&bench);
}

#[test]
fn an_unanswered_invitation_is_found_and_cancelled_as_ours() {
    for lands in [Lands::Now, Lands::After(seconds(20)), Lands::Never] {
        let mut bench = Bench::new();
        bench
            .world
            .change(|world| world.invites.push_back(Some(Fault::Unknown(lands))));
        let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
        bench.run(HOUR);
        assert_eq!(bench.state(id), "awaiting_member");
        assert!(open(&bench) >= 1, "{lands:?}");
        bench.revoke(id);
        bench.run(HOUR);
        assert_eq!(open(&bench), 0, "{lands:?}");
        quiet(&bench);
    }
}

#[test]
fn an_invitation_that_lands_after_everybody_gave_up_is_cancelled() {
    let mut bench = Bench::new();
    let late = Fault::Unknown(Lands::After(seconds(120)));
    bench.world.change(|world| {
        world.invites.push_back(Some(late));
    });
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(1);
    bench.revoke(id);
    bench.run(HOUR);
    assert_eq!(bench.world.look().invitations.len(), 0);
    quiet(&bench);
}

#[test]
fn somebody_invited_again_after_leaving_gets_their_new_grants() {
    let mut bench = Bench::new();
    bench.joins("eve");
    let first = bench.grant("eve", &[viewer("a")], HOUR);
    bench.run(5);
    bench.leaves("eve");
    while bench.state(first) != "ended" {
        bench.run(1);
    }
    let second = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(60);
    bench.joins("eve");
    bench.run(60);
    assert!(bench.is_active(second), "{:?}", bench.get(second).state);
    bench.run(2 * HOUR);
    bench.assert_clean(&["eve"]);
    quiet(&bench);
}

#[test]
fn a_crash_anywhere_while_inviting_leaves_one_invitation() {
    for point in 0..20 {
        let mut bench = Bench::new();
        bench.world.crash.after(point);
        let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
        bench.run(300);
        assert_eq!(open(&bench), 1, "crash at point {point}");
        bench.world.crash.after(point);
        bench.joins("eve");
        bench.run(300);
        assert!(bench.is_active(id), "crash at point {point}");
        bench.world.crash.never();
        bench.run(HOUR);
        bench.assert_clean(&["eve"]);
    }
}

#[test]
fn every_invitation_of_ours_is_cancelled_however_late_it_landed() {
    let mut bench = Bench::new();
    let late = Fault::Unknown(Lands::After(seconds(400)));
    bench.world.change(|world| {
        world.invites.push_back(Some(late.clone()));
        world.invites.push_back(Some(late));
    });
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(60);
    assert_eq!(open(&bench), 1, "the third was answered");
    bench.revoke(id);
    bench.run(60);
    assert_eq!(open(&bench), 0);
    bench.run(2 * HOUR);
    assert_eq!(open(&bench), 0, "those that landed later are cancelled too");
    quiet(&bench);
}

#[test]
fn an_invitation_of_an_administrator_that_came_after_ours_was_used_is_not_cancelled() {
    let mut bench = Bench::new();
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(120);
    // Ours was accepted, she left again before anybody looked, and somebody else invites her.
    let now = bench.now();
    bench.world.change(|world| {
        let email = Email::parse(EVE).expect("well formed");
        world.invitations.clear();
        let invitation = world.invitation(&email, now);
        world.invitations.push(invitation);
    });
    bench.run(5);
    bench.revoke(id);
    bench.run(HOUR);
    assert_eq!(open(&bench), 1);
    quiet(&bench);
}

#[test]
fn an_unanswered_invitation_that_appears_after_the_person_joined_and_left_is_cancelled() {
    let mut bench = Bench::new();
    let late = Fault::Unknown(Lands::After(seconds(300)));
    bench
        .world
        .change(|world| world.invites.push_back(Some(late)));
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 60));
    bench.run(60);
    bench.world.change(|world| world.invitations.clear());
    bench.joins("eve");
    bench.run(120);
    assert_eq!(bench.cause(id), EndCause::Expired);
    bench.leaves("eve");
    bench.run(HOUR);
    assert_eq!(open(&bench), 0);
    quiet(&bench);
}

#[test]
fn a_crash_after_the_last_grant_of_an_invitee_ended_leaves_nothing_due() {
    for point in 0..8 {
        let mut bench = Bench::new();
        let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
        bench.revoke(id);
        bench.world.crash.after(point);
        bench.run(60);
        bench.world.crash.never();
        bench.run(HOUR);
        quiet(&bench);
    }
}

#[test]
fn nobody_is_invited_for_a_grant_that_was_withdrawn_before() {
    let mut bench = Bench::new();
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.revoke(id);
    bench.run(HOUR);
    assert_eq!(bench.state(id), "ended");
    assert_eq!(invites(&bench), 0);
    quiet(&bench);
}

#[test]
fn an_invitation_that_is_refused_ends_the_grant_only_where_trying_again_is_hopeless() {
    let invalid = |code: &str| Refusal::Invalid {
        code: code.to_owned(),
    };
    for (refusal, state) in [
        (invalid("organization.membership_limit"), "ended"),
        (
            invalid("organization.invitation_already_exists"),
            "awaiting_member",
        ),
        (
            invalid("organization.user_already_belongs"),
            "awaiting_member",
        ),
        (Refusal::Throttled { retry_after: None }, "awaiting_member"),
    ] {
        let mut bench = Bench::new();
        let what = format!("{refusal:?}");
        bench
            .world
            .change(|world| world.invites.push_back(Some(Fault::Refuse(refusal))));
        let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
        bench.run(1);
        assert_eq!(bench.state(id), state, "{what}");
        bench.run(HOUR);
        bench.joins("eve");
        bench.run(60);
        let is_given = bench.is_active(id);
        assert_eq!(is_given, state != "ended", "{what}");
    }
}

#[test]
fn an_invitation_that_expires_while_somebody_still_waits_is_sent_anew() {
    let mut bench = Bench::new();
    bench.settings.member_poll = TimeDelta::hours(1);
    bench.restart();
    let first = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(48 * HOUR);
    let second = bench.ask(&Ask::invited(EVE, &[viewer("b")], 600));
    bench.run(23 * HOUR);
    assert_eq!(invites(&bench), 1);
    // What has expired is not listed any more.
    bench.world.change(|world| world.invitations.clear());
    bench.run(4 * HOUR);
    assert_eq!(bench.cause(first), EndCause::Lapsed);
    assert_eq!((invites(&bench), open(&bench)), (2, 1));
    bench.joins("eve");
    bench.run(2 * HOUR);
    assert_eq!(bench.cause(second), EndCause::Expired);
}

#[test]
fn an_invitation_of_somebody_else_is_not_taken_for_the_one_that_is_needed() {
    let mut bench = Bench::new();
    let now = bench.now();
    bench.world.change(|world| {
        let email = Email::parse("mallory@example.com").expect("well formed");
        let invitation = world.invitation(&email, now);
        world.invitations.push(invitation);
    });
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(60);
    assert_eq!(invites(&bench), 1);
    assert!(bench.get(id).invited);
    bench.revoke(id);
    bench.run(HOUR);
    assert_eq!(open(&bench), 1, "only ours is cancelled");
    quiet(&bench);
}

#[test]
fn somebody_invited_who_is_a_member_already_has_not_left() {
    let mut bench = Bench::new();
    bench.joins("eve");
    let first = bench.grant("eve", &[viewer("a")], HOUR);
    bench.run(5);
    let second = bench.ask(&Ask::invited(EVE, &[viewer("b")], HOUR));
    bench.run(60);
    assert!(bench.is_active(first) && bench.is_active(second));
    assert_eq!(invites(&bench), 0);
    let left = |event: &EventKind| matches!(event, EventKind::MemberLeft { .. });
    assert!(!bench.events().iter().any(left));
    quiet(&bench);
}

#[test]
fn an_administrators_invitation_in_place_of_ours_that_expired_is_never_cancelled() {
    let mut bench = Bench::new();
    bench.settings.member_poll = TimeDelta::hours(1);
    bench.restart();
    bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.run(48 * HOUR);
    let second = bench.ask(&Ask::invited(EVE, &[viewer("b")], 600));
    bench.run(23 * HOUR);
    let now = bench.now();
    bench.world.change(|world| {
        let email = Email::parse(EVE).expect("well formed");
        world.invitations.clear();
        let invitation = world.invitation(&email, now);
        world.invitations.push(invitation);
    });
    bench.run(4 * HOUR);
    assert_eq!(invites(&bench), 1);
    assert!(!bench.get(second).invited);
    bench.revoke(second);
    bench.run(2 * HOUR);
    assert_eq!(open(&bench), 1);
    quiet(&bench);
}

#[test]
fn nobody_is_invited_for_a_grant_that_lapsed_before_anybody_looked() {
    let mut bench = Bench::new();
    let id = bench.ask(&Ask::invited(EVE, &[viewer("a")], 600));
    bench.clock.advance(TimeDelta::hours(73));
    bench.run(60);
    assert_eq!(bench.cause(id), EndCause::Lapsed);
    assert_eq!(invites(&bench), 0);
    quiet(&bench);
}
