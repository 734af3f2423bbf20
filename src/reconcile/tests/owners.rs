//! Owners go one at a time: on whom a removal may count, and from when.

use std::collections::BTreeMap;

use super::world::{Fault, Lands};
use super::*;
use crate::domain::event::CallEvidence;
use crate::domain::member::WriteKind;
use crate::domain::observation::{Incomplete, MembersRead, ObservedMember};
use crate::ports::ownership::Standing;
use crate::ports::provider::Outcome;
use crate::reconcile::owners::{OwnerWrites, Quorum, without_role};
use crate::reconcile::pass::Progress;
use crate::reconcile::plan::Snapshot;

fn owner() -> Assignment {
    on("organization-admin", "")
}

fn users(names: &[&str]) -> BTreeSet<UserId> {
    names.iter().map(|name| user(name)).collect()
}

/// A pass for an owner whose read began then and showed one more.
fn one_more(started_at: Timestamp) -> Progress {
    Progress {
        snapshot: Some(Snapshot {
            started_at,
            complete: true,
            shown: true,
            assignments: BTreeSet::from([owner()]),
            owners: 2,
        }),
        ..Progress::default()
    }
}

fn judged(bench: &Bench, owners: &mut OwnerWrites) -> Quorum {
    let now = bench.now();
    let (progress, ada) = (one_more(now), user("ada"));
    let judged = bench.reconciler.quorum(owners, &ada, &progress, now);
    ready(judged).expect("readable")
}

#[test]
fn who_may_still_go_does_not_count_and_a_read_counts_from_when_it_shows_who_went() {
    let bench = Bench::new();
    let now = bench.now();
    // When a read shows the removal of the other one, and until when it may land.
    for (shows, lands, expected) in [
        (1, 60, Quorum::Recount(now + seconds(1))),
        (0, 60, Quorum::Last),
        (-1, 1, Quorum::Last),
        (-1, 0, Quorum::Kept),
        (-1, -1, Quorum::Kept),
    ] {
        let mut owners = OwnerWrites::default();
        let lost = Outcome::Unknown(CallEvidence::default());
        let (shows, lands) = (now + seconds(shows), now + seconds(lands));
        owners.sent(&user("bob"), &lost, shows, lands);
        assert_eq!(judged(&bench, &mut owners), expected, "{shows} {lands}");
    }
}

#[test]
fn a_read_is_asked_for_the_others_who_may_still_lose_ownership() {
    let mut bench = Bench::new();
    bench.grant("ada", &[owner()], HOUR);
    bench.grant("bob", &[viewer("a")], HOUR);
    bench.run(10);
    let now = bench.now();
    for (name, lands) in [
        ("ada", 60),
        ("bob", 60),
        ("cleo", 1),
        ("dan", 0),
        ("eve", -1),
    ] {
        let mut owners = ready(bench.reconciler.owner_writes.lock());
        let lost = Outcome::Unknown(CallEvidence::default());
        owners.sent(&user(name), &lost, now, now + seconds(lands));
    }
    let asked = |name: &str| {
        let record = bench.record(name);
        let user = user(name);
        ready(bench.reconciler.owners_in_doubt(&record, &user, now))
    };
    assert_eq!(asked("ada"), users(&["bob", "cleo"]));
    assert_eq!(asked("bob"), users(&[]), "no owner through us");
}

#[test]
fn what_another_process_left_in_the_ledger_counts_where_it_concerns_owners() {
    use WriteKind::{Add, Remove};
    // The row, what was last sent for it, and until when an earlier removal may land.
    for (row, kind, lands, expected) in [
        (owner(), Add, None, "kept"),
        (owner(), Remove, None, "recount"),
        (viewer("a"), Remove, None, "kept"),
        (owner(), Add, Some(60), "last"),
        (owner(), Add, Some(-1), "kept"),
        (viewer("a"), Add, Some(60), "kept"),
    ] {
        let mut bench = Bench::new();
        bench.grant("bob", &[owner(), viewer("a")], HOUR);
        bench.run(30);
        let now = bench.now();
        let mut record = bench.record("bob");
        let changed = record.owned_mut(&row).expect("owned");
        changed.last_write.kind = kind;
        changed.last_write.at = now;
        changed.removal_echo_until = lands.map(|lands| now + seconds(lands));
        let (audit, request) = (Vec::new(), None);
        let commit = MemberCommit {
            record,
            audit,
            request,
        };
        ready(bench.memory.commit(commit)).expect("nobody in between");
        let found = match judged(&bench, &mut OwnerWrites::default()) {
            Quorum::Kept => "kept",
            Quorum::Recount(from) => {
                assert_eq!(from, now + bench.settings.bounds.read_staleness);
                "recount"
            }
            Quorum::Last => "last",
        };
        assert_eq!(found, expected, "{row} {kind:?} {lands:?}");
    }
}

#[test]
fn only_a_complete_read_tells_who_is_no_owner_any_more() {
    let bench = Bench::new();
    let now = bench.now();
    let shown = |name: &str, held: &[Assignment]| {
        let member = ObservedMember {
            user_id: user(name),
            member_since: now,
            email: None,
            name: String::new(),
            assignments: held.iter().cloned().collect(),
        };
        (user(name), member)
    };
    for (incomplete, expected) in [
        (None, users(&["bob", "cleo"])),
        (Some(Incomplete::KeyIsNotOwner), users(&[])),
    ] {
        let read = MembersRead {
            started_at: now,
            finished_at: now,
            incomplete,
            members: BTreeMap::from([shown("ada", &[owner()]), shown("bob", &[viewer("a")])]),
            total: 2,
            owners: 1,
            recognized: Vec::new(),
        };
        let without = without_role(users(&["ada", "bob", "cleo"]), &read);
        assert_eq!(without, expected, "{incomplete:?}");
    }
}

#[test]
fn two_owners_whose_access_ends_on_a_full_disk_do_not_both_go() {
    for (under_claim, is_lost) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("claim {under_claim}, answer lost {is_lost}");
        let mut bench = Bench::new();
        if under_claim {
            let fresh = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
            bench.reconciler = fresh.under(Arc::new(Standing::sole()));
        }
        bench.grant("ada", &[owner()], 60);
        bench.grant("bob", &[owner()], 60);
        bench.run(30);
        bench.takes("boss", &owner());
        bench.clock.advance(seconds(60));
        bench.ledger.read_only.store(true, Ordering::SeqCst);
        bench.world.change(|world| {
            if is_lost {
                let late = Fault::Unknown(Lands::After(seconds(100)));
                world.removes.push_back(Some(late));
            } else {
                // A read that begins right after a removal still shows what was before it.
                world.lag = seconds(1);
            }
        });
        let [ada, bob] = ["ada", "bob"].map(|name| bench.record(name).key);
        bench.pass(&ada);
        assert_eq!(bench.removals(), 1, "{what}");
        if is_lost {
            // Late enough for a read to count, which cannot show what is yet to land.
            bench.clock.advance(seconds(3));
        }
        bench.pass(&bob);
        assert_eq!(bench.removals(), 1, "{what}: nobody would be left");
    }
}
