//! Ownership where there is only one process: the ledger is a file that nobody else can open, or memory.
//!
//! Owns nothing but the claim that always stands.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::ids::IntegrationName;
use crate::ports::ownership::{Ownership, Standing};

/// The only process owns everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoleOwnership;

#[async_trait]
impl Ownership for SoleOwnership {
    fn standing(&self, _integration: &IntegrationName) -> Arc<Standing> {
        Arc::new(Standing::sole())
    }

    async fn release(&self, _integration: &IntegrationName) {}
}
