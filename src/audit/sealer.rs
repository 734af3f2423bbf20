//! Sealing what the ledger has written since the last block.
//!
//! Owns how large a block is and when one is made. A seal that fails changes nothing: the next run tries again, and
//! neither grants nor revocations wait for it.

use std::sync::Arc;

use super::block::{Block, Malformed};
use super::key::{KeyError, SigningKey};
use super::tree::Hash;
use super::verify::Head;
use crate::domain::Timestamp;
use crate::ports::SecretStore;
use crate::ports::audit::AuditStore;
use crate::ports::ledger::LedgerError;
use crate::ports::secrets::SecretError;

/// The most records of one block: some megabytes of events, and a line of export that fits in memory.
const BLOCK: usize = 4096;

const SEALED: &str = "latchkey_audit_sealed_sequence";
const BLOCKS: &str = "latchkey_audit_blocks_total";

pub(super) fn describe_metrics() {
    metrics::describe_gauge!(SEALED, "Sequence of the newest audit event that is sealed");
    metrics::describe_counter!(BLOCKS, "Blocks of audit events that were sealed");
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The signing key could not be fetched.
    #[error("the signing key of the audit could not be fetched")]
    Secret(#[source] SecretError),
    /// What was fetched is not a signing key.
    #[error("the signing key of the audit cannot be used")]
    Key(#[from] KeyError),
    /// The ledger could not be read or written.
    #[error("the ledger could not be read or written")]
    Ledger(#[from] LedgerError),
    /// The newest block of the ledger is not one.
    #[error("the newest block of the audit is damaged")]
    Damaged(#[from] Malformed),
}

/// What one run sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Blocks made.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// The newest block, whether made now or before.
    pub head: Option<Head>,
}

/// Seals the audit of one ledger.
#[derive(Debug)]
pub struct Sealer {
    store: Arc<dyn AuditStore>,
    key: Arc<dyn SecretStore>,
    ledger: String,
}

impl Sealer {
    /// For the audit in `store` of the ledger with this identity, with the key in `key`.
    #[must_use]
    pub fn new(store: Arc<dyn AuditStore>, key: Arc<dyn SecretStore>, ledger: String) -> Self {
        Self { store, key, ledger }
    }

    /// Seals everything that is not sealed yet. The key is fetched only when there is something.
    ///
    /// # Errors
    /// [`SealError`]; blocks made before stay.
    pub async fn run(&self, now: Timestamp) -> Result<Sealed, SealError> {
        let mut sealed = Sealed::default();
        let (mut number, mut last, mut previous) = match self.store.last_block().await? {
            None => (0, 0, Hash::NONE),
            Some(stored) => {
                let block = Block::read(&stored.header, &stored.leaves, stored.signature)?;
                (block.header.number, block.header.last(), block.hash())
            }
        };
        let mut key: Option<SigningKey> = None;
        loop {
            let records = self.store.records(last, BLOCK).await?;
            if records.is_empty() {
                break;
            }
            let key = match &mut key {
                Some(key) => key,
                none => none.insert(self.fetch().await?),
            };
            number += 1;
            let block = Block::seal(&self.ledger, number, previous, &records, now, key);
            self.store.add_block(block.stored()).await?;
            (last, previous) = (block.header.last(), block.hash());
            sealed.blocks += 1;
            sealed.records += block.header.count();
            metrics::counter!(BLOCKS).increment(1);
            // The log is usually shipped away at once, which makes it a place to keep the head.
            tracing::info!(
                audit.head = %Head { number, hash: previous },
                audit.last_sequence = last,
                "Sealed a block of the audit"
            );
            if records.len() < BLOCK {
                break;
            }
        }
        if number > 0 {
            sealed.head = Some(Head {
                number,
                hash: previous,
            });
        }
        // As a gauge, precise up to 2^53.
        metrics::gauge!(SEALED).set(last as f64);
        Ok(sealed)
    }

    async fn fetch(&self) -> Result<SigningKey, SealError> {
        let text = self.key.fetch().await.map_err(SealError::Secret)?;
        Ok(SigningKey::parse(&text)?)
    }
}
