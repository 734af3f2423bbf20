//! Moving the end of active grants later.
//!
//! Owns extension as one compare-and-swap on an active grant. Never revives a grant whose end has come: once a
//! revocation is committed, removal wins.

use chrono::TimeDelta;

use crate::domain::asked::Asked;
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{ACTIVATION_ALLOWANCE, Grant, GrantState, InvalidTransition};
use crate::domain::ids::{GrantId, RequestId};
use crate::domain::law::Matter;
use crate::domain::ttl::Ttl;
use crate::policy;
use crate::ports::ledger::{MemberCommit, RequestRecord};

use super::error::{Result, ServiceError};
use super::law::prolonged;
use super::{ATTEMPTS, Service, actor, fingerprint, member_key};

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The caller's idempotency key.
    pub request_id: RequestId,
    /// Which grant.
    pub grant_id: GrantId,
    /// By how long.
    pub by: Ttl,
    /// Who asked, as told by the caller; may be empty.
    pub requester: String,
    /// Why; may be empty.
    pub reason: String,
}

/// An extended grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// The grant as it stands.
    pub grant: Grant,
    /// How late its removal may become, where that was forecast to be more than the bound.
    pub predicted_lateness: Option<TimeDelta>,
}

impl Service {
    /// Extends an active grant of the caller, once for each request id.
    ///
    /// # Errors
    /// [`ServiceError::UnknownGrant`], [`ServiceError::State`] once its end has come, [`ServiceError::Policy`],
    /// [`ServiceError::RequestIdReused`], [`ServiceError::KeyExpires`], [`ServiceError::OwnerOnly`] shortly before its
    /// end at another replica than the owner, and failures of the ledger.
    pub async fn extend_grant(
        &self,
        caller: impl Into<Caller>,
        extension: Extension,
    ) -> Result<Grant> {
        let extended = self.extend_with_forecast(caller, extension).await?;
        Ok(extended.grant)
    }

    /// Like [`Self::extend_grant`]; answers as well how late the new end may be.
    ///
    /// # Errors
    /// The same, and [`super::ServiceError::TooLate`] where policy refuses an end that cannot be kept.
    pub async fn extend_with_forecast(
        &self,
        caller: impl Into<Caller>,
        extension: Extension,
    ) -> Result<Extended> {
        self.extend_vouched(caller, extension, Vec::new()).await
    }

    /// Like [`Self::extend_with_forecast`], with approvals of this very extension.
    ///
    /// # Errors
    /// The same, [`super::ServiceError::Voucher`] when an approval is not taken, and [`super::ServiceError::Unfit`] for
    /// a grant that an emergency token opened.
    pub async fn extend_vouched(
        &self,
        caller: impl Into<Caller>,
        extension: Extension,
        approvals: Vec<String>,
    ) -> Result<Extended> {
        let caller = &caller.into();
        let mut predicted_lateness = None;
        let result = self
            .try_extend(caller, extension, &approvals, &mut predicted_lateness)
            .await;
        let grant = self
            .audited("extend_grant", &caller.name, None, None, result)
            .await?;
        Ok(Extended {
            grant,
            predicted_lateness,
        })
    }

