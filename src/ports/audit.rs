//! The audit as it is stored, the blocks that seal it, and the places that it is delivered to.
//!
//! Owns the contract of reading events exactly as they were written, of keeping seals and cursors, and of a delivery.
//! Never interprets an event or a block: what a block says and proves is the business of `audit`.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use super::ledger::Result;

/// One audit event exactly as it is stored: these bytes are what is sealed, shipped and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place in the order of commits.
    pub sequence: u64,
    /// One JSON object.
    pub body: String,
}

impl AuditRecord {
    /// As one line of JSON, without its end: the stored bytes stand in it unchanged.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{{\"sequence\":{},\"event\":{}}}", self.sequence, self.body)
    }
}

/// A sealed run of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditBlock {
    /// 1 for the first block; one more for each next one.
    pub number: u64,
    /// The highest sequence in it.
    pub last: u64,
    /// What is signed, as text.
    pub header: String,
    /// The hashes of its records, 32 bytes each, in order.
    pub leaves: Vec<u8>,
    /// The signature over the header.
    pub signature: Vec<u8>,
}

/// Where events and seals are. Implemented by ledgers that outlive the process.
#[async_trait]
pub trait AuditStore: Debug + Send + Sync {
    /// The next events after a sequence, oldest first, as they are stored.
    async fn records(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>>;

    /// The newest block.
    async fn last_block(&self) -> Result<Option<AuditBlock>>;

    /// Blocks from a number on, in order.
    async fn blocks(&self, from: u64, limit: usize) -> Result<Vec<AuditBlock>>;

    /// Adds a block; refused when its number is not the next one.
    async fn add_block(&self, block: AuditBlock) -> Result<()>;

    /// The sequence up to which a sink has acknowledged every event; 0 before its first.
    async fn cursor(&self, sink: &str) -> Result<u64>;

    /// Moves the cursor of a sink from where it was read to a later sequence. Answers whether it still stood there;
    /// if not, somebody else delivered, and nothing was changed.
    async fn move_cursor(&self, sink: &str, from: u64, to: u64) -> Result<bool>;
}

/// Why events did not arrive, or are not known to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Undelivered {
    /// Every event up to this sequence arrived nonetheless; 0 when none of them is known to have.
    pub acknowledged: u64,
    /// Stable code for metrics and logs.
    pub code: String,
    /// What is wrong, in words safe to log.
    pub problem: String,
    /// Whether the other side does not want them, so that trying again soon is of no use.
    pub is_refused: bool,
    /// When the other side wants to be asked again, where it said so.
    pub retry_after: Option<Duration>,
}

/// A place that the audit is delivered to.
#[async_trait]
pub trait AuditSink: Debug + Send + Sync {
    /// Delivers events in their order. `Ok` means that every one of them is there for good. Whatever it was not told
    /// of comes again, so it may arrive twice.
    ///
    /// # Errors
    /// [`Undelivered`]: some of them may have arrived all the same.
    async fn deliver(&self, records: &[AuditRecord]) -> std::result::Result<(), Undelivered>;
}
