//! Why the ledger could not do something, and what that means for who asked.
//!
//! Owns the difference between nothing happened, not known, and never try again. Never shows a cause to callers.

use crate::domain::ids::{IntegrationName, OrganizationId};
use crate::domain::member::MemberKey;

/// Why the ledger could not do it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else changed the member since it was loaded: load again and decide again.
    #[error("member {key} was changed meanwhile")]
    Conflict {
        /// Which member.
        key: MemberKey,
    },
    /// The ledger cannot be written: disk full, read-only, away. Nothing of the transaction happened.
    #[error("{action}: the ledger is unavailable")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// The cause; for our log only.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whether the transaction was committed is not known: read back before deciding.
    #[error("{action}: the outcome of the commit is unknown")]
    CommitUnknown {
        /// What was being done.
        action: &'static str,
        /// The cause; for our log only.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row is not what any release wrote: refuse rather than guess.
    #[error("{action}: the ledger holds a record that cannot be read")]
    Corrupt {
        /// What was being done.
        action: &'static str,
        /// The cause; for our log only.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another integration already claims this organization.
    #[error("organization {organization} already belongs to integration {owner}")]
    OrganizationTaken {
        /// The organization.
        organization: OrganizationId,
        /// Who has it.
        owner: IntegrationName,
    },
}

/// There is no room left where the ledger stands: a cause of [`LedgerError::Unavailable`].
#[derive(Debug, thiserror::Error)]
#[error("the volume of the ledger is full: free space on it or make it larger")]
pub struct DiskFull {
    /// What the store said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The database only reads: a cause of [`LedgerError::Unavailable`].
#[derive(Debug, thiserror::Error)]
#[error("the database only reads: it is a stand-by, or was set to read only")]
pub struct ReadOnly {
    /// What the store said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The write was bound to a claim that is over: a cause of [`LedgerError::Unavailable`]. Whoever meets it stops; it
/// must not act upstream either.
#[derive(Debug, thiserror::Error)]
#[error(
    "another replica may own integration {integration} now: the claim of epoch {epoch} is over"
)]
pub struct NotOwner {
    /// The integration.
    pub integration: String,
    /// Epoch of the claim; 0 when there was none.
    pub epoch: u64,
}

impl LedgerError {
    /// Whether the writer was not the owner any more.
    #[must_use]
    pub fn is_not_owner(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.is::<NotOwner>())
    }

    /// Whether the database only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.is::<ReadOnly>())
    }

    /// Whether the volume of the ledger is full, so that waiting alone will not help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.is::<DiskFull>())
    }

    /// Stable code for metrics and audit.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } if self.is_full() => "ledger_full",
            Self::Unavailable { .. } if self.is_not_owner() => "not_owner",
            Self::Unavailable { .. } if self.is_read_only() => "ledger_read_only",
            Self::Conflict { .. } => "ledger_conflict",
            Self::Unavailable { .. } => "ledger_unavailable",
            Self::CommitUnknown { .. } => "ledger_commit_unknown",
            Self::Corrupt { .. } => "ledger_corrupt",
            Self::OrganizationTaken { .. } => "organization_taken",
        }
    }
}

/// Short for the results of this port.
pub type Result<T> = std::result::Result<T, LedgerError>;
