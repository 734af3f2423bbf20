//! The witness file: torn, flipped, replaced, locked, on a disk that fails.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use tokio::task::JoinSet;

use super::store::COMPACT_AFTER;
use super::*;
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::domain::member::Subject;
use crate::ports::witness::Condition;

fn intent(user: u32, deployment: &str) -> Intent {
    let at = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
    Intent {
        integration: IntegrationName::parse("main").expect("valid"),
        subject: Subject::Member(UserId::parse(user.to_string()).expect("valid")),
        assignment: Assignment {
            role: "deployment-viewer".to_owned(),
            target: Target::Deployment {
                id: DeploymentId::parse(deployment).expect("valid"),
            },
            application_roles: ApplicationRoles::Mapped,
        },
        must_end_by: Some(at + chrono::TimeDelta::hours(1)),
        at,
    }
}

fn binding(generation: u64) -> Binding {
    Binding {
        ledger: "a1".to_owned(),
        generation,
    }
}

struct Open {
    witness: FileWitness,
    writer: JoinSet<()>,
}

impl Open {
    fn at(path: &Path) -> Self {
        let (witness, run) = FileWitness::open(path).expect("not locked");
        let mut writer = JoinSet::new();
        writer.spawn(run);
        Self { witness, writer }
    }

    async fn close(mut self) {
        self.witness.close().await;
        while let Some(ended) = self.writer.join_next().await {
            ended.expect("no panic");
        }
    }
}

/// A file with a binding, two intents and one end.
async fn filled(path: &Path) {
    let open = Open::at(path);
    let witness = &open.witness;
    witness
        .begin(binding(1), 5, Vec::new())
        .await
        .expect("made");
    witness
        .intend(vec![intent(1, "a"), intent(2, "b")], 8)
        .await
        .expect("written");
    let ended = intent(1, "a");
    witness.end(&ended.key(), vec![ended.assignment], 11);
    open.close().await;
}

#[tokio::test]
async fn what_was_intended_is_there_after_a_restart_and_what_ended_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/witness");
    filled(&path).await;
    let open = Open::at(&path);
    let found = open.witness.found().await.expect("readable");
    assert_eq!(
        found,
        Found {
            condition: Condition::Whole,
            binding: Some(binding(1)),
            mark: 11
        }
    );
    let intents = open.witness.open_intents().await.expect("readable");
    assert_eq!(intents, [intent(2, "b")]);
    assert_eq!(inspect(&path).expect("readable"), (found, intents));
    open.close().await;
}

#[tokio::test]
async fn a_binding_to_another_ledger_begins_counting_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    filled(&path).await;
    let open = Open::at(&path);
    open.witness.bind(binding(2), 3).await.expect("written");
    let found = open.witness.found().await.expect("readable");
    assert_eq!((found.binding, found.mark), (Some(binding(2)), 3));
    open.close().await;
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_costs_no_finished_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    filled(&path).await;
    let whole = std::fs::read(&path).expect("readable");
    let ends: Vec<usize> = (1..=whole.len())
        .filter(|end| whole[end - 1] == b'\n')
        .collect();
    for cut in 1..=whole.len() {
        std::fs::write(&path, &whole[..cut]).expect("written");
        let mut store = Store::open(&path).expect("not locked");
        assert_eq!(store.condition, Condition::Whole, "cut at {cut}");
        let kept = ends.iter().filter(|end| **end <= cut).max().copied();
        let length = std::fs::metadata(&path).expect("there").len();
        assert_eq!(length, kept.unwrap_or(0) as u64, "cut at {cut}");
        // It goes on where it was cut.
        store
            .append(&[Record::Tick { mark: 99 }], true)
            .expect("written");
        drop(store);
        let again = Store::open(&path).expect("not locked");
        assert_eq!((again.condition, again.mark), (Condition::Whole, 99));
    }
}

#[tokio::test]
async fn a_flipped_byte_is_refused_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    filled(&path).await;
    let whole = std::fs::read(&path).expect("readable");
    for at in 0..whole.len() {
        for mask in [0x01, 0x20, 0xff] {
            let mut flipped = whole.clone();
            flipped[at] ^= mask;
            std::fs::write(&path, &flipped).expect("written");
            let store = Store::open(&path).expect("not locked");
            let Condition::Damaged { detail } = &store.condition else {
                panic!("byte {at} ^ {mask:#x} went unnoticed");
            };
            assert!(detail.contains("byte"), "{detail}");
            assert_eq!(std::fs::read(&path).expect("readable"), flipped);
        }
    }
}

