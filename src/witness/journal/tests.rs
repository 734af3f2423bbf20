//! The journal file: restarts, torn, flipped, locked, of another ledger.

use std::fs;

use super::*;
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, Target};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::domain::member::{MemberKey, Subject};
use crate::ports::journal::Answer;

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn removal(user: u32) -> Removal {
    Removal {
        key: MemberKey {
            integration: IntegrationName::parse("main").expect("valid"),
            subject: Subject::Member(UserId::parse(user.to_string()).expect("valid")),
        },
        assignments: vec![Assignment {
            role: "deployment-viewer".to_owned(),
            target: Target::Deployment {
                id: DeploymentId::parse("a").expect("valid"),
            },
            application_roles: ApplicationRoles::Mapped,
        }],
        epoch: 7,
        at: at(0),
    }
}

fn ending(answer: Answer) -> Ending {
    Ending {
        answer,
        evidence: CallEvidence::default(),
        at: at(1),
    }
}

/// One that was answered, one that was told, one without an answer.
async fn filled(place: &Path) -> Vec<Entry> {
    let journal = FileJournal::open(place, "a1").expect("opened");
    for user in 1..=3 {
        assert_eq!(
            journal.intend(removal(user)).await.expect("noted"),
            u64::from(user)
        );
    }
    journal.ended(1, ending(Answer::Done)).await.expect("noted");
    journal
        .ended(2, ending(Answer::Refused))
        .await
        .expect("noted");
    journal.told(2).await.expect("noted");
    let waiting = journal.waiting();
    assert_eq!(waiting.len(), 2);
    waiting
}

#[tokio::test]
async fn what_was_not_told_is_there_after_a_restart_with_its_answer() {
    let place = tempfile::tempdir().expect("a folder");
    let deep = place.path().join("deep");
    let before = filled(&deep).await;
    let journal = FileJournal::open(&deep, "a1").expect("opened");
    assert_eq!(journal.waiting(), before);
    assert_eq!(before[0].ending, Some(ending(Answer::Done)));
    assert_eq!(before[1].ending, None, "nobody knows");
    assert_eq!(
        journal.intend(removal(4)).await.expect("noted"),
        4,
        "no number twice"
    );
}

#[tokio::test]
async fn a_torn_end_costs_the_record_that_was_never_answered_and_no_other() {
    let place = tempfile::tempdir().expect("a folder");
    let before = filled(place.path()).await;
    let path = place.path().join(NAME);
    let whole = fs::read(&path).expect("readable");
    // The last record tells of the second removal: cut anywhere, that one waits again.
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("several lines")
        + 1;
    for cut in last..whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        let journal = FileJournal::open(place.path(), "a1").expect("opened");
        assert_eq!(journal.waiting().len(), 3, "cut at {cut}");
        assert_eq!(journal.waiting()[0], before[0]);
    }
}

#[tokio::test]
async fn a_flipped_byte_is_named_put_aside_and_costs_one_record() {
    let place = tempfile::tempdir().expect("a folder");
    filled(place.path()).await;
    let path = place.path().join(NAME);
    let mut bytes = fs::read(&path).expect("readable");
    let second = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a line")
        + 1;
    bytes[second + 30] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let journal = FileJournal::open(place.path(), "a1").expect("opened");
    let left: Vec<u64> = journal.waiting().iter().map(|entry| entry.number).collect();
    assert_eq!(left, [3], "the first is not believed");
    assert_eq!(
        fs::read(place.path().join("removals.damaged-1")).expect("kept"),
        bytes
    );
}

#[tokio::test]
async fn another_process_and_another_ledger_are_refused() {
    let place = tempfile::tempdir().expect("a folder");
    filled(place.path()).await;
    let foreign = FileJournal::open(place.path(), "b2");
    assert!(
        matches!(foreign, Err(OpenError::Foreign { .. })),
        "{foreign:?}"
    );
    let journal = FileJournal::open(place.path(), "a1").expect("opened");
    let second = FileJournal::open(place.path(), "a1");
    assert!(
        matches!(second, Err(OpenError::Locked { .. })),
        "{second:?}"
    );
    for entry in journal.waiting() {
        journal.told(entry.number).await.expect("noted");
    }
    drop(journal);
    let empty = FileJournal::open(place.path(), "b2").expect("nothing is owed to the other");
    assert_eq!(empty.waiting(), []);
}

#[tokio::test]
async fn what_was_told_does_not_make_the_file_grow() {
    let place = tempfile::tempdir().expect("a folder");
    let journal = FileJournal::open(place.path(), "a1").expect("opened");
    for user in 0..1_200 {
        let number = journal.intend(removal(user)).await.expect("noted");
        journal.told(number).await.expect("noted");
    }
    let size = fs::metadata(place.path().join(NAME)).expect("there").len();
    assert!(size < 1_500 * 400, "{size}");
}
