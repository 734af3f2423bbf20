//! Places, leads and the pulse of the loop.

mod turning;

use super::*;

#[test]
fn a_few_removals_lead_and_nothing_else_does() {
    let due = |kind, weight| Due {
        at: Timestamp::from_timestamp(1_800_000_000, 0).expect("in range"),
        kind,
        weight,
    };
    let mut lanes = Lanes::default();
    for kind in [DueKind::Grant, DueKind::Verify, DueKind::Look] {
        assert!(!lanes.leads(&due(kind, 200)), "{kind:?}");
    }
    for _ in 0..FIRST {
        assert!(lanes.leads(&due(DueKind::Remove, 20)));
        lanes.begin(&due(DueKind::Remove, 20));
    }
    let heavier = due(DueKind::Remove, 200);
    assert!(!lanes.leads(&heavier), "not even by weight");
    assert!(lanes.admits(&heavier, &Limits::default()), "later it goes");
}

#[test]
fn a_ledger_is_asked_again_once_anything_was_written_and_well_before_the_horizon() {
    let now = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
    let horizon = TimeDelta::seconds(30);
    let answered = Answered(Some((7, now + horizon)));
    let later = |seconds| now + TimeDelta::seconds(seconds);
    assert!(answered.stands(Some(7), later(15), horizon));
    assert!(!answered.stands(Some(7), later(16), horizon));
    assert!(!answered.stands(Some(8), later(1), horizon));
    assert!(
        !answered.stands(None, later(1), horizon),
        "others may write"
    );
    assert!(!Answered::default().stands(Some(7), now, horizon));
}

const KINDS: [DueKind; 4] = [
    DueKind::Remove,
    DueKind::Verify,
    DueKind::Grant,
    DueKind::Look,
];

fn due_of(kind: DueKind, weight: u32) -> Due {
    Due {
        at: Timestamp::from_timestamp(1_800_000_000, 0).expect("in range"),
        kind,
        weight,
    }
}

#[test]
fn each_kind_has_places_of_its_own_and_gives_back_what_it_took() {
    let limits = Limits {
        changing: 3,
        reading: 5,
        ..Limits::default()
    };
    for kind in KINDS {
        let (others, places) = match kind {
            DueKind::Remove => (vec![DueKind::Grant, DueKind::Look], 3),
            DueKind::Grant => (vec![DueKind::Remove, DueKind::Look], 3),
            DueKind::Verify | DueKind::Look => (vec![DueKind::Remove, DueKind::Grant], 5),
        };
        let mut lanes = Lanes::default();
        for _ in 0..places {
            assert!(lanes.admits(&due_of(kind, 20), &limits), "{kind:?}");
            lanes.begin(&due_of(kind, 20));
        }
        assert!(!lanes.admits(&due_of(kind, 20), &limits), "{kind:?}");
        for other in others {
            assert!(
                lanes.admits(&due_of(other, 20), &limits),
                "{kind:?} takes {other:?}"
            );
        }
        lanes.end(&due_of(kind, 20));
        assert!(lanes.admits(&due_of(kind, 20), &limits), "{kind:?}");
        for _ in 1..places {
            lanes.end(&due_of(kind, 20));
        }
        assert_eq!((lanes.removals, lanes.granting, lanes.reading), (0, 0, 0));
        assert!(lanes.removing.is_empty());
    }
}

#[test]
fn a_heavier_removal_gets_another_place_up_to_as_many_again() {
    let limits = Limits {
        changing: 3,
        ..Limits::default()
    };
    let mut lanes = Lanes::default();
    lanes.begin(&due_of(DueKind::Remove, 20));
    lanes.begin(&due_of(DueKind::Remove, 80));
    lanes.begin(&due_of(DueKind::Remove, 80));
    assert!(!lanes.admits(&due_of(DueKind::Remove, 20), &limits));
    assert!(lanes.admits(&due_of(DueKind::Remove, 21), &limits));
    lanes.end(&due_of(DueKind::Remove, 20));
    lanes.begin(&due_of(DueKind::Remove, 80));
    assert!(
        !lanes.admits(&due_of(DueKind::Remove, 80), &limits),
        "the lightest of those"
    );
    for _ in 0..3 {
        assert!(lanes.admits(&due_of(DueKind::Remove, 200), &limits));
        lanes.begin(&due_of(DueKind::Remove, 200));
    }
    assert!(
        !lanes.admits(&due_of(DueKind::Remove, 201), &limits),
        "twice as many at most"
    );
}

#[test]
fn a_pulse_tells_when_it_turned_and_how_long_the_oldest_waits() {
    let clock = crate::runtime::clock::ManualClock::default();
    let pulse = Pulse::default();
    assert_eq!((pulse.turned_at_ms(), pulse.oldest_due_ms()), (0, 0));
    clock.advance(TimeDelta::milliseconds(7));
    pulse.beat(&clock, Some(clock.now() - TimeDelta::milliseconds(1_250)));
    let boot = i64::try_from(clock.since_boot().as_millis()).expect("in range");
    assert_eq!((pulse.turned_at_ms(), pulse.oldest_due_ms()), (boot, 1_250));
    pulse.beat(&clock, Some(clock.now() + TimeDelta::seconds(1)));
    assert_eq!(pulse.oldest_due_ms(), 0, "not due yet");
    pulse.beat(&clock, None);
    assert_eq!(pulse.oldest_due_ms(), 0);
    pulse.retire();
    assert_eq!(pulse.turned_at_ms(), 0);
}
