//! Reading grants.
//!
//! Owns that every row is bound to its caller: operators and auditors see all of them, others their own. Never tells a foreign grant from one that does not exist.

use crate::domain::caller::Caller;
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, GrantId};
use crate::ports::ledger::{GrantFilter, Page};

use super::Service;
use super::error::{Result, ServiceError};

impl Service {
    /// One grant of the caller as it stands, ended ones included.
    ///
    /// # Errors
    /// [`ServiceError::UnknownGrant`] for unknown and foreign ids alike, and failures of the ledger.
    pub async fn get_grant(&self, caller: impl Into<Caller>, id: GrantId) -> Result<Grant> {
        let caller = caller.into();
        self.check_reading(&caller, None, "grant").await?;
        self.visible_grant(&caller, id).await
    }

    pub(super) async fn visible_grant(&self, caller: &Caller, id: GrantId) -> Result<Grant> {
        self.ledger
            .grant(id)
            .await?
            .filter(|grant| caller.may_read(&grant.caller))
            .ok_or(ServiceError::UnknownGrant)
    }

    /// A page of the caller's grants, newest first, at most `limit`, beginning below `before`.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], and failures of the ledger.
    pub async fn list_grants(
        &self,
        caller: impl Into<Caller>,
        filter: GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        let caller = caller.into();
        self.known(&filter)?;
        self.check_reading(&caller, filter.integration.as_ref(), "grants")
            .await?;
        let filter = GrantFilter {
            caller: (!caller.reads_all()).then_some(caller.name),
            ..filter
        };
        Ok(self.ledger.list_grants(&filter, before, limit).await?)
    }

    /// Refuses a filter for an integration that is not configured: an empty answer would look like good news.
    pub(super) fn known(&self, filter: &GrantFilter) -> Result<()> {
        match &filter.integration {
            Some(name) => self.integration(Some(name)).map(drop),
            None => Ok(()),
        }
    }

    pub(super) async fn own_grant(&self, caller: &CallerName, id: GrantId) -> Result<Grant> {
        self.ledger
            .grant(id)
            .await?
            .filter(|grant| grant.caller == *caller)
            .ok_or(ServiceError::UnknownGrant)
    }
}
