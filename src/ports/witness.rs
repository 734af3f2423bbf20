//! The witness: what was intended, remembered apart from the ledger.
//!
//! Owns the contract by which a lost or restored ledger is noticed, and by which it can be told afterwards what is
//! ours. It is evidence, not state: nothing is decided by it while it agrees with the ledger. Never removes access.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::ids::IntegrationName;
use crate::domain::member::{MemberKey, Subject};

/// Which ledger the witness belongs to, and how far that ledger was when they last agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Identity of the ledger.
    pub ledger: String,
    /// Generation of the ledger; it rises with every start and every release of a hold.
    pub generation: u64,
}

/// One assignment that is about to be added, or was and has not been seen gone twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Which organization.
    pub integration: IntegrationName,
    /// Whose access.
    pub subject: Subject,
    /// What is added.
    pub assignment: Assignment,
    /// The latest instant until which any grant could have wanted it.
    pub must_end_by: Option<Timestamp>,
    /// When it was first intended.
    pub at: Timestamp,
}

impl Intent {
    /// The member that it belongs to.
    #[must_use]
    pub fn key(&self) -> MemberKey {
        MemberKey {
            integration: self.integration.clone(),
            subject: self.subject.clone(),
        }
    }
}

/// In which condition the witness was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Every record can be read.
    Whole,
    /// There is none yet, or none any more.
    Missing,
    /// It is there and cannot be trusted; it is left as it is.
    Damaged {
        /// What is wrong with it, and where.
        detail: String,
    },
}

/// What the witness holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether it can be trusted.
    pub condition: Condition,
    /// The ledger that it belongs to; `None` before it was bound to one.
    pub binding: Option<Binding>,
    /// The highest sequence of that ledger's events that a record of it tells of.
    pub mark: u64,
}

/// Why the witness could not do it. Nothing may be added upstream then; removals do not ask.
#[derive(Debug, thiserror::Error)]
#[error("{action}: the witness does not work")]
pub struct WitnessError {
    /// What was being done.
    pub action: &'static str,
    /// The cause; for our log only.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl WitnessError {
    /// What was being done and why it failed, for our log.
    #[must_use]
    pub fn chain(&self) -> String {
        format!("{self} ({})", self.source)
    }
}

/// Short for the results of this port.
pub type Result<T> = std::result::Result<T, WitnessError>;

/// The record of intents apart from the ledger.
///
/// `mark` is always the sequence of the newest event that the ledger has made durable; 0 makes no claim.
#[async_trait]
pub trait Witness: Debug + Send + Sync {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// What it holds now.
    async fn found(&self) -> Result<Found>;

    /// Intents without an end, in order of their last writing.
    async fn open_intents(&self) -> Result<Vec<Intent>>;

    /// Makes intents durable. Concurrent calls share one fsync.
    async fn intend(&self, intents: Vec<Intent>, mark: u64) -> Result<()>;

    /// Notes that assignments of a member are no longer ours. Does not wait: a note that gets lost leaves an intent
    /// open, which only matters in a hold.
    fn end(&self, key: &MemberKey, assignments: Vec<Assignment>, mark: u64);

    /// Notes how far the ledger is. Does not wait.
    fn tick(&self, mark: u64);

    /// Notes durably that the ledger of `binding` is the one that it belongs to, `mark` events far.
    async fn bind(&self, binding: Binding, mark: u64) -> Result<()>;

    /// Begins anew with these open intents, in one step; what was there before is kept aside if it was damaged.
    async fn begin(&self, binding: Binding, mark: u64, intents: Vec<Intent>) -> Result<()>;

    /// Proves that it can be written, after making it anew where an earlier write failed.
    async fn check(&self) -> Result<()>;

    /// Flushes and closes; further calls fail.
    async fn close(&self);
}
