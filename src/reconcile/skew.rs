//! Asking upstream what time it is.
//!
//! Owns one light call whose answer carries a fresh `Date`. Never decides what a difference means.

use chrono::TimeDelta;

use super::pass::Reconciler;
use crate::domain::event::{AuditEvent, EventKind};
use crate::ports::provider::Priority;

impl Reconciler {
    /// Upstream's clock minus ours by a call made now; `None` when it gave no usable answer.
    pub async fn measure_skew(&self) -> Option<TimeDelta> {
        let at = self.clock.now();
        let (answered, outcome, evidence) = match self.provider.organization(Priority::Verify).await
        {
            Ok((_, evidence)) => (true, "done", evidence),
            Err((_, evidence)) => (false, "refused", evidence),
        };
        let event = EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence,
        };
        let audit = vec![AuditEvent::integration(at, &self.integration, event)];
        if let Err(error) = self.ledger.append(audit).await {
            tracing::warn!(integration = %self.integration, code = error.code(), "Look at upstream's clock left no audit event");
        }
        let skew = self.provider.key_status().skew_ms.filter(|_| answered)?;
        Some(TimeDelta::milliseconds(skew))
    }
}
