//! The ledgers against each other: any sequence of operations has the same answers on all of them.

use std::sync::Arc;

use latchkey::domain::grant::{EndCause, GrantState};
use latchkey::domain::member::{DueKind, Subject};
use latchkey::ports::ledger::{EventFilter, GrantFilter, RequestRecord};
use latchkey::store::MemoryLedger;
use latchkey::store::sqlite::Options;
use proptest::prelude::*;

use crate::server::{self, Served};
use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Accept {
        n: u8,
        subject: u8,
        request: u8,
        body: u8,
        due: i64,
        kind: u8,
    },
    Tombstone {
        request: u8,
    },
    Commit {
        subject: u8,
        state: u8,
        owned: u8,
        due: Option<i64>,
        stale: bool,
        request: Option<u8>,
    },
    Rekey {
        from: u8,
        into: u8,
        stale: bool,
    },
    Append,
    Prune {
        requests: i64,
        ended: i64,
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 0..4_u8, 0..12_u8, 0..2_u8, 0..20_i64, 0..4_u8).prop_map(
            |(n, subject, request, body, due, kind)| Step::Accept { n, subject, request, body, due, kind }
        ),
        1 => (0..12_u8).prop_map(|request| Step::Tombstone { request }),
        4 => (
            0..4_u8,
            0..4_u8,
            0..3_u8,
            proptest::option::of(0..20_i64),
            proptest::bool::weighted(0.2),
            proptest::option::weighted(0.2, 0..12_u8)
        )
            .prop_map(|(subject, state, owned, due, stale, request)| Step::Commit {
                subject, state, owned, due, stale, request
            }),
        1 => (0..4_u8, 0..4_u8, proptest::bool::weighted(0.2))
            .prop_map(|(from, into, stale)| Step::Rekey { from, into, stale }),
        1 => Just(Step::Append),
        1 => (0..30_i64, 0..30_i64, 0..4_usize)
            .prop_map(|(requests, ended, limit)| Step::Prune { requests, ended, limit }),
    ]
}

fn subject(number: u8) -> Subject {
    match number {
        0 => user("1"),
        1 => user("2"),
        2 => invitee("a@example.com"),
        _ => invitee("b@example.com"),
    }
}

fn kind(number: u8) -> DueKind {
    [
        DueKind::Remove,
        DueKind::Verify,
        DueKind::Grant,
        DueKind::Look,
    ][usize::from(number % 4)]
}

fn state(number: u8) -> GrantState {
    match number {
        0 => GrantState::Activating {
            since: at(0),
            must_end_by: None,
        },
        1 => GrantState::Active {
            activated_at: at(1),
            expires_at: at(9),
        },
        2 => GrantState::Revoking {
            since: at(9),
            cause: EndCause::Expired,
        },
        _ => GrantState::Ended {
            at: at(10),
            cause: EndCause::Expired,
        },
    }
}

/// Does one step and tells everything it answered, in words that two ledgers share.
async fn run(ledger: &AnyLedger, step: &Step) -> String {
    let outcome = match step.clone() {
        Step::Accept {
            n,
            subject: who,
            request,
            body,
            due: seconds,
            kind: what,
        } => {
            let mut one = accept(grant(n, subject(who)));
            one.grant.request_id = request_id(&format!("q{request}"));
            one.fingerprint = fingerprint(body);
            one.remember_until = at(i64::from(request));
            one.due = due(seconds, kind(what), u32::from(n % 3));
            ledger
                .accept(one)
                .await
                .map(|accepted| format!("{accepted:?}"))
        }
        Step::Tombstone { request } => ledger
            .tombstone(
                &caller("control-plane"),
                &request_id(&format!("q{request}")),
                at(i64::from(request)),
                vec![lifecycle("tombstone")],
            )
            .await
            .map(|found| format!("{found:?}")),
        Step::Commit {
            subject: who,
            state: target,
            owned: count,
            due: seconds,
            stale,
            request,
        } => {
            let mut record = ledger.member(&key(subject(who))).await.expect("readable");
            if stale {
                record.version = record.version.wrapping_add(1);
            }
            if let Some(first) = record.grants.first_mut() {
                first.state = state(target);
            }
            record.owned = ["a", "b"][..usize::from(count.min(2))]
                .iter()
                .map(|id| owned(deployment(id)))
                .collect();
            record.due = seconds.map(|seconds| due(seconds, kind(count), 1));
            let mut one = commit(record);
            one.audit = vec![lifecycle("commit")];
            one.request = request.map(|request| {
                let done = RequestRecord::Done {
                    fingerprint: fingerprint(7),
                    grant: None,
                };
                let id = request_id(&format!("q{request}"));
                (caller("control-plane"), id, done, at(i64::from(request)))
            });
            ledger.commit(one).await.map(|version| version.to_string())
        }
        Step::Rekey { from, into, stale } => {
            let mut from = ledger.member(&key(subject(from))).await.expect("readable");
            if stale {
                from.version += 1;
            }
            let into = ledger.member(&key(subject(into))).await.expect("readable");
            ledger
                .rekey(from, commit(into))
                .await
                .map(|version| version.to_string())
        }
        Step::Append => ledger
            .append(vec![lifecycle("append")])
            .await
            .map(|()| String::new()),
        Step::Prune {
            requests,
            ended,
            limit,
        } => ledger
            .prune(at(requests), at(ended), limit)
            .await
            .map(|count| count.to_string()),
    };
    outcome.unwrap_or_else(|error| error.code().to_owned())
}

/// Everything that can be read.
pub(crate) async fn picture(ledger: &AnyLedger) -> String {
    let main = integration("main");
    let grants = ledger.list_grants(&GrantFilter::default(), None, 999).await;
    let events = ledger.events(&EventFilter::default(), 0, 999).await;
    let mut requests = Vec::new();
    for request in 0..12 {
        let id = request_id(&format!("q{request}"));
        requests.push(ledger.find_request(&caller("control-plane"), &id).await);
    }
    let mut members = Vec::new();
    for number in 0..4 {
        members.push(ledger.member(&key(subject(number))).await);
    }
    format!(
        "{:#?}",
        (
            grants.expect("readable"),
            events.expect("readable"),
            requests,
            members,
            ledger.members(&main, None, 9).await.expect("readable"),
            ledger.subjects(&main, None).await.expect("readable"),
            ledger.due(&main, at(10), 9).await.expect("readable"),
            ledger.next_due(&main, at(10)).await.expect("readable"),
            ledger.census(at(10)).await.expect("readable"),
            *ledger.changes().borrow(),
        )
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_has_the_same_answers_on_every_ledger(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let file = File::open(&folder.path().join("ledger.db"), Options::default()).await;
            let durable: AnyLedger = Arc::new(file.ledger.clone());
            let memory: AnyLedger = Arc::new(MemoryLedger::new());
            let served = Served::open(&server::database().await).await;
            let shared: AnyLedger = Arc::new(served.ledger.clone());
            for step in &steps {
                let answers = (run(&memory, step).await, run(&durable, step).await);
                prop_assert_eq!(&answers.0, &answers.1, "{:?}", step);
                prop_assert_eq!(&answers.0, &run(&shared, step).await, "{:?}", step);
            }
            let pictures = (picture(&memory).await, picture(&durable).await);
            prop_assert_eq!(&pictures.0, &pictures.1);
            prop_assert_eq!(&pictures.0, &picture(&shared).await);
            drop(durable);
            file.close().await;
            served.close().await;
            Ok(())
        })?;
    }
}
