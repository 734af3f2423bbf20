//! The journal: removals that were sent while the ledger was away, until the ledger knows of them.
//!
//! Owns the contract that an intent is durable before its first byte, and is told to the ledger some day. It is a
//! record of what was sent, not of what came of it: nothing is taken for gone because of it. Never adds access.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::CallEvidence;
use crate::domain::member::MemberKey;

/// A removal that is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Whose access.
    pub key: MemberKey,
    /// What is removed.
    pub assignments: Vec<Assignment>,
    /// Under which claim.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
}

/// What upstream made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It said that it was done.
    Done,
    /// It certainly had no effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How a removal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What was answered.
    pub answer: Answer,
    /// Evidence of the call.
    pub evidence: CallEvidence,
    /// When.
    pub at: Timestamp,
}

/// A removal that the ledger does not know of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal.
    pub number: u64,
    /// What was to be sent.
    pub removal: Removal,
    /// `None` while it is under way, and where the process ended before it had an answer.
    pub ending: Option<Ending>,
}

/// Why the journal could not do it. Nothing may be sent without it then.
#[derive(Debug, thiserror::Error)]
#[error("{action}: the journal does not work")]
pub struct JournalError {
    /// What was being done.
    pub action: &'static str,
    /// The cause; for our log only.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Short for the results of this port.
pub type Result<T> = std::result::Result<T, JournalError>;

/// The record of what was sent while the ledger was away.
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Makes an intent durable. Answers its number.
    async fn intend(&self, removal: Removal) -> Result<u64>;

    /// Makes durable how it ended.
    async fn ended(&self, number: u64, ending: Ending) -> Result<()>;

    /// The ledger knows of it: it is forgotten.
    async fn told(&self, number: u64) -> Result<()>;

    /// What the ledger does not know of yet, the oldest first.
    fn waiting(&self) -> Vec<Entry>;
}
