//! Reading grants.
//!
//! Owns that every row is bound to its caller. Never tells a foreign grant from one that does not exist.

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
    pub async fn get_grant(&self, caller: &CallerName, id: GrantId) -> Result<Grant> {
        self.own_grant(caller, id).await
    }

    /// A page of the caller's grants, newest first, at most `limit`, beginning below `before`.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], and failures of the ledger.
    pub async fn list_grants(
        &self,
        caller: &CallerName,
        filter: GrantFilter,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Grant, GrantId>> {
        self.known(&filter)?;
        let filter = GrantFilter {
            caller: Some(caller.clone()),
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
