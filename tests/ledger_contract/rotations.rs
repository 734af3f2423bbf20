//! Rotations of keys: one for each integration, changed only by whoever saw its last version.

use chrono::TimeDelta;
use latchkey::domain::rotation::{KeyMark, KeyRotation, Stage};
use latchkey::store::postgres::Options;
use latchkey::store::{Place, copy};

use crate::server::{Served, database};
use crate::support::*;

on_every_ledger!(a_rotation_is_stored_only_in_place_of_the_version_it_carries);

fn asked(name: &str, id: &str) -> KeyRotation {
    KeyRotation::asked(
        integration(name),
        id.to_owned(),
        at(5),
        ("ada".to_owned(), "quarterly".to_owned()),
        TimeDelta::days(90),
    )
}

async fn a_rotation_is_stored_only_in_place_of_the_version_it_carries(ledger: AnyLedger) {
    let acme = integration("acme");
    assert_eq!(ledger.rotation(&acme).await.expect("readable"), None);
    let put =
        |rotation: KeyRotation, event: &str| ledger.put_rotation(rotation, vec![lifecycle(event)]);
    assert!(put(asked("acme", "one"), "asked").await.expect("stored"));
    assert!(put(asked("other", "two"), "asked").await.expect("stored"));
    // Somebody who did not see the first.
    assert!(!put(asked("acme", "three"), "lost").await.expect("answered"));
    let seen = ledger.rotation(&acme).await.expect("readable");
    let seen = seen.expect("stored");
    assert_eq!((seen.version, seen.id.as_str()), (1, "one"));
    let mut next = seen.at(Stage::Creating, at(6));
    next.old = Some(KeyMark {
        id: "k1".to_owned(),
        digest: "d1".to_owned(),
    });
    assert!(put(next.clone(), "creating").await.expect("stored"));
    // The same step, decided on the same version.
    assert!(!put(next.clone(), "lost").await.expect("answered"));
    let seen = ledger.rotation(&acme).await.expect("readable");
    assert_eq!(seen, Some(KeyRotation { version: 2, ..next }));
    assert_eq!(ledger.last_sequence().await.expect("readable"), 3);
}

#[tokio::test]
async fn rotations_of_a_server_go_along_with_a_copy() {
    let (from, to) = (database().await, database().await);
    let served = Served::open(&from).await;
    let ledger: AnyLedger = served.any();
    let put = ledger.put_rotation(asked("acme", "one"), Vec::new()).await;
    assert!(put.expect("stored"));
    drop(ledger);
    served.close().await;
    let place = |url| Place::Server(Box::new(Options::new(url)));
    let copied = copy(&place(from.url()), &place(to.url())).await;
    let copied = copied.expect("copied");
    assert!(copied.contains(&("key_rotations", 1)), "{copied:?}");
    let served = Served::open(&to).await;
    let ledger: AnyLedger = served.any();
    let seen = ledger.rotation(&integration("acme")).await;
    assert_eq!(seen.expect("readable").map(|seen| seen.version), Some(1));
    drop(ledger);
    served.close().await;
}
