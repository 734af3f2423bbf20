//! How long what was sent without a record waits, and how much of it is kept.

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::ids::IntegrationName;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn key() -> MemberKey {
    MemberKey {
        integration: IntegrationName::parse("main").expect("well formed"),
        subject: Subject::Member(ada()),
    }
}

fn ada() -> UserId {
    UserId::parse("ada").expect("well formed")
}

fn owner() -> Assignment {
    Assignment {
        role: OWNER_ROLE.to_owned(),
        target: Target::Organization,
        application_roles: ApplicationRoles::Mapped,
    }
}

#[test]
fn a_removal_is_repeated_when_its_pause_is_over_which_grows_with_every_failure() {
    // Times it was sent, whether it was answered "done", and how long it waits then.
    for (times, done, pause) in [
        (1, false, 1),
        (2, false, 2),
        (3, false, 4),
        (30, false, 60),
        (1, true, 600),
        (5, true, 600),
    ] {
        let unrecorded = Unrecorded::default();
        assert!(!unrecorded.waits(&key(), &owner(), at(0)), "never sent");
        for _ in 0..times {
            unrecorded.sent(&key(), &[owner()], done, at(0));
        }
        let waits = |now: Timestamp| unrecorded.waits(&key(), &owner(), now);
        let end = at(pause);
        assert!(waits(end - TimeDelta::milliseconds(1)), "{times} {done}");
        assert!(!waits(end), "{times} {done}");
    }
}

#[test]
fn a_removal_may_land_until_its_bound_and_not_at_it() {
    for (now, left) in [(9, true), (10, false)] {
        let unrecorded = Unrecorded::default();
        unrecorded.doubt(&key(), &[owner()], at(10));
        let owners = unrecorded.owners_that_may_land(at(now), at(now + 600));
        assert_eq!(owners.get(&ada()), left.then_some(&at(10)));
        let rows = unrecorded.may_land(&key(), at(now), at(now + 600));
        assert_eq!(rows.get(&owner()), left.then_some(&at(10)));
    }
}

#[test]
fn so_many_events_are_kept_and_those_beyond_are_counted() {
    let event = |n: usize| {
        let assignment = n.to_string();
        AuditEvent::member(at(0), &key(), EventKind::SecondLook { assignment })
    };
    let unrecorded = Unrecorded::default();
    unrecorded.keep((0..KEPT + 3).map(event));
    let state = unrecorded.lock();
    assert_eq!((state.events.len(), state.dropped), (KEPT, 3));
    assert_eq!(state.events.front(), Some(&event(0)), "the first ones");
}
