//! What a ledger knows about itself: identity, generation, holds, how far time had come.

use latchkey::ports::ledger::{Evidence, HoldReason, HoldRecord, LedgerError};
use latchkey::store::Glance;
use latchkey::store::sqlite::Options;

use crate::support::*;

on_every_ledger!(
    a_generation_only_rises,
    a_hold_stays_until_it_is_ended_and_leaves_its_events,
    the_latest_instant_is_that_of_the_newest_events,
);

fn hold(name: &str, code: &str) -> HoldRecord {
    HoldRecord {
        integration: integration(name),
        since: at(5),
        reasons: vec![HoldReason {
            code: code.to_owned(),
            detail: "found".to_owned(),
        }],
        evidence: Evidence::Witness,
    }
}

async fn a_generation_only_rises(ledger: AnyLedger) {
    let fresh = ledger.identity().await.expect("readable");
    assert!(!fresh.id.is_empty());
    assert_eq!((fresh.generation, fresh.witnessed), (0, false));
    ledger.agree(1, true).await.expect("higher");
    ledger.agree(5, true).await.expect("higher");
    for generation in [0, 4, 5] {
        let refused = ledger.agree(generation, false).await;
        assert!(matches!(refused, Err(LedgerError::Unavailable { .. })));
    }
    let now = ledger.identity().await.expect("readable");
    assert_eq!(now.id, fresh.id);
    assert_eq!((now.generation, now.witnessed), (5, true));
    ledger.agree(6, false).await.expect("higher");
    assert!(!ledger.identity().await.expect("readable").witnessed);
}

async fn a_hold_stays_until_it_is_ended_and_leaves_its_events(ledger: AnyLedger) {
    assert_eq!(ledger.holds().await.expect("readable"), []);
    let (a, b) = (hold("a", "ledger_behind"), hold("b", "other_ledger"));
    ledger
        .put_hold(b.clone(), vec![lifecycle("b")])
        .await
        .expect("put");
    ledger
        .put_hold(hold("a", "x"), Vec::new())
        .await
        .expect("put");
    ledger
        .put_hold(a.clone(), Vec::new())
        .await
        .expect("changed");
    assert_eq!(ledger.holds().await.expect("readable"), [a, b.clone()]);
    let name = integration("a");
    let end = |event: &str| ledger.end_hold(&name, vec![lifecycle(event)]);
    assert!(end("released").await.expect("ended"));
    assert!(!end("again").await.expect("nothing to end"));
    assert_eq!(ledger.holds().await.expect("readable"), [b]);
    assert_eq!(ledger.last_sequence().await.expect("readable"), 2);
}

async fn the_latest_instant_is_that_of_the_newest_events(ledger: AnyLedger) {
    assert_eq!(ledger.latest_instant().await.expect("readable"), None);
    for seconds in [3, 9, 4] {
        let mut event = lifecycle("x");
        event.at = at(seconds);
        ledger.append(vec![event]).await.expect("appended");
    }
    let latest = ledger.latest_instant().await.expect("readable");
    assert_eq!(latest, Some(at(9)));
}

#[tokio::test]
async fn a_file_keeps_its_identity_and_can_be_glanced_at_while_it_is_open() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("ledger.db");
    let first = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = std::sync::Arc::new(first.ledger.clone());
    let identity = ledger.identity().await.expect("readable");
    ledger
        .put_hold(hold("a", "ledger_behind"), vec![lifecycle("held")])
        .await
        .expect("put");
    let mut glance = Glance::at(&path).await.expect("readable");
    assert_eq!(glance.identity().await.expect("readable"), identity);
    assert_eq!(glance.holds().await.expect("readable").len(), 1);
    let events = glance.events(0).await.expect("readable");
    assert_eq!(events.len(), 1);
    assert_eq!(
        glance.events(events[0].sequence).await.expect("readable"),
        []
    );
    glance.close().await;
    first.close().await;
    let again = File::open(&path, Options::default()).await;
    let ledger: AnyLedger = std::sync::Arc::new(again.ledger.clone());
    assert_eq!(ledger.identity().await.expect("readable").id, identity.id);
    assert_eq!(ledger.holds().await.expect("readable").len(), 1);
    again.close().await;
    let other = folder.path().join("other.db");
    let other = File::open(&other, Options::default()).await;
    let ledger: AnyLedger = std::sync::Arc::new(other.ledger.clone());
    assert_ne!(ledger.identity().await.expect("readable").id, identity.id);
    other.close().await;
}
