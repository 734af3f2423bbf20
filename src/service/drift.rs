//! Where Elastic Cloud differs from the ledger, for operators, and their word on repairs that wait.
//!
//! Owns the list of open differences and the confirmation of held repairs. Never repairs anything itself: members
//! are marked and get a pass.

use crate::domain::drift::{DriftAction, DriftKind, OpenDrift};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::{CallerName, IntegrationName, UserId};
use crate::domain::member::{Due, DueKind, MemberKey, Subject};
use crate::ports::ledger::{MEMBERS_AT_A_TIME, MemberCommit, Page};

use super::error::{Result, ServiceError};
use super::{ATTEMPTS, Service, actor};

/// One open difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDrift {
    /// Whose access.
    pub user_id: UserId,
    /// What differs, since when, and what is done about it.
    pub drift: OpenDrift,
}

impl Service {
    /// Open differences in order of user id. The cursor is a user id; a member's own are never torn apart, so a page
    /// may hold a few more than `limit`.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`] and failures of the ledger.
    pub async fn list_drift(
        &self,
        integration: Option<&IntegrationName>,
        mut after: Option<UserId>,
        limit: usize,
    ) -> Result<Page<MemberDrift, UserId>> {
        let integration = self.integration(integration)?;
        let mut items = Vec::new();
        loop {
            let page = self
                .ledger
                .members(&integration.name, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in page.items {
                let Subject::Member(user_id) = record.key.subject else {
                    continue;
                };
                items.extend(record.drifts.into_iter().map(|drift| MemberDrift {
                    user_id: user_id.clone(),
                    drift,
                }));
                if items.len() >= limit {
                    let next = Some(user_id);
                    return Ok(Page { items, next });
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(Page { items, next: None });
            }
        }
    }

    /// Lets the repairs go on that wait because too many members lost roles at once. Answers how many members had
    /// waited.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], [`ServiceError::Contended`] and failures of the ledger: a repeat goes on
    /// where it stopped.
    pub async fn confirm_reapply(
        &self,
        caller: &CallerName,
        integration: Option<&IntegrationName>,
        requester: String,
        reason: String,
    ) -> Result<u32> {
        let integration = self.integration(integration)?;
        let mut after: Option<UserId> = None;
        let mut members = 0_u32;
        loop {
            let page = self
                .ledger
                .members(&integration.name, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in &page.items {
                if record.drifts.iter().any(is_held) && self.confirm_member(&record.key).await? {
                    members += 1;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let by = actor(requester, caller);
        let event = EventKind::Breaker {
            action: "confirmed".to_owned(),
            members: u64::from(members),
            by,
            reason,
        };
        let mut event = AuditEvent::integration(self.clock.now(), &integration.name, event);
        event.caller = Some(caller.clone());
        self.ledger.append(vec![event]).await?;
        Ok(members)
    }

    async fn confirm_member(&self, key: &MemberKey) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let mut record = self.ledger.member(key).await?;
            let now = self.clock.now();
            let mut audit = Vec::new();
            for open in record.drifts.iter_mut().filter(|open| is_held(open)) {
                open.action = DriftAction::Confirmed;
                let event = EventKind::Drift {
                    kind: DriftKind::Missing.as_str().to_owned(),
                    assignment: open.assignment.to_string(),
                    action: open.action.words().to_owned(),
                };
                audit.push(AuditEvent::member(now, key, event));
            }
            if audit.is_empty() {
                return Ok(false);
            }
            let due = Due {
                at: now,
                kind: DueKind::Look,
                weight: 0,
            };
            record.check_at = Some(now);
            record.due = Some(record.due.map_or(due, |earlier| earlier.min(due)));
            let stored = self
                .try_commit(MemberCommit {
                    record,
                    audit,
                    request: None,
                })
                .await?;
            if stored {
                self.wake.wake(key, due);
                return Ok(true);
            }
        }
        Err(ServiceError::Contended)
    }
}

fn is_held(open: &OpenDrift) -> bool {
    matches!(open.action, DriftAction::Held { .. })
}
