//! A search for drift that loads only whom it must, and misses nobody for it.

use std::collections::BTreeMap;

use super::*;
use crate::domain::observation::{MembersRead, ObservedMember};
use crate::domain::sight::Settled;
use crate::ports::ledger::Sighted;
use crate::reconcile::sweep::Swept;

/// What is wrong where a member passes for settled and a read that shows the same would have something to say.
pub(super) fn misjudged(bench: &Bench, name: &str) -> Option<String> {
    let record = bench.record(name);
    let settled = Settled::of(&record)?;
    let now = bench.now();
    if settled.until <= now {
        return None;
    }
    let seen = record.last_seen.clone().expect("settled by a read");
    let member = ObservedMember {
        user_id: user(name),
        member_since: record.member_since.expect("known since then"),
        email: None,
        name: String::new(),
        assignments: seen.assignments,
    };
    for is_complete in [true, false] {
        let read = MembersRead {
            started_at: now,
            finished_at: now,
            incomplete: (!is_complete)
                .then_some(crate::domain::observation::Incomplete::KeyIsNotOwner),
            members: BTreeMap::from([(user(name), member.clone())]),
            total: 1,
            owners: 1,
            recognized: Vec::new(),
        };
        if bench.reconciler.differs(&record, &read) {
            return Some(format!(
                "{name} passes for settled and differs: {record:#?}"
            ));
        }
    }
    None
}

fn sweep(bench: &Bench) -> Swept {
    ready(bench.reconciler.sweep()).expect("readable")
}

#[test]
fn who_looks_as_when_nothing_was_left_to_find_out_is_compared_without_being_loaded() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    for name in ["ada", "bob"] {
        bench.grant(name, &[viewer("a")], HOUR);
    }
    assert_eq!(sweep(&bench).loaded, 2, "they wait for their first read");
    bench.run(300);
    let calm = Swept {
        compared: 2,
        ..Swept::default()
    };
    assert_eq!(sweep(&bench), calm);
    bench.takes("ada", &viewer("a"));
    let found = Swept {
        loaded: 1,
        differing: 1,
        ..calm
    };
    assert_eq!(sweep(&bench), found);
    bench.run(60);
    assert!(bench.record("ada").grants.is_empty(), "the grant has ended");
}

#[test]
fn standing_access_that_changes_is_looked_at_and_nothing_follows() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    bench.gives("ada", &editor("b"));
    let swept = sweep(&bench);
    assert_eq!((swept.compared, swept.loaded, swept.differing), (1, 1, 0));
    bench.run(HOUR);
    assert!(bench.holds("ada", &editor("b")));
}

#[test]
fn a_neighbour_that_comes_is_handed_to_a_pass_that_remembers_it() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    bench.gives("ada", &viewer("b"));
    assert_eq!(sweep(&bench).differing, 1);
    bench.run(HOUR);
    assert!(bench.holds("ada", &viewer("b")));
    assert!(!bench.holds("ada", &viewer("a")));
}

#[test]
fn who_is_not_shown_any_more_is_handed_to_a_pass() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    assert_eq!(sweep(&bench).loaded, 0);
    bench.leaves("ada");
    assert_eq!(sweep(&bench).differing, 1);
    bench.run(60);
    assert_eq!(bench.state(id), "ended");
}

#[test]
fn a_sight_ends_with_the_first_grant_and_with_the_next_that_is_asked_for() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.grant("ada", &[viewer("b")], 2 * HOUR);
    bench.run(300);
    let listed = |bench: &Bench| {
        let page = ready(bench.memory.sights(&main_integration(), None, 10)).expect("readable");
        page.items
    };
    let first = bench
        .record("ada")
        .grants
        .iter()
        .filter_map(Grant::ends_at)
        .min();
    let settled = Settled::of(&bench.record("ada")).expect("settled");
    assert_eq!(Some(settled.until), first);
    let one = |settled| Sighted {
        user: user("ada"),
        settled,
    };
    assert_eq!(listed(&bench), [one(Some(settled))]);
    bench.ask(&Ask::new("ada", &[editor("a")], HOUR));
    assert_eq!(listed(&bench), [one(None)]);
}

#[test]
fn nobody_passes_for_settled_of_whom_anything_is_open() {
    use crate::domain::drift::{DriftAction, DriftKind, OpenDrift, Watched};
    use crate::domain::member::{Backoff, Blocked, Phase, Survivor, WriteKind};
    type Spoil = fn(&mut MemberRecord, Timestamp);
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    let settled = bench.record("ada");
    assert!(Settled::of(&settled).is_some());
    let open: [(&str, Spoil); 20] = [
        ("unknown", |record, _| record.member_since = None),
        ("never seen", |record, _| record.last_seen = None),
        ("absent", |record, now| record.absent_since = Some(now)),
        ("waits", |record, now| {
            record.backoff = Some(Backoff {
                failures: 1,
                until: now,
                code: "timeout".to_owned(),
            });
        }),
        ("to be checked", |record, now| record.check_at = Some(now)),
        ("tried alone", |record, _| record.isolate_adds = true),
        ("drifted", |record, now| {
            record.drifts.push(OpenDrift {
                kind: DriftKind::Missing,
                assignment: viewer("b"),
                first_seen: now,
                last_seen: now,
                action: DriftAction::LeftAlone,
            });
        }),
        ("watched", |record, now| {
            record.watched.push(Watched {
                assignment: viewer("b"),
                gone_at: now,
                until: now,
            });
        }),
        ("not ours", |record, _| {
            record.owned[0].assignment = viewer("b")
        }),
        ("going", |record, now| {
            record.owned[0].phase = Phase::Closing {
                gone_at: now,
                look_at: now,
            };
        }),
        ("not seen", |record, _| record.owned[0].seen = false),
        ("removed", |record, _| {
            record.owned[0].last_write.kind = WriteKind::Remove;
        }),
        ("in doubt", |record, now| {
            record.owned[0].echo_until = Some(now)
        }),
        ("removal in doubt", |record, now| {
            record.owned[0].removal_echo_until = Some(now);
        }),
        ("has a survivor", |record, _| {
            record.owned[0].must_survive.push(Survivor {
                assignment: viewer("b"),
                restored_at: None,
                restores: 0,
            });
        }),
        ("refused", |record, now| {
            record.owned[0].blocked = Some(Blocked {
                code: "last_owner".to_owned(),
                since: now,
                retry_at: now,
                refusals: 1,
            });
        }),
        ("removed alone", |record, _| record.owned[0].isolate = true),
        ("not shown", |record, _| {
            if let Some(seen) = &mut record.last_seen {
                seen.assignments.clear();
            }
        }),
        ("ending", |record, now| {
            record.grants[0].state = GrantState::Revoking {
                since: now,
                cause: EndCause::Expired,
            };
        }),
        ("nothing given", |record, _| record.grants.clear()),
    ];
    for (what, spoil) in open {
        let mut record = settled.clone();
        spoil(&mut record, bench.now());
        assert_eq!(Settled::of(&record), None, "{what}");
    }
}
