//! Keeping lists fresh ahead of need.
//!
//! Owns the periodic re-reading of deployments and projects, so that a grant at 3 a.m. finds them in memory, and
//! that a removal which one of them refused is tried again when it changes. Never decides about access on them.

use std::collections::BTreeMap;

use crate::domain::assignment::{ProjectType, Target};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::member::{Due, DueKind};
use crate::ports::ledger::MemberCommit;
use crate::ports::provider::{ReadError, ReadResult};

use super::error::Result;
use super::resolve::index;
use super::{ATTEMPTS, Integration, Service};

impl Service {
    /// Reads deployments and projects of every integration again. Answers what was read, in a few words.
    ///
    /// # Errors
    /// The code of the first read that failed.
    pub async fn refresh_directory(&self) -> std::result::Result<String, String> {
        let (mut deployments, mut projects) = (0, 0);
        for integration in self.integrations.values() {
            let code = |error: ReadError| error.code().to_owned();
            let mut changed = Vec::new();
            let before = integration.deployments.last();
            let read = self.deployments_of(integration, true).await.map_err(code)?;
            deployments += read.items.len();
            if let Some(before) = before {
                let ids = news(&before.items, &read.items);
                changed.extend(ids.map(|id| Target::Deployment { id: id.clone() }));
            }
            for kind in ProjectType::ALL {
                let before = integration.projects[index(kind)].last();
                let read = self
                    .projects_of(integration, kind, true)
                    .await
                    .map_err(code)?;
                projects += read.items.len();
                if let Some(before) = before {
                    let ids = news(&before.items, &read.items);
                    changed.extend(ids.map(|id| Target::Project {
                        project_type: kind,
                        id: id.clone(),
                    }));
                }
            }
            for target in &changed {
                self.wake_blocked(integration, target)
                    .await
                    .map_err(|error| error.code().to_owned())?;
            }
        }
        Ok(format!("{deployments} deployments, {projects} projects"))
    }

    /// A deployment or project appeared or changed: removals that it refused are tried now, not at the end of their
    /// pause.
    async fn wake_blocked(&self, integration: &Integration, target: &Target) -> Result<()> {
        let keys = self
            .ledger
            .subjects(&integration.name, Some(target))
            .await?;
        for key in keys {
            for _ in 0..ATTEMPTS {
                let mut record = self.ledger.member(&key).await?;
                let now = self.clock.now();
                let mut weight = None;
                for row in &mut record.owned {
                    let Some(blocked) = row.blocked.as_mut() else {
                        continue;
                    };
                    if row.assignment.target == *target && blocked.retry_at > now {
                        blocked.retry_at = now;
                        weight = weight.max(Some(row.assignment.weight()));
                    }
                }
                let Some(weight) = weight else { break };
                let due = Due {
                    at: now,
                    kind: DueKind::Remove,
                    weight,
                };
                record.due = Some(record.due.map_or(due, |earlier| earlier.min(due)));
                let stored = self
                    .try_commit(MemberCommit {
                        record,
                        audit: Vec::new(),
                        request: None,
                    })
                    .await?;
                if stored {
                    tracing::info!(member = %key, %target, "Blocked removal is tried again: its target changed");
                    self.wake.wake(&key, due);
                    break;
                }
            }
        }
        Ok(())
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

/// What is new in a list, or other than before.
fn news<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    now: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    now.iter()
        .filter(|(id, item)| before.get(id) != Some(item))
        .map(|(id, _)| id)
}
