//! Moving ends, and taking assignments out of what goes at one, where several replicas share the ledger.
//!
//! Owns who may do so: the owner of the organization, and anybody else only for an end beyond the owner's claim. The owner
//! removes at an end that it knows also while the ledger is away, so nobody else may have moved that end meanwhile. Never
//! decides whether an end may be moved at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::domain::member::MemberKey;
use crate::ports::Ledger;
use crate::ports::ledger::{LedgerError, MemberCommit};
use crate::ports::ownership::Standing;
use crate::reconcile::outage::Writing;
use crate::reconcile::{Outage, receipt};

use super::error::{Result, ServiceError};
use super::{Integration, Service};

/// What an integration shares with other replicas.
#[derive(Debug, Clone)]
pub struct Share {
    /// The claim of this process.
    pub standing: Arc<Standing>,
    /// The ledger for what only the owner writes.
    pub ledger: Arc<dyn Ledger>,
    /// What this process removes without the ledger, if anything.
    pub outage: Option<Arc<Outage>>,
}

impl Service {
    /// The same, of which each integration is shared with other replicas.
    #[must_use]
    pub fn with_shares(mut self, mut shares: BTreeMap<IntegrationName, Share>) -> Self {
        for (name, integration) in &mut self.integrations {
            integration.share = shares.remove(name);
        }
        self
    }

    /// From here on nothing is removed on the strength of what was read of the member before.
    pub(super) fn deciding<'a>(
        &self,
        integration: &'a Integration,
        key: &MemberKey,
    ) -> Option<Writing<'a>> {
        let outage = integration.share.as_ref()?.outage.as_ref()?;
        Some(outage.deciding(key, self.clock.since_boot()))
    }

    /// Stores a member in which something does not go at `end` any more; `false` when it has to be loaded and decided
    /// again.
    pub(super) async fn commit_end(
        &self,
        integration: &Integration,
        mut commit: MemberCommit,
        end: Timestamp,
        writing: &mut Option<Writing<'_>>,
    ) -> Result<bool> {
        let Some(share) = &integration.share else {
            return self.try_commit(commit).await;
        };
        receipt::keep(&mut commit.record, &commit.audit);
        let is_owner = share
            .standing
            .covers(self.clock.since_boot(), Duration::ZERO);
        if let Some(writing) = writing {
            writing.begins();
        }
        let committed = if is_owner {
            share.ledger.commit(commit).await
        } else {
            self.ledger.commit_beyond(commit, end).await
        };
        if let Some(writing) = writing {
            writing.ends(&committed);
        }
        match committed {
            Ok(_) => Ok(true),
            // A claim that was lost meanwhile: somebody else owns it now, or nobody.
            Err(error) if error.is_not_owner() && is_owner => {
                tokio::task::yield_now().await;
                Ok(false)
            }
            Err(error) if error.is_not_owner() => Err(ServiceError::OwnerOnly),
            Err(LedgerError::Conflict { .. } | LedgerError::CommitUnknown { .. }) => {
                tokio::task::yield_now().await;
                Ok(false)
            }
            Err(
                error @ (LedgerError::Unavailable { .. }
                | LedgerError::Corrupt { .. }
                | LedgerError::OrganizationTaken { .. }),
            ) => Err(error.into()),
        }
    }
}
