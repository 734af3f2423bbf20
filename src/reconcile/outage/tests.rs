//! What is remembered for when the ledger is away, and when it is forgotten.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures::FutureExt as _;

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::domain::member::{LastWrite, Subject, WriteKind, WriteOutcome};
use crate::store::MemoryLedger;

const BOOT: Duration = Duration::from_secs(1_000);
const CLAIM: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).expect("in range")
}

fn key(name: &str) -> MemberKey {
    MemberKey {
        integration: IntegrationName::parse("main").expect("well formed"),
        subject: Subject::Member(UserId::parse(name).expect("well formed")),
    }
}

fn viewer(id: &str) -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(id).expect("well formed"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

/// A member of whom something is overdue: the record as of that version.
fn member(name: &str, version: u64) -> MemberRecord {
    let mut record = MemberRecord::new(key(name));
    record.version = version;
    record.owned.push(Owned {
        assignment: viewer("a"),
        phase: Phase::Live,
        since: now(),
        must_end_by: None,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at: now(),
            outcome: WriteOutcome::Done,
        },
        seen: true,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    });
    record
}

/// A journal with these in it.
#[derive(Debug, Default)]
struct Holding(Vec<Entry>);

#[async_trait::async_trait]
impl Journal for Holding {
    async fn intend(&self, _: Removal) -> Result<u64> {
        Ok(1)
    }

    async fn ended(&self, _: u64, _: Ending) -> Result<()> {
        Ok(())
    }

