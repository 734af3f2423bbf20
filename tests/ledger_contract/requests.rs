//! Request ids: the same ask is one grant, whatever is repeated, lost or raced.

use std::collections::BTreeSet;

use latchkey::domain::ids::GrantId;
use latchkey::ports::ledger::{Accepted, EventFilter, LedgerError, RequestRecord};
use tokio::task::JoinSet;

use crate::support::*;

on_every_ledger!(
    the_same_request_and_body_answers_the_same_grant,
    a_replay_shows_the_grant_as_it_stands_now,
    a_request_id_with_another_body_has_no_effect,
    request_ids_of_two_callers_are_apart,
    a_tombstone_closes_a_request_id_before_its_grant,
    a_tombstone_answers_what_came_first,
    concurrent_accepts_of_one_request_are_one_grant,
    a_commit_remembers_its_request_or_has_no_effect,
    a_grant_id_is_never_used_twice,
);

async fn the_same_request_and_body_answers_the_same_grant(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let mut again = accept(grant(2, user("1")));
    again.grant.request_id = first.request_id.clone();
    let Ok(Accepted::Replayed(found)) = ledger.accept(again).await else {
        panic!("not replayed");
    };
    assert_eq!(found, first);
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
    assert_eq!(
        ledger
            .member(&key(user("1")))
            .await
            .expect("readable")
            .version,
        1
    );
    let record = ledger
        .find_request(&first.caller, &first.request_id)
        .await
        .expect("readable");
    assert_eq!(
        record,
        Some(RequestRecord::Grant {
            id: first.id,
            fingerprint: fingerprint(1)
        })
    );
}

async fn a_replay_shows_the_grant_as_it_stands_now(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let mut record = ledger.member(&key(user("1"))).await.expect("readable");
    end_all(&mut record, 50);
    ledger.commit(commit(record)).await.expect("committed");
    let Ok(Accepted::Replayed(found)) = ledger.accept(accept(first)).await else {
        panic!("not replayed");
    };
    assert_eq!(found.state.name(), "ended");
}

async fn a_request_id_with_another_body_has_no_effect(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let mut other = accept(grant(2, user("2")));
    other.grant.request_id = first.request_id;
    other.fingerprint = fingerprint(2);
    assert!(matches!(
        ledger.accept(other.clone()).await,
        Ok(Accepted::Mismatch)
    ));
    assert_eq!(ledger.grant(other.grant.id).await.expect("readable"), None);
    assert_eq!(
        ledger
            .member(&key(user("2")))
            .await
            .expect("readable")
            .version,
        0
    );
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
}

async fn request_ids_of_two_callers_are_apart(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let mut other = grant(2, user("1"));
    other.request_id = request_id("r1");
    other.caller = caller("local");
    create(&ledger, other).await;
}

async fn a_tombstone_closes_a_request_id_before_its_grant(ledger: AnyLedger) {
    let late = grant(1, user("1"));
    let before = ledger
        .tombstone(
            &late.caller,
            &late.request_id,
            at(100),
            vec![lifecycle("tombstone")],
        )
        .await
        .expect("closed");
    assert_eq!(before, None);
    assert!(matches!(
        ledger.accept(accept(late.clone())).await,
        Ok(Accepted::Tombstoned)
    ));
    assert_eq!(ledger.grant(late.id).await.expect("readable"), None);
    let again = ledger
        .tombstone(
            &late.caller,
            &late.request_id,
            at(100),
            vec![lifecycle("again")],
        )
        .await
        .expect("answered");
    assert_eq!(again, Some(RequestRecord::Tombstone));
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
}

async fn a_tombstone_answers_what_came_first(ledger: AnyLedger) {
    let first = create(&ledger, grant(1, user("1"))).await;
    let found = ledger
        .tombstone(&first.caller, &first.request_id, at(100), Vec::new())
        .await
        .expect("answered");
    assert!(matches!(found, Some(RequestRecord::Grant { id, .. }) if id == first.id));
}

async fn concurrent_accepts_of_one_request_are_one_grant(ledger: AnyLedger) {
    let mut racing = JoinSet::new();
    for n in 0..50 {
        let ledger = ledger.clone();
        let mut one = accept(grant(n, user("1")));
        one.grant.request_id = request_id("the-same");
        racing.spawn(async move { ledger.accept(one).await });
    }
    let mut created = 0;
    let mut ids: BTreeSet<GrantId> = BTreeSet::new();
    for outcome in racing.join_all().await {
        match outcome.expect("answered") {
            Accepted::Created(grant) => {
                created += 1;
                ids.insert(grant.id);
            }
            Accepted::Replayed(grant) => {
                ids.insert(grant.id);
            }
            other @ (Accepted::Mismatch | Accepted::Tombstoned | Accepted::TokenUsed(_)) => {
                panic!("{other:?}")
            }
        }
    }
    assert_eq!((created, ids.len()), (1, 1));
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!((record.grants.len(), record.version), (1, 1));
}

async fn a_commit_remembers_its_request_or_has_no_effect(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    let done = RequestRecord::Done {
        fingerprint: fingerprint(9),
        grant: Some(record.grants[0].id),
    };
    let mut call = commit(record);
    call.request = Some((
        caller("local"),
        request_id("extend-1"),
        done.clone(),
        at(100),
    ));
    call.audit = vec![lifecycle("extended")];
    assert_eq!(ledger.commit(call.clone()).await.expect("committed"), 2);
    let found = ledger
        .find_request(&caller("local"), &request_id("extend-1"))
        .await
        .expect("readable");
    assert_eq!(found, Some(done));
    // The same call again, decided on the new version: its request id is taken, so nothing happens.
    call.record.version = 2;
    assert!(matches!(
        ledger.commit(call).await,
        Err(LedgerError::Conflict { .. })
    ));
    let record = ledger.member(&key(user("1"))).await.expect("readable");
    assert_eq!(record.version, 2);
    let events = ledger.events(&EventFilter::default(), 0, 10).await;
    assert_eq!(events.expect("readable").len(), 2);
}

async fn a_grant_id_is_never_used_twice(ledger: AnyLedger) {
    create(&ledger, grant(1, user("1"))).await;
    let mut twin = accept(grant(1, user("2")));
    twin.grant.request_id = request_id("another");
    assert!(matches!(
        ledger.accept(twin.clone()).await,
        Err(LedgerError::Unavailable { .. })
    ));
    let found = ledger
        .find_request(&twin.grant.caller, &twin.grant.request_id)
        .await;
    assert_eq!(found.expect("readable"), None);
    assert_eq!(ledger.last_sequence().await.expect("readable"), 1);
}
