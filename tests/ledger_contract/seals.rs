//! Seals over the audit of a file: what is sealed is what is stored, block follows block, and none is rewritten.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use latchkey::audit::verify::VerifyError;
use latchkey::audit::{Finding, Report, Sealer, SigningKey, Verifier, export};
use latchkey::ports::Ledger;
use latchkey::ports::SecretStore;
use latchkey::ports::audit::AuditStore;
use latchkey::ports::ledger::LedgerError;
use latchkey::ports::secrets::SecretError;
use latchkey::store::SqliteLedger;
use latchkey::store::sqlite::Options;
use secrecy::{ExposeSecret, SecretString};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, query};

use crate::support::*;

#[derive(Debug)]
struct Fixed(SecretString);

#[async_trait]
impl SecretStore for Fixed {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from(self.0.expose_secret()))
    }
    fn describe(&self) -> String {
        "the test".to_owned()
    }
}

struct Sealed {
    sealer: Sealer,
    key: SigningKey,
}

fn sealing(ledger: &SqliteLedger) -> Sealed {
    let (key, text) = SigningKey::generate().expect("randomness");
    let store: Arc<dyn AuditStore> = Arc::new(ledger.clone());
    let sealer = Sealer::new(store, Arc::new(Fixed(text)), "the ledger".to_owned());
    Sealed { sealer, key }
}

async fn exported(ledger: &SqliteLedger) -> String {
    let mut text = String::new();
    let mut last = 0;
    for block in ledger.blocks(1, 1_000).await.expect("readable") {
        for record in ledger.records(last, 100_000).await.expect("readable") {
            if record.sequence <= block.last {
                text += &(export::record(&record) + "\n");
            }
        }
        last = block.last;
        text += &(export::block(&block) + "\n");
    }
    text
}

fn verified(key: &SigningKey, text: &str) -> Result<Report, VerifyError> {
    Verifier::new(vec![key.public()], None).run(text.as_bytes())
}

async fn append(ledger: &SqliteLedger, count: usize) {
    let events = (0..count).map(|at| lifecycle(&format!("event {at}")));
    ledger.append(events.collect()).await.expect("appended");
}

#[tokio::test]
async fn everything_is_sealed_once_and_verifies_as_it_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = File::open(&folder.path().join("ledger.db"), Options::default()).await;
    let ledger = file.ledger.clone();
    let Sealed { sealer, key } = sealing(&ledger);
    assert_eq!(sealer.run(at(0)).await.expect("nothing to do").head, None);
    let mut sealed = 0;
    // More than one block at once, exactly one, one record, none.
    for (count, blocks) in [(5_000, 2), (4_096, 1), (1, 1), (0, 0)] {
        append(&ledger, count).await;
        let done = sealer.run(at(1)).await.expect("sealed");
        assert_eq!((done.blocks, done.records), (blocks, count as u64));
        sealed += count as u64;
    }
    let report = verified(&key, &exported(&ledger).await).expect("whole");
    assert_eq!(report.records, sealed);
    assert_eq!(report.sequences, (1, sealed));
    assert_eq!(report.head.number, 4);
    file.close().await;
}

#[tokio::test]
async fn a_block_that_is_not_the_next_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = File::open(&folder.path().join("ledger.db"), Options::default()).await;
    let ledger = file.ledger.clone();
    append(&ledger, 3).await;
    sealing(&ledger).sealer.run(at(0)).await.expect("sealed");
    let [first] = &ledger.blocks(1, 10).await.expect("readable")[..] else {
        panic!("one block");
    };
    // Two sealers that ran at once: the second finds its number taken.
    let again = ledger.add_block(first.clone()).await;
    assert!(
        matches!(again, Err(LedgerError::Unavailable { .. })),
        "{again:?}"
    );
    let mut far = first.clone();
    far.number = 3;
    far.last = 9;
    assert!(ledger.add_block(far).await.is_err());
    assert_eq!(
        ledger.last_block().await.expect("readable").as_ref(),
        Some(first)
    );
    file.close().await;
}

async fn direct(path: &Path, text: &'static str) -> sqlx::Result<()> {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await?;
    query(text).execute(&mut conn).await?;
    conn.close().await
}

#[tokio::test]
async fn a_rewritten_ledger_is_found_out_by_its_own_export() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let file = File::open(&path, Options::default()).await;
    append(&file.ledger, 20).await;
    let Sealed { sealer, key } = sealing(&file.ledger);
    sealer.run(at(0)).await.expect("sealed");
    file.close().await;

    for text in [
        "UPDATE events SET body = '{}' WHERE sequence = 7",
        "DELETE FROM audit_blocks",
    ] {
        assert!(direct(&path, text).await.is_err(), "{text} is not allowed");
    }
    // Whoever owns the file can drop what forbids it.
    direct(&path, "DROP TRIGGER events_stay_as_written")
        .await
        .expect("dropped");
    direct(
        &path,
        "UPDATE events SET body = replace(body, 'event 6', 'event X') WHERE sequence = 7",
    )
    .await
    .expect("rewritten");
    let file = File::open(&path, Options::default()).await;
    let found = verified(&key, &exported(&file.ledger).await).expect_err("rewritten");
    assert!(
        matches!(
            found,
            VerifyError::Finding(Finding::Changed {
                sequence: 7,
                line: 7
            })
        ),
        "{found}"
    );
    file.close().await;
}
