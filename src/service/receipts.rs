//! Reading receipts.
//!
//! Owns that every receipt is bound to the caller of its grant. Never tells a foreign one from one that does not exist.

use crate::domain::caller::Caller;
use crate::domain::grant::InvalidTransition;
use crate::domain::ids::GrantId;
use crate::domain::receipt::Receipt;
use crate::ports::ledger::{Page, ReceiptCursor, ReceiptFilter};

use super::Service;
use super::error::{Result, ServiceError};

impl Service {
    /// The receipt of one grant of the caller.
    ///
    /// # Errors
    /// [`ServiceError::UnknownGrant`] for unknown and foreign ids alike, [`ServiceError::State`] while the grant has not
    /// ended, and failures of the ledger.
    pub async fn get_receipt(&self, caller: impl Into<Caller>, id: GrantId) -> Result<Receipt> {
        let caller = caller.into();
        self.check_reading(&caller, None, "receipt").await?;
        let receipt = self.ledger.receipt(id).await?;
        if let Some(receipt) = receipt.filter(|receipt| caller.may_read(&receipt.caller)) {
            return Ok(receipt);
        }
        let grant = self.visible_grant(&caller, id).await?;
        if grant.state.is_ended() {
            // It ended before this release wrote receipts.
            return Err(ServiceError::UnknownGrant);
        }
        Err(ServiceError::State(InvalidTransition {
            action: "show the receipt of",
            from: grant.state.name(),
        }))
    }

    /// A page of the caller's receipts, those of the latest ends first, at most `limit`, beginning below `before`.
    ///
    /// # Errors
    /// Failures of the ledger.
    pub async fn list_receipts(
        &self,
        caller: impl Into<Caller>,
        filter: ReceiptFilter,
        before: Option<ReceiptCursor>,
        limit: usize,
    ) -> Result<Page<Receipt, ReceiptCursor>> {
        let caller = caller.into();
        self.check_reading(&caller, filter.integration.as_ref(), "receipts")
            .await?;
        let filter = ReceiptFilter {
            caller: (!caller.reads_all()).then_some(caller.name),
            ..filter
        };
        Ok(self.ledger.list_receipts(&filter, before, limit).await?)
    }
}
