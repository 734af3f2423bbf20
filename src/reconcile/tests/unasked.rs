//! Acting while the ledger is away, step by step: who may, on what, and what a record learns of it afterwards.

use std::future::pending;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::outage::{Notes, Replica};
use super::world::Fault;
use super::*;
use crate::domain::member::WriteKind;
use crate::ports::journal::{Answer, Removal};
use crate::ports::ledger::NotOwner;
use crate::ports::ownership::{Reach, Standing};
use crate::ports::provider::{KeyPin, Refusal};
use crate::reconcile::Outage;
use crate::reconcile::outage::may_go;
use crate::reconcile::pass::Progress;
use crate::reconcile::plan::Snapshot;

fn away() -> LedgerError {
    LedgerError::Unavailable {
        action: "writing",
        source: "the server is gone".into(),
    }
}

fn not_owner() -> LedgerError {
    LedgerError::Unavailable {
        action: "writing",
        source: Box::new(NotOwner {
            integration: main_integration().to_string(),
            epoch: 1,
        }),
    }
}

fn conflict() -> LedgerError {
    LedgerError::Conflict {
        key: MemberKey {
            integration: main_integration(),
            subject: Subject::Member(user("ada")),
        },
    }
}

/// What the ledger said, whether the claim stands, whether the member is the connector's own, and whether access goes.
type Case = (fn() -> LedgerError, bool, bool, bool);

const CASES: [Case; 5] = [
    (away, true, false, true),
    (conflict, true, false, false),
    (not_owner, true, false, false),
    (away, false, false, false),
    (away, true, true, false),
];

#[test]
fn access_goes_without_a_record_only_where_the_ledger_is_away_and_the_organization_ours() {
    for (error, stands, is_own, goes) in CASES {
        let mut bench = Bench::new();
        let id = bench.grant("ada", &[viewer("a")], HOUR);
        bench.run(30);
        bench.revoke(id);
        let claim = if stands {
            Standing::sole()
        } else {
            Standing::none()
        };
        let fresh = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
        bench.reconciler = fresh.under(Arc::new(claim));
        if is_own {
            let own = Some(user("ada"));
            bench.world.change(|world| world.status.own_user_id = own);
        }
        let record = bench.record("ada");
        let mut progress = Progress::default();
        let ada = user("ada");
        let removed =
            bench
                .reconciler
                .remove_unrecorded(&record, &ada, KeyPin(1), &mut progress, error());
        let what = format!("{:?}, stands {stands}, own {is_own}", error());
        assert_eq!(ready(removed).code(), error().code(), "{what}");
        assert_eq!(!bench.holds("ada", &viewer("a")), goes, "{what}");
        assert_eq!(bench.removals(), usize::from(goes), "{what}");
    }
}

#[test]
fn access_goes_by_the_journal_only_where_the_ledger_is_away_and_the_organization_ours() {
    for (error, stands, is_own, goes) in CASES {
        let mut replica = Replica::new();
        replica.about_to_end(&[viewer("a")]);
        let (ada, boot) = (replica.ada(), replica.bench.clock.since_boot());
        let (record, reading) = replica.outage.remember(&ada, boot).expect("known ahead");
        replica.bench.clock.advance(seconds(2));
        if !stands {
            replica.standing.lose();
        }
        if is_own {
            let own = Some(user("ada"));
            let world = &replica.bench.world;
            world.change(|world| world.status.own_user_id = own);
        }
        let mut draft = Draft::new(record);
        draft.advance(replica.bench.now(), &replica.bench.settings);
        let mut progress = Progress {
            reading: Some(reading),
            ..Progress::default()
        };
        ready(replica.bench.reconciler.remove_journaled(
            &draft.record,
            &user("ada"),
            KeyPin(1),
            &mut progress,
            error(),
        ));
        let what = format!("{:?}, stands {stands}, own {is_own}", error());
        assert_eq!(replica.bench.removals(), usize::from(goes), "{what}");
        assert_eq!(replica.notes.answers().len(), usize::from(goes), "{what}");
    }
}

#[test]
fn nothing_is_read_on_a_full_disk_where_nothing_is_due() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    assert!(bench.is_active(id));
    let (record, reads) = (bench.record("ada"), bench.reads());
    let mut progress = Progress::default();
    ready(bench.reconciler.remove_unrecorded(
        &record,
        &user("ada"),
        KeyPin(1),
        &mut progress,
        away(),
    ));
    assert_eq!((bench.reads(), bench.removals()), (reads, 0));
}

#[test]
fn a_neighbour_counts_until_a_complete_read_shows_it_gone() {
    let mut bench = Bench::new();
    bench.gives("ada", &viewer("b"));
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(30);
    let (record, now) = (bench.record("ada"), bench.now());
    let seen = record.last_seen.as_ref().expect("read");
    assert!(seen.assignments.contains(&viewer("b")));
    for (complete, shown, spares) in [
        (true, vec![viewer("a")], true),
        (true, vec![viewer("a"), viewer("b")], false),
        (false, vec![viewer("a")], false),
    ] {
        let what = format!("complete {complete}, {} shown", shown.len());
        let progress = Progress {
            snapshot: Some(Snapshot {
                started_at: now,
                complete,
                shown: true,
                assignments: shown.into_iter().collect(),
                owners: 1,
            }),
            ..Progress::default()
        };
        let removing = [viewer("a")];
        let found = bench
            .reconciler
            .spares_neighbours(&record, &removing, &progress, now);
        assert_eq!(found, spares, "{what}");
    }
}

