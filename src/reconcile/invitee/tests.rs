//! Whose an invitation is, and until when one that was not answered may still land.

use super::*;
use crate::reconcile::Settings;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn token() -> InvitationToken {
    InvitationToken::parse("t1").expect("well formed")
}

/// One that was meant to be sent at the instant of the tests.
fn sent(token: Option<InvitationToken>, echo: Option<i64>) -> Invitation {
    Invitation {
        token,
        intended_at: at(0),
        expires_at: Some(at(1_000)),
        ours: true,
        outcome: WriteOutcome::Done,
        echo_until: echo.map(at),
    }
}

#[test]
fn an_invitation_is_ours_if_we_sent_one_and_it_is_no_older_than_a_minute_before_that() {
    for (created, we_sent, ours) in [
        (10, true, true),
        (-60, true, true),
        (-61, true, false),
        (10, false, false),
        (-61, false, false),
    ] {
        let open = ObservedInvitation {
            token: token(),
            email: Email::parse("eve@example.com").expect("well formed"),
            created_at: at(created),
            expires_at: at(1_000),
            expired: false,
        };
        let mut known = sent(None, None);
        known.ours = we_sent;
        assert_eq!(is_ours(&open, &known), ours, "{created} {we_sent}");
    }
}

#[test]
fn what_was_not_answered_may_land_until_its_echo_or_else_for_as_long_as_any_call() {
    let settings = Settings::default();
    assert_eq!(may_land_until(&sent(None, Some(5)), &settings), at(5));
    assert_eq!(may_land_until(&sent(None, None), &settings), at(600));
}

#[test]
fn of_an_invitation_stays_what_may_still_land_and_nothing_else() {
    let settings = Settings::default();
    let left = |known: Invitation, now: i64| unanswered(known, at(now), &settings);
    assert_eq!(left(sent(Some(token()), None), 1), None, "all is answered");
    for (known, until) in [
        (sent(None, None), 600),
        (sent(None, Some(50)), 50),
        (sent(Some(token()), Some(50)), 50),
    ] {
        let kept = left(known.clone(), until - 1).expect("it may still land");
        assert_eq!(kept.token, None);
        assert_eq!(kept.outcome, WriteOutcome::Unknown);
        assert_eq!(kept.expires_at, None);
        assert_eq!(kept.echo_until, Some(at(until)), "and until when is known");
        assert_eq!((kept.ours, kept.intended_at), (true, at(0)));
        assert_eq!(left(known, until), None, "over by then");
    }
}