#[tokio::test]
async fn a_damaged_file_takes_nothing_and_is_put_aside_by_a_new_beginning() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    filled(&path).await;
    let mut damaged = std::fs::read(&path).expect("readable");
    damaged[30] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let open = Open::at(&path);
    let refused = open.witness.intend(vec![intent(3, "c")], 12).await;
    assert!(refused.is_err());
    assert!(open.witness.check().await.is_err());
    open.witness
        .begin(binding(2), 20, vec![intent(4, "d")])
        .await
        .expect("made");
    open.witness.check().await.expect("works");
    open.close().await;
    let aside = folder.path().join("witness.damaged-1");
    assert_eq!(std::fs::read(aside).expect("readable"), damaged);
    let (found, intents) = inspect(&path).expect("readable");
    assert_eq!(found.binding, Some(binding(2)));
    assert_eq!(intents, [intent(4, "d")]);
}

#[tokio::test]
async fn two_processes_do_not_share_a_witness() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    let first = Store::open(&path).expect("free");
    assert!(matches!(Store::open(&path), Err(OpenError::Locked { .. })));
    drop(first);
    assert!(Store::open(&path).is_ok());
}

#[tokio::test]
async fn a_file_that_failed_once_is_not_written_again_but_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    filled(&path).await;
    let mut store = Store::open(&path).expect("free");
    let before = std::fs::metadata(&path).expect("there");
    // A descriptor that cannot be written stands for a disk that refuses.
    store.file = Some(File::open(&path).expect("readable"));
    let refused = store.append(&[Record::Tick { mark: 50 }], true);
    assert!(refused.is_err() && store.file.is_none());
    // Half of it may have come through all the same.
    let mut torn = OpenOptions::new().append(true).open(&path).expect("there");
    torn.write_all(&Record::Tick { mark: 50 }.line()[..20])
        .expect("written");
    store
        .append(&[Record::Tick { mark: 60 }], true)
        .expect("replaced and written");
    let after = std::fs::metadata(&path).expect("there");
    let inode = std::os::unix::fs::MetadataExt::ino;
    assert_ne!(inode(&before), inode(&after));
    let (found, intents) = inspect(&path).expect("readable");
    assert_eq!((found.condition, found.mark), (Condition::Whole, 60));
    assert_eq!(intents, [intent(2, "b")]);
}

#[tokio::test]
async fn closed_records_are_dropped_when_they_dominate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    let mut store = Store::open(&path).expect("free");
    let kept = intent(1, "kept");
    store
        .begin(binding(1), 0, vec![kept.clone()])
        .expect("made");
    let passing = intent(2, "b");
    for mark in 0..COMPACT_AFTER {
        let come = Record::Intent {
            mark,
            intent: passing.clone(),
        };
        let gone = Record::Ended {
            mark,
            integration: passing.integration.clone(),
            subject: passing.subject.clone(),
            assignment: passing.assignment.clone(),
        };
        store.append(&[come, gone], false).expect("written");
    }
    let size = std::fs::metadata(&path).expect("there").len();
    assert!(size < 4 << 20, "{size} bytes");
    assert!(store.added < COMPACT_AFTER);
    let (found, intents) = inspect(&path).expect("readable");
    assert_eq!(intents, [kept]);
    assert_eq!(
        (found.binding, found.mark),
        (Some(binding(1)), COMPACT_AFTER - 1)
    );
}

#[tokio::test]
async fn concurrent_intents_are_all_durable_when_they_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("witness");
    let open = Open::at(&path);
    open.witness
        .begin(binding(1), 0, Vec::new())
        .await
        .expect("made");
    let mut asking = JoinSet::new();
    for user in 1..=100 {
        let witness = open.witness.clone();
        asking.spawn(async move {
            witness
                .intend(vec![intent(user, "a")], u64::from(user))
                .await
                .expect("written");
            let (_, intents) = inspect(&witness.path).expect("readable");
            assert!(intents.contains(&intent(user, "a")));
        });
    }
    while let Some(done) = asking.join_next().await {
        done.expect("answered");
    }
    open.close().await;
}