#[test]
fn a_removal_without_a_record_lengthens_a_doubt_and_never_shortens_it() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(30);
    let now = bench.now();
    let unrecorded = &bench.reconciler.unrecorded;
    let key = bench.record("ada").key;
    unrecorded.doubt(&key, &[viewer("a")], now + seconds(60));
    for (known, expected) in [(None, 60), (Some(59), 60), (Some(60), 60), (Some(90), 90)] {
        let mut draft = Draft::new(bench.record("ada"));
        let before = known.map(|known| now + seconds(known));
        draft.record.owned[0].removal_echo_until = before;
        bench.reconciler.doubt_unrecorded(&mut draft, now);
        let after = draft.record.owned[0].removal_echo_until;
        assert_eq!(after, Some(now + seconds(expected)), "{known:?}");
        assert_eq!(draft.changed, before != after, "{known:?}");
    }
}

#[test]
fn what_the_owner_before_may_have_sent_is_in_doubt_until_ten_minutes_after_its_claim() {
    use WriteKind::{Add, Remove};
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], HOUR);
    replica.bench.run(30);
    replica.bench.revoke(id);
    let boot = replica.bench.clock.since_boot();
    replica.standing.follows(boot);
    let lands = replica.bench.now() + TimeDelta::minutes(10);
    replica.bench.clock.advance(seconds(30));
    let record = replica.bench.record("ada");
    for (kind, known, expected) in [
        (Add, None, Some(lands)),
        (Add, Some(lands - seconds(1)), Some(lands)),
        (Add, Some(lands), Some(lands)),
        (Add, Some(lands + seconds(1)), Some(lands + seconds(1))),
        // It was sent by whoever wrote that down.
        (Remove, None, None),
    ] {
        let mut draft = Draft::new(record.clone());
        let row = &mut draft.record.owned[0];
        row.last_write.kind = kind;
        row.removal_echo_until = known;
        let now = replica.bench.now();
        replica
            .bench
            .reconciler
            .doubt_earlier_owner(&mut draft, now);
        let found = draft.record.owned[0].removal_echo_until;
        assert_eq!(found, expected, "{kind:?} {known:?}");
        assert_eq!(draft.changed, known != expected, "{kind:?} {known:?}");
    }
}

#[test]
fn what_no_grant_on_its_way_out_names_is_left_to_the_ledger() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], HOUR);
    replica.bench.run(30);
    replica.owns(5);
    replica.bench.revoke(id);
    let (now, boot) = (replica.bench.now(), replica.bench.clock.since_boot());
    let reading = replica.outage.begin_read(now, boot).expect("owned");
    let mut record = replica.bench.record("ada");
    record.owned[0].must_end_by = Some(now);
    let goes = |record: &MemberRecord| may_go(record, &viewer("a"), &reading, now);
    assert!(goes(&record));
    let mut other = record.clone();
    other.grants[0].assignments[0].assignment = viewer("b");
    assert!(!goes(&other), "another assignment is");
    record.grants.clear();
    assert!(!goes(&record), "no grant is left");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_without_end_unless_something_is_to_be_sent_meanwhile() {
    let mut bench = Bench::new();
    assert!(!bench.reconciler.goes_on_without_ledger());
    let standing = Arc::new(Standing::none());
    let notes = Arc::new(Notes::default());
    let patience = Some(Duration::from_millis(100));
    let ledger = bench.ledger.clone();
    let outage = Arc::new(Outage::new(notes, ledger, standing.clone(), patience));
    let fresh = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
    bench.reconciler = fresh.under(standing.clone()).with_outage(outage.clone());
    assert!(bench.reconciler.goes_on_without_ledger());
    let hold = |bench: &Bench, epoch: u64, length: u32| {
        standing.hold_to(Reach {
            epoch,
            until: bench.clock.since_boot() + Duration::from_secs(length.into()),
            deadline: bench.now() + seconds(length.into()),
        });
    };
    hold(&bench, 1, 86_400);
    let id = bench.grant("ada", &[viewer("a")], 60);
    bench.run(5);
    bench.run_until(bench.expires_at(id) - seconds(2));
    hold(&bench, 2, 5);
    bench.reconciler.look_ahead().await;
    let key = bench.record("ada").key;
    let reconciler = &bench.reconciler;
    let gives_up = || async {
        let asked = reconciler.answered(&key, pending::<Result<(), LedgerError>>());
        tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .is_ok_and(|answer| answer.is_err())
    };
    assert!(!gives_up().await, "nothing is due yet");
    bench.clock.advance(seconds(2));
    assert!(gives_up().await);
    let removal = Removal {
        key: key.clone(),
        assignments: vec![viewer("a")],
        epoch: 2,
        at: bench.now(),
    };
    outage.intend(removal).await.expect("kept");
    assert!(!gives_up().await, "it is being sent");
}

#[test]
fn how_late_a_removal_was_is_measured_without_the_ledger_too_unless_it_was_refused() {
    for is_refused in [false, true] {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut replica = Replica::new();
            replica.about_to_end(&[viewer("a")]);
            replica.bench.clock.advance(seconds(3));
            if is_refused {
                let throttled = Fault::Refuse(Refusal::Throttled { retry_after: None });
                let world = &replica.bench.world;
                world.change(|world| world.removes.push_back(Some(throttled)));
            }
            replica.pass();
            let answer = if is_refused {
                Answer::Refused
            } else {
                Answer::Done
            };
            assert_eq!(replica.notes.answers(), [Some(answer)]);
        });
        let text = handle.render();
        let counted = text
            .lines()
            .filter(|line| line.starts_with("latchkey_revocation_lateness_seconds_count"))
            .any(|line| line.ends_with(" 1"));
        assert_eq!(counted, !is_refused, "{text}");
    }
}
