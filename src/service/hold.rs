//! Holds and clocks: what is refused while the connector cannot be sure.
//!
//! Owns the refusal of grants and extensions in a hold, without a witness, and with a wrong clock; showing and
//! releasing a hold. Never refuses to take access away.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::domain::ids::{CallerName, IntegrationName};
use crate::ports::ledger::HoldRecord;
use crate::reconcile::Hold;
use crate::reconcile::hold::{Closed, ReleaseError};

pub use crate::reconcile::hold::{HeldAction, HeldItem, HoldPlan};

use super::error::{Result, ServiceError};
use super::{Integration, Service, actor};

/// Most items of a plan that one answer shows.
const ITEMS: usize = 1_000;

impl Service {
    /// The same with holds: while an integration is in hold nothing is granted or extended.
    #[must_use]
    pub fn with_holds(mut self, holds: &BTreeMap<IntegrationName, Arc<Hold>>) -> Self {
        for (name, integration) in &mut self.integrations {
            integration.hold = holds.get(name).cloned();
        }
        self
    }

    /// Refuses what would be given while nobody knows what is already.
    pub(super) fn check_hold(&self, integration: &Integration) -> Result<()> {
        match integration.hold.as_ref().and_then(|hold| hold.closed()) {
            None => Ok(()),
            Some(Closed::Held(HoldRecord { since, reasons, .. })) => Err(ServiceError::Held {
                since,
                reasons: reasons.into_iter().map(|reason| reason.code).collect(),
            }),
            Some(Closed::Unwitnessed) => Err(ServiceError::Unwitnessed),
        }
    }

    /// Refuses what would end at the wrong time.
    pub(super) fn check_skew(&self, integration: &Integration) -> Result<()> {
        let Some(skew_ms) = integration.provider.key_status().skew_ms else {
            return Ok(());
        };
        let limit = self.settings.max_skew;
        if TimeDelta::milliseconds(skew_ms).abs() > limit {
            return Err(ServiceError::ClockSkew { skew_ms, limit });
        }
        Ok(())
    }

    /// The hold of an integration with its plan; `None` when it is not in hold.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], and failures of the ledger.
    pub async fn get_hold(
        &self,
        integration: Option<&IntegrationName>,
    ) -> Result<Option<HoldPlan>> {
        let integration = self.integration(integration)?;
        match &integration.hold {
            None => Ok(None),
            Some(hold) => Ok(hold.plan(ITEMS).await?),
        }
    }

    /// Ends a hold: from here on the ledger is taken at its word. Answers whether there was one.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], [`ServiceError::Unwitnessed`] when the witness cannot be made to agree,
    /// [`ServiceError::Unfit`] when it cannot be read and it alone knows what is open, and failures of the ledger; the
    /// hold goes on then.
    pub async fn release_hold(
        &self,
        caller: &CallerName,
        integration: Option<&IntegrationName>,
        requester: String,
        reason: String,
    ) -> Result<bool> {
        let integration = self.integration(integration)?;
        let Some(hold) = &integration.hold else {
            return Ok(false);
        };
        match hold.release(&actor(requester, caller), &reason).await {
            Ok(released) => Ok(released.is_some()),
            Err(ReleaseError::Ledger(error)) => Err(error.into()),
            Err(ReleaseError::Witness(error)) => {
                tracing::error!(integration = %integration.name, error = error.chain(), "Hold was not released");
                Err(ServiceError::Unwitnessed)
            }
            Err(ReleaseError::Unreadable(error)) => {
                tracing::error!(integration = %integration.name, error = error.chain(), "Hold was not released");
                Err(ServiceError::Unfit {
                    code: "witness_unreadable",
                    problem: "the witness cannot be read, and it knows what is ours better than the ledger: put the right one back and start again; or move it away and start again, to take the ledger at its word",
                })
            }
        }
    }
}