    async fn told(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn waiting(&self) -> Vec<Entry> {
        self.0.clone()
    }
}

fn outage_with(entries: Vec<Entry>) -> (Outage, Arc<Standing>) {
    let standing = Arc::new(Standing::none());
    let journal = Arc::new(Holding(entries));
    let ledger = Arc::new(MemoryLedger::new());
    let outage = Outage::new(journal, ledger, standing.clone(), None);
    claim(&standing, 1);
    (outage, standing)
}

fn claim(standing: &Standing, epoch: u64) {
    standing.hold_to(Reach {
        epoch,
        until: BOOT + CLAIM,
        deadline: now() + TimeDelta::seconds(5),
    });
}

fn read(outage: &Outage, since_boot: Duration) -> Reading {
    outage.begin_read(now(), since_boot).expect("owned")
}

/// The version of what is known of a member.
fn known(outage: &Outage, name: &str, since_boot: Duration) -> Option<u64> {
    let remembered = outage.remember(&key(name), since_boot);
    remembered.map(|(record, _)| record.version)
}

#[test]
fn writes_are_forgotten_only_where_there_are_many_and_no_read_can_have_begun_before_them() {
    let minute = LONGEST_READ;
    // How many there are, how long ago, and how many are left.
    for (count, ago, left) in [
        (2, minute * 10, 3),
        (WRITES, minute * 10, WRITES + 1),
        (WRITES + 1, minute - MS, WRITES + 2),
        (WRITES + 1, minute, 1),
        (WRITES + 2, minute, 1),
    ] {
        let mut state = State::default();
        for n in 0..count {
            state.touch(&key(&format!("m{n}")), true, BOOT);
        }
        state.touch(&key("last"), true, BOOT + ago);
        let lengths = (state.written.len(), state.decided.len());
        assert_eq!(lengths, (left, left), "{count} of {ago:?} ago");
    }
}

#[test]
fn a_write_that_nobody_knows_of_is_in_doubt_for_as_long_as_a_read_may_take() {
    let (outage, standing) = outage_with(Vec::new());
    outage.deciding(&key("ada"), BOOT).begins();
    standing.hold_to(Reach {
        epoch: 1,
        until: BOOT * 2,
        deadline: now() + TimeDelta::seconds(1_000),
    });
    for (after, is_known) in [
        (Duration::ZERO, false),
        (LONGEST_READ - MS, false),
        (LONGEST_READ, true),
    ] {
        // The first read after it forgets it, and was itself begun before.
        read(&outage, BOOT + after);
        let reading = read(&outage, BOOT + after);
        outage.learn(&reading, &member("ada", 1));
        let found = known(&outage, "ada", BOOT + after);
        assert_eq!(found.is_some(), is_known, "{after:?}");
    }
}

#[test]
fn a_write_that_never_began_or_has_its_answer_leaves_no_doubt() {
    for begins in [false, true] {
        let (outage, _) = outage_with(Vec::new());
        let mut writing = outage.deciding(&key("ada"), BOOT);
        if begins {
            writing.begins();
            writing.ends(&Ok::<_, LedgerError>(()));
        }
        drop(writing);
        let reading = read(&outage, BOOT);
        outage.learn(&reading, &member("ada", 1));
        assert_eq!(known(&outage, "ada", BOOT), Some(1));
    }
}

#[test]
fn what_was_read_earlier_does_not_replace_what_was_read_later() {
    let (outage, _) = outage_with(Vec::new());
    let early = read(&outage, BOOT);
    drop(outage.committing(&key("bob"), BOOT));
    let late = read(&outage, BOOT);
    outage.learn(&late, &member("ada", 2));
    outage.learn(&early, &member("ada", 1));
    assert_eq!(known(&outage, "ada", BOOT), Some(2));
    outage.learn(&late, &member("ada", 3));
    assert_eq!(known(&outage, "ada", BOOT), Some(3), "of the same time");
}

#[test]
fn what_was_read_under_an_earlier_claim_is_not_learnt() {
    let (outage, standing) = outage_with(Vec::new());
    let before = read(&outage, BOOT);
    claim(&standing, 2);
    let under = read(&outage, BOOT);
    outage.learn(&under, &member("ada", 2));
    outage.learn(&before, &member("ada", 1));
    assert_eq!(known(&outage, "ada", BOOT), Some(2));
}

#[test]
fn what_is_known_is_acted_on_while_the_claim_stands_that_it_was_read_under() {
    let (outage, standing) = outage_with(Vec::new());
    let reading = read(&outage, BOOT);
    outage.learn(&reading, &member("ada", 1));
    assert_eq!(known(&outage, "ada", BOOT + CLAIM - MS), Some(1));
    assert_eq!(known(&outage, "ada", BOOT + CLAIM), None);
    outage.prune(BOOT + CLAIM - MS);
    assert_eq!(outage.lock().known.len(), 1);
    claim(&standing, 2);
    assert_eq!(known(&outage, "ada", BOOT), None, "another claim");
    outage.prune(BOOT + CLAIM);
    assert_eq!(outage.lock().known.len(), 0);
}

#[test]
fn so_many_are_known_and_no_more_and_those_known_are_kept_up_to_date() {
    let (outage, _) = outage_with(Vec::new());
    let reading = read(&outage, BOOT);
    let names: Vec<String> = (0..=KNOWN).map(|n| format!("m{n}")).collect();
    for name in &names {
        outage.learn(&reading, &member(name, 1));
    }
    let found = |name: &String| known(&outage, name, BOOT);
    assert_eq!(names.iter().filter_map(found).count(), KNOWN);
    assert_eq!(found(&names[KNOWN]), None);
    outage.learn(&reading, &member(&names[0], 2));
    assert_eq!(found(&names[0]), Some(2));
}

#[test]
fn a_removal_is_sent_again_only_after_a_failure_and_three_times_at_most() {
    let entry = |name: &str, answer: Option<Answer>| Entry {
        number: 1,
        removal: Removal {
            key: key(name),
            assignments: vec![viewer("a")],
            epoch: 1,
            at: now(),
        },
        ending: answer.map(|answer| Ending {
            answer,
            evidence: CallEvidence::default(),
            at: now(),
        }),
    };
    let (done, refused) = (Some(Answer::Done), Some(Answer::Refused));
    let unknown = Some(Answer::Unknown);
    for (answers, may) in [
        (vec![], true),
        (vec![unknown], true),
        (vec![unknown, refused], true),
        (vec![unknown, refused, unknown], false),
        (vec![unknown, refused, unknown, unknown], false),
        (vec![done], false),
        (vec![refused, done], false),
        (vec![None], false),
    ] {
        let entries = answers.iter().map(|answer| entry("ada", *answer));
        let (outage, _) = outage_with(entries.collect());
        let of = |name: &str, id: &str| outage.may_send(&key(name), &viewer(id));
        assert_eq!(of("ada", "a"), may, "{answers:?}");
        assert!(of("bob", "a") && of("ada", "b"), "{answers:?}");
    }
}

#[test]
fn how_much_the_ledger_does_not_know_is_shown_when_something_is_sent() {
    use metrics_exporter_prometheus::PrometheusBuilder;
    let removal = Removal {
        key: key("ada"),
        assignments: vec![viewer("a")],
        epoch: 1,
        at: now(),
    };
    let entry = Entry {
        number: 1,
        removal: removal.clone(),
        ending: None,
    };
    let (outage, _) = outage_with(vec![entry]);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, || {
        let intended = outage.intend(removal).now_or_never();
        assert_eq!(intended.expect("ready").expect("works"), 1);
    });
    let shown = handle.render();
    let names: BTreeSet<&str> = shown.lines().collect();
    let line = format!("{} 1", metrics::JOURNAL_WAITING);
    assert!(names.contains(line.as_str()), "{shown}");
}
