//! What may be acted on without the ledger, and for how long: the bounds of it, one by one.

use std::time::Duration;

use super::outage::Replica;
use super::*;
use crate::reconcile::outage::{Reading, may_go};

/// A member whose access ended just now, as whoever knows the record sees it, and a reading under a claim of five seconds.
fn ended(replica: &mut Replica, wants: &[Assignment], late: i64) -> (MemberRecord, Reading) {
    let id = replica.bench.grant("ada", wants, 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(1));
    let before = replica.bench.record("ada");
    replica.bench.clock.advance(seconds(1 + late));
    replica.owns(5);
    let now = replica.bench.now();
    let mut draft = Draft::new(before);
    draft.advance(now, &replica.bench.settings);
    let reading = replica
        .outage
        .begin_read(now, replica.bench.clock.since_boot())
        .expect("owned");
    (draft.record, reading)
}

#[test]
fn what_could_be_overdue_by_a_minute_while_the_claim_stands_is_left_to_the_ledger() {
    // Five seconds of the claim, and five by which clocks of replicas may differ.
    for (late, goes) in [(0, true), (49, true), (50, false), (51, false)] {
        let mut replica = Replica::new();
        let (record, reading) = ended(&mut replica, &[viewer("a")], late);
        let now = replica.bench.now();
        assert_eq!(
            may_go(&record, &viewer("a"), &reading, now),
            goes,
            "{late} s late"
        );
    }
}

#[test]
fn only_what_is_due_ours_and_unhindered_goes() {
    let mut replica = Replica::new();
    let owner = on("organization-admin", "");
    let (record, reading) = ended(&mut replica, &[viewer("a"), owner.clone()], 0);
    let now = replica.bench.now();
    let goes = |record: &MemberRecord, assignment: &Assignment, at: Timestamp| {
        may_go(record, assignment, &reading, at)
    };
    assert!(goes(&record, &viewer("a"), now));
    assert!(
        !goes(&record, &viewer("a"), now - seconds(1)),
        "before its end"
    );
    assert!(!goes(&record, &viewer("b"), now), "not ours");
    assert!(
        !goes(&record, &owner, now),
        "counting owners needs the ledger"
    );
    let mut blocked = record.clone();
    blocked.owned[0].blocked = Some(crate::domain::member::Blocked {
        code: String::new(),
        since: now,
        retry_at: now,
        refusals: 1,
    });
    let refused = blocked.owned[0].assignment.clone();
    assert!(!goes(&blocked, &refused, now));
    let mut closing = record.clone();
    for row in &mut closing.owned {
        row.phase = crate::domain::member::Phase::Closing {
            gone_at: now,
            look_at: now,
        };
    }
    assert!(!goes(&closing, &viewer("a"), now), "gone already");
    let mut wanted = record;
    wanted.grants.clear();
    assert!(
        !goes(&wanted, &viewer("a"), now),
        "no grant is on its way out"
    );
}

#[test]
fn an_end_beyond_the_claim_is_not_ours_to_know() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    // A claim of five seconds.
    for (ahead, goes) in [(6, false), (5, true)] {
        replica.bench.run_until(end - seconds(ahead));
        replica.owns(5);
        let boot = replica.bench.clock.since_boot();
        let reading = replica.outage.begin_read(replica.bench.now(), boot);
        let reading = reading.expect("owned");
        let mut draft = Draft::new(replica.bench.record("ada"));
        draft.advance(end, &replica.bench.settings);
        let may = may_go(&draft.record, &viewer("a"), &reading, end);
        assert_eq!(may, goes, "{ahead} s ahead");
    }
}

#[test]
fn the_own_identity_is_not_touched_without_the_ledger_either() {
    for journaled in [true, false] {
        let mut replica = Replica::new();
        if !journaled {
            replica.bench.restart();
        }
        replica.about_to_end(&[viewer("a")]);
        let world = replica.bench.world.clone();
        world.change(|world| world.status.own_user_id = Some(user("ada")));
        replica.bench.clock.advance(seconds(3));
        replica.pass();
        assert_eq!(replica.bench.removals(), 0, "journaled: {journaled}");
    }
}

#[test]
fn what_is_in_the_journal_is_being_removed_for_its_own_member_and_assignment_only() {
    let mut replica = Replica::new();
    replica.about_to_end(&[viewer("a")]);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.notes.answers().len(), 1);
    let ada = replica.ada();
    let bob = replica.bench.key_of(&Subject::Member(user("bob")));
    let outage = replica.outage.clone();
    assert!(outage.is_removing(&ada, &viewer("a")));
    assert!(!outage.is_removing(&ada, &viewer("b")));
    assert!(!outage.is_removing(&bob, &viewer("a")));
    let writing = outage.deciding(&ada, replica.bench.clock.since_boot());
    assert!(writing.is_removing(&viewer("a")) && !writing.is_removing(&viewer("b")));
}

#[test]
fn a_new_owner_doubts_what_fell_due_under_the_claim_before_and_nothing_else() {
    let mut replica = Replica::new();
    replica.bench.grant("bob", &[viewer("b")], HOUR);
    replica.about_to_end(&[viewer("a")]);
    replica.bench.clock.advance(seconds(3));
    replica.away(false);
    replica.another();
    replica.bench.look_at("bob");
    replica.bench.run(1);
    let echo = |name: &str| {
        let record = replica.bench.record(name);
        let row = record.owned.first().expect("owned");
        row.removal_echo_until
    };
    assert_eq!(echo("bob"), None, "it was not due");
    assert!(echo("ada").is_some());
}

#[test]
fn patience_is_short_against_a_claim() {
    use crate::reconcile::without_ledger::patience;
    let ms = Duration::from_millis;
    for (claim, waits) in [
        (1_000, 100),
        (2_000, 100),
        (5_000, 250),
        (10_000, 500),
        (30_000, 500),
    ] {
        assert_eq!(patience(ms(claim)), ms(waits), "{claim} ms");
    }
}
