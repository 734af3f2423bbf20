//! The audit as it is stored, and the blocks that seal it.
//!
//! Owns the contract of reading events exactly as they were written and of keeping seals. Never interprets either:
//! what a block says and proves is the business of `audit`.

use std::fmt::Debug;

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
}