    async fn try_extend(
        &self,
        caller: &Caller,
        extension: Extension,
        approvals: &[String],
        predicted_lateness: &mut Option<TimeDelta>,
    ) -> Result<Grant> {
        let Extension {
            request_id,
            grant_id,
            by,
            requester,
            reason,
        } = extension;
        let body = fingerprint(&[
            "extend",
            &grant_id.to_string(),
            &by.seconds().to_string(),
            &requester,
            &reason,
        ]);
        let by_whom = actor(requester.clone(), &caller.name);
        for _ in 0..ATTEMPTS {
            // Looked up in every round: a rival with the same request id may have won the last one.
            match self.ledger.find_request(&caller.name, &request_id).await? {
                None => {}
                Some(RequestRecord::Done { fingerprint, .. }) if fingerprint == body => {
                    return self.own_grant(&caller.name, grant_id).await;
                }
                Some(RequestRecord::Done { .. } | RequestRecord::Grant { .. }) => {
                    return Err(ServiceError::RequestIdReused);
                }
                Some(RequestRecord::Tombstone) => return Err(ServiceError::RequestClosed),
            }
            let seen = self.own_grant(&caller.name, grant_id).await?;
            let integration = self.integration(Some(&seen.integration))?;
            // Before the time is asked for: whoever removes at this end refrains from now on, or has begun by then.
            let mut writing = self.deciding(integration, &member_key(&seen));
            let mut record = self.ledger.member(&member_key(&seen)).await?;
            let now = self.clock.now();
            let Some(grant) = record.grants.iter_mut().find(|grant| grant.id == grant_id) else {
                if seen.state.is_ended() {
                    return Err(refused(&seen));
                }
                // It moved to another member since it was loaded.
                tokio::task::yield_now().await;
                continue;
            };
            let GrantState::Active { expires_at, .. } = grant.state else {
                return Err(refused(grant));
            };
            let asked = Asked::extend(&request_id, grant_id, by, &requester, &reason);
            let vouched = self.vouch_extension(grant, &asked, &requester, approvals)?;
            let gain = policy::decide_extension(grant, by, &self.rules).map_err(|refusal| {
                self.denied(caller, &integration.name, refusal, || {
                    Matter::Extend(prolonged(grant, by, &requester, !reason.trim().is_empty()))
                })
            })?;
            let policies = self
                .check_extension(
                    caller,
                    integration,
                    grant,
                    gain,
                    &requester,
                    !reason.trim().is_empty(),
                    &vouched,
                )
                .await?;
            let from = expires_at;
            let end = grant.ends_at().unwrap_or(from);
            let to = grant.extend(gain, now)?;
            self.check_hold(integration)?;
            self.check_skew(integration)?;
            if let Some(key_end) = integration.provider.key_status().expires_at
                && to + ACTIVATION_ALLOWANCE >= key_end
            {
                return Err(ServiceError::KeyExpires {
                    expires_at: key_end,
                });
            }
            let (late, _reserved) = self.forecast(integration, Some(to)).await?;
            *predicted_lateness = late;
            grant.version += 1;
            let approved = vouched.events();
            if let Some(more) = vouched.boxed() {
                let authority = grant.authority.get_or_insert_default();
                authority.approvals.extend(more.approvals);
            }
            let event = AuditEvent::grant(
                now,
                grant,
                EventKind::GrantExtended {
                    from,
                    to,
                    by: by_whom.clone(),
                    reason: reason.clone(),
                    policies,
                },
            );
            let mut audit = vec![event];
            audit.extend(
                approved
                    .into_iter()
                    .map(|kind| AuditEvent::grant(now, grant, kind)),
            );
            let wanted: Vec<_> = grant
                .assignments
                .iter()
                .map(|held| held.assignment.clone())
                .collect();
            for assignment in &wanted {
                if let Some(owned) = record.owned_mut(assignment) {
                    owned.must_end_by = owned.must_end_by.map(|bound| bound.max(to));
                }
            }
            let extended = integration.hold.clone().map(|hold| (hold, record.clone()));
            // The due time stays: the pass at the old end finds nothing to remove and looks further.
            let committed = self
                .commit_end(
                    integration,
                    MemberCommit {
                        record,
                        audit,
                        request: Some((
                            caller.name.clone(),
                            request_id.clone(),
                            RequestRecord::Done {
                                fingerprint: body,
                                grant: Some(grant_id),
                            },
                            to + self.settings.remember_requests,
                        )),
                    },
                    end,
                    &mut writing,
                )
                .await?;
            if committed {
                if let Some((hold, record)) = extended {
                    hold.note_extension(&record, &wanted).await;
                }
                tracing::info!(grant.id = %grant_id, "Grant extended");
                return self.own_grant(&caller.name, grant_id).await;
            }
        }
        Err(ServiceError::Contended)
    }
}

fn refused(grant: &Grant) -> ServiceError {
    ServiceError::State(InvalidTransition {
        action: "extend",
        from: grant.state.name(),
    })
}
