//! Keeping lists fresh ahead of need.
//!
//! Owns the periodic re-reading of deployments and projects, so that a grant at 3 a.m. finds them in memory. Never
//! decides anything on them.

use crate::domain::assignment::ProjectType;
use crate::domain::event::{AuditEvent, EventKind};
use crate::ports::provider::{ReadError, ReadResult};

use super::{Integration, Service};

impl Service {
    /// Reads deployments and projects of every integration again. Answers what was read, in a few words.
    ///
    /// # Errors
    /// The code of the first read that failed.
    pub async fn refresh_directory(&self) -> Result<String, String> {
        let (mut deployments, mut projects) = (0, 0);
        for integration in self.integrations.values() {
            let code = |error: ReadError| error.code().to_owned();
            deployments += self
                .deployments_of(integration, true)
                .await
                .map_err(code)?
                .items
                .len();
            for kind in ProjectType::ALL {
                projects += self
                    .projects_of(integration, kind, true)
                    .await
                    .map_err(code)?
                    .items
                    .len();
            }
        }
        Ok(format!("{deployments} deployments, {projects} projects"))
    }

    /// Leaves an audit event behind a read that belongs to no other change, and hands its result on.
    pub(super) async fn noted<T>(
        &self,
        integration: &Integration,
        read: ReadResult<T>,
    ) -> std::result::Result<T, ReadError> {
        let (result, outcome, evidence) = match read {
            Ok((value, evidence)) => (Ok(value), "done", evidence),
            Err((error, evidence)) => (Err(error), "refused", evidence),
        };
        let kind = EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence,
        };
        let event = AuditEvent::integration(self.clock.now(), &integration.name, kind);
        if let Err(error) = self.ledger.append(vec![event]).await {
            tracing::warn!(integration = %integration.name, code = error.code(), "Call left no audit event");
        }
        result
    }
}
