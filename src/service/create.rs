//! Accepting grants.
//!
//! Owns the order of creation: repeat, policy, look-ups, one durable write, a signal. Never gives access itself,
//! and never loses a grant that was accepted because its caller went away.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{
    ACTIVATION_ALLOWANCE, Certainty, Grant, GrantState, GrantedAssignment, Holding,
};
use crate::domain::ids::{CallerName, GrantId, IntegrationName, RequestId};
use crate::domain::law::Matter;
use crate::domain::member::{Due, DueKind, Subject};
use crate::domain::request::{Fingerprint, GrantRequest, Principal};
use crate::domain::ttl::Ttl;
use crate::policy;
use crate::ports::ledger::{Accept, Accepted, LedgerError, RequestRecord};
use crate::ports::provider::Priority;

use super::error::{Result, ServiceError};
use super::law::asked;
use super::resolve::{Resolved, role_and_targets};
use super::vouch::{self, Vouched, Vouchers};
use super::{ATTEMPTS, Integration, Service, member_key};

/// Pause between looks at a grant that is waited for, so that a busy ledger does not make every waiter busy.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What a caller asks for, as values, with the role still as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantAsk {
    /// Which integration; the only one when absent.
    pub integration: Option<IntegrationName>,
    /// Who receives access.
    pub beneficiary: Principal,
    /// Who asked, as told by the caller; may be empty.
    pub requester: String,
    /// Why; may be empty.
    pub justification: String,
    /// Canonical role id or short form.
    pub role: String,
    /// Where; repeated targets count once.
    pub targets: Vec<Target>,
    /// Stack roles that go with each target.
    pub application_roles: ApplicationRoles,
    /// How long, counted from verified access.
    pub duration: Ttl,
    /// Not before this instant.
    pub starts_at: Option<Timestamp>,
    /// Hard end.
    pub not_after: Option<Timestamp>,
    /// Whether someone who is not yet a member may be invited.
    pub invite: bool,
}

/// When to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As soon as the grant is durable.
    Accepted,
    /// When it is active or on its way out, or at this instant: with the grant as it stands then.
    Active {
        /// When to answer at the latest.
        until: Instant,
    },
}

/// An accepted grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedGrant {
    /// The grant as it stands.
    pub grant: Grant,
    /// Whether its request had been accepted before.
    pub replayed: bool,
    /// How late its removal may become, where that was forecast to be more than the bound.
    pub predicted_lateness: Option<TimeDelta>,
    /// What else the caller should know of this integration, in words.
    pub warnings: Vec<String>,
}

impl Service {
    /// Accepts a grant, or answers the one that this request became before.
    ///
    /// # Errors
    /// Every [`ServiceError`] about requests, members, resources, policy, limits, upstream and ledger. Nothing is
    /// durable then, except that [`LedgerError::CommitUnknown`] may leave an accepted grant: repeat the call.
    pub async fn create_grant(
        &self,
        caller: impl Into<Caller>,
        request_id: RequestId,
        ask: GrantAsk,
        wait: Wait,
    ) -> Result<CreatedGrant> {
        self.create_grant_vouched(caller, request_id, ask, Vouchers::default(), wait)
            .await
    }

    /// The same with approvals, or by an emergency token.
    ///
    /// # Errors
    /// The same, and [`ServiceError::Voucher`] when one of them is not taken.
    pub async fn create_grant_vouched(
        &self,
        caller: impl Into<Caller>,
        request_id: RequestId,
        ask: GrantAsk,
        vouchers: Vouchers,
        wait: Wait,
    ) -> Result<CreatedGrant> {
        let caller = &caller.into();
        let integration = self.integration(ask.integration.as_ref())?;
        let subject = Some(ask.beneficiary.to_string());
        let request = request(&caller.name, request_id, integration, ask)?;
        let result = self.accept(caller, integration, request, &vouchers).await;
        let mut created = self
            .audited(
                "create_grant",
                &caller.name,
                Some(&integration.name),
                subject,
                result,
            )
            .await?;
        if let Wait::Active { until } = wait {
            created.grant = self.wait_settled(created.grant, until).await?;
        }
        Ok(created)
    }

    async fn accept(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: GrantRequest,
        vouchers: &Vouchers,
    ) -> Result<CreatedGrant> {
        let fingerprint = request.fingerprint();
        let repeat = (request.caller.clone(), request.request_id.clone());
        // Where nobody has to be asked who that is, the ledger tells a repeat apart while it writes: one question less.
        // Whatever else is in the way of a new grant is not in the way of a repeat.
        let is_known = integration
            .members
            .get(&request.beneficiary, self.clock.since_boot())
            .is_some();
        if !is_known && let Some(replayed) = self.replay(integration, &repeat, fingerprint).await? {
            return Ok(replayed);
        }
        match self
            .accept_new(caller, integration, request, fingerprint, vouchers)
            .await
        {
            Err(error) if is_known => self
                .replay(integration, &repeat, fingerprint)
                .await?
                .ok_or(error),
            answer => answer,
        }
    }

    async fn accept_new(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: GrantRequest,
        fingerprint: Fingerprint,
        vouchers: &Vouchers,
    ) -> Result<CreatedGrant> {
        self.check_hold(integration)?;
        let vouched = self.vouch(caller, &request, vouchers)?;
        let (subject, policies) = self.admit(caller, integration, &request, &vouched).await?;
        self.check_skew(integration)?;
        // Held until the grant is durable: a drain that begins now waits for it and then sees it.
        let draining = integration.draining.read().await;
        if *draining {
            return Err(ServiceError::Draining);
        }
        // What is forecast counts for the next one from here on, recorded or not.
        let end = self.expected_end(&request, &subject);
        let (predicted_lateness, _reserved) = self.forecast(integration, end).await?;
        let accept = self.prepare(request, fingerprint, subject, policies, vouched);
        let (key, due) = (member_key(&accept.grant), accept.due);
        for _ in 0..ATTEMPTS {
            match self.ledger.accept(accept.clone()).await {
                Ok(Accepted::Created(grant)) => {
                    self.wake.wake(&key, due);
                    tracing::info!(
                        grant.id = %grant.id,
                        grant.state = grant.state.name(),
                        integration = %grant.integration,
                        "Grant accepted"
                    );
                    self.alarm(&grant);
                    return Ok(CreatedGrant {
                        grant,
                        replayed: false,
                        predicted_lateness,
                        warnings: integration.warnings(),
                    });
                }
                Ok(Accepted::Replayed(grant)) => {
                    return Ok(CreatedGrant {
                        grant,
                        replayed: true,
                        predicted_lateness: None,
                        warnings: integration.warnings(),
                    });
                }
                Ok(Accepted::Mismatch) => return Err(ServiceError::RequestIdReused),
                Ok(Accepted::Tombstoned) => return Err(ServiceError::RequestClosed),
                Ok(Accepted::TokenUsed(token)) => {
                    return Err(self.used_before(&accept.grant, &token));
                }
                // Accepting is idempotent by request id: asking again tells whether it was recorded.
                Err(LedgerError::Conflict { .. } | LedgerError::CommitUnknown { .. }) => {
                    tokio::task::yield_now().await;
                }
                Err(
                    error @ (LedgerError::Unavailable { .. }
                    | LedgerError::Corrupt { .. }
                    | LedgerError::OrganizationTaken { .. }),
                ) => return Err(error.into()),
            }
        }
        Err(ServiceError::Contended)
    }

    /// The answer to a request that was seen before, without asking anybody else.
    pub(super) async fn replay(
        &self,
        integration: &Integration,
        (caller, request_id): &(CallerName, RequestId),
        fingerprint: Fingerprint,
    ) -> Result<Option<CreatedGrant>> {
        let record = self.ledger.find_request(caller, request_id).await?;
        match record {
            None => Ok(None),
            Some(RequestRecord::Grant {
                id,
                fingerprint: before,
            }) if before == fingerprint => {
                let grant = self
                    .ledger
                    .grant(id)
                    .await?
                    .ok_or(ServiceError::UnknownGrant)?;
                Ok(Some(CreatedGrant {
                    grant,
                    replayed: true,
                    predicted_lateness: None,
                    warnings: integration.warnings(),
                }))
            }
            Some(RequestRecord::Grant { .. } | RequestRecord::Done { .. }) => {
                Err(ServiceError::RequestIdReused)
            }
            Some(RequestRecord::Tombstone) => Err(ServiceError::RequestClosed),
        }
    }

    /// Decides whether a request may be granted, to whom, and by which policies. Changes nothing.
    async fn admit(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: &GrantRequest,
        vouched: &Vouched,
    ) -> Result<(Subject, Vec<String>)> {
        self.check_rules(caller, request)?;
        let resolved = self
            // An accept is answered also while removals take the whole budget: the read is one that proves something.
            .resolve_member(integration, &request.beneficiary, Priority::Verify)
            .await?;
        let subject = subject(request, resolved)?;
        vouched.check_subject(&subject)?;
        self.check_targets(integration, &request.targets).await?;
        let policies = self
            .check_law(caller, integration, request, &subject, vouched)
            .await?;
        self.check_key(integration, request, &subject)?;
        Ok((subject, policies))
    }

    pub(super) fn check_rules(&self, caller: &Caller, request: &GrantRequest) -> Result<()> {
        let now = self.clock.now();
        policy::decide(request, &self.rules, now)
            .into_result()
            .map_err(|refusal| {
                self.denied(caller, &request.integration, refusal, || {
                    Matter::Create(asked(request, now))
                })
            })?;
        if request.invite && matches!(request.beneficiary, Principal::User(_)) {
            return Err(ServiceError::invalid(
                "spec.invite",
                "an invitation needs the e-mail address of the beneficiary",
            ));
        }
        Ok(())
    }

    /// No grant may outlive the key that has to take it away.
    pub(super) fn check_key(
        &self,
        integration: &Integration,
        request: &GrantRequest,
        subject: &Subject,
    ) -> Result<()> {
        let Some(expires_at) = integration.provider.key_status().expires_at else {
            return Ok(());
        };
        let now = self.clock.now();
        let begins = match subject {
            Subject::Member(_) => now,
            Subject::Invitee(_) => now + self.settings.invitation_ttl,
        };
        let begins = request.starts_at.unwrap_or(begins).max(begins);
        let ends = begins + request.duration.delta() + ACTIVATION_ALLOWANCE;
        let ends = request.not_after.map_or(ends, |hard| hard.min(ends));
        if ends >= expires_at {
            return Err(ServiceError::KeyExpires { expires_at });
        }
        Ok(())
    }

    fn prepare(
        &self,
        request: GrantRequest,
        fingerprint: Fingerprint,
        subject: Subject,
        policies: Vec<String>,
        vouched: Vouched,
    ) -> Accept {
        let now = self.clock.now();
        let assignments = request.assignments();
        let kinds = vouched.events();
        let GrantRequest {
            caller,
            request_id,
            integration,
            beneficiary,
            requester,
            justification,
            role: _,
            targets: _,
            application_roles: _,
            duration,
            starts_at,
            not_after,
            invite: _,
        } = request;
        let state = match (&subject, starts_at) {
            (Subject::Invitee(_), _) => GrantState::AwaitingMember {
                invited_at: now,
                lapses_at: now + self.settings.invitation_ttl,
            },
            (Subject::Member(_), Some(starts_at)) if starts_at > now => {
                GrantState::Scheduled { starts_at }
            }
            (Subject::Member(_), _) => GrantState::Activating {
                since: now,
                must_end_by: None,
            },
        };
        let due_at = match &state {
            GrantState::Scheduled { starts_at } => *starts_at,
            GrantState::AwaitingMember { .. }
            | GrantState::Activating { .. }
            | GrantState::Active { .. }
            | GrantState::Revoking { .. }
            | GrantState::Ended { .. } => now,
        };
        let grant = Grant {
            id: GrantId::new(now, self.clock.entropy()),
            integration,
            subject,
            caller,
            request_id,
            beneficiary: beneficiary.to_string(),
            requester,
            justification,
            assignments: assignments
                .into_iter()
                .map(|assignment| GrantedAssignment {
                    assignment,
                    holding: Holding::Undecided,
                })
                .collect(),
            duration,
            starts_at,
            not_after,
            created_at: now,
            state,
            version: 1,
            certainty: Certainty::Unknown,
            externally_modified: false,
            invited: false,
            attempts: 0,
            last_error: None,
            verified_at: None,
            removal_sent_at: None,
            authority: vouched.boxed(),
        };
        let audit = AuditEvent::grant(
            now,
            &grant,
            EventKind::GrantAccepted {
                state: grant.state.name().to_owned(),
                assignments: grant
                    .assignments
                    .iter()
                    .map(|held| held.assignment.to_string())
                    .collect(),
                duration_s: grant.duration.seconds(),
                requester: grant.requester.clone(),
                justification: grant.justification.clone(),
                policies,
            },
        );
        let due = Due {
            at: due_at,
            kind: DueKind::Grant,
            weight: grant.weight(),
        };
        let audit = std::iter::once(audit)
            .chain(vouch::events(&grant, kinds))
            .collect();
        let latest_start = grant.starts_at.map_or(now, |start| start.max(now));
        Accept {
            remember_until: latest_start
                + self.settings.invitation_ttl
                + self.rules.max_total
                + self.settings.remember_requests,
            grant,
            fingerprint,
            due,
            audit,
        }
    }

    /// The grant once it is neither waiting for upstream nor before the instant, whichever comes first.
    async fn wait_settled(&self, mut grant: Grant, until: Instant) -> Result<Grant> {
        let mut changes = self.ledger.changes();
        while matches!(grant.state, GrantState::Activating { .. }) {
            let changed = async {
                let changed = changes.changed().await;
                tokio::time::sleep(LOOK_EVERY).await;
                changed
            };
            match tokio::time::timeout_at(until, changed).await {
                Ok(Ok(())) => {}
                // Out of time, or the ledger is closing: the grant is safe, so answer what is known.
                Ok(Err(_)) | Err(_) => break,
            }
            if let Some(now) = self.ledger.grant(grant.id).await? {
                grant = now;
            }
        }
        Ok(grant)
    }
}

/// Completes an ask to a request, as far as that needs nobody else.
pub(super) fn request(
    caller: &CallerName,
    request_id: RequestId,
    integration: &Integration,
    ask: GrantAsk,
) -> Result<GrantRequest> {
    let GrantAsk {
        integration: _,
        beneficiary,
        requester,
        justification,
        role,
        targets,
        application_roles,
        duration,
        starts_at,
        not_after,
        invite,
    } = ask;
    let (role, targets) = role_and_targets(&role, targets)?;
    Ok(GrantRequest {
        caller: caller.clone(),
        request_id,
        integration: integration.name.clone(),
        beneficiary,
        requester,
        justification,
        role,
        targets,
        application_roles,
        duration,
        starts_at,
        not_after,
        invite,
    })
}

/// Whom the grant is for, given who the beneficiary turned out to be.
pub(super) fn subject(request: &GrantRequest, resolved: Resolved) -> Result<Subject> {
    match (resolved, &request.beneficiary) {
        (Resolved::Member(user), _) => Ok(Subject::Member(user)),
        (Resolved::Nobody, Principal::Email(email)) if request.invite => {
            Ok(Subject::Invitee(email.clone()))
        }
        (Resolved::Nobody, Principal::Email(_)) => Err(ServiceError::NotAMember {
            remedy: "ask for an invitation with the grant (`invite`, on the command line --invite), or have them join first",
        }),
        (Resolved::Nobody, Principal::User(_)) => Err(ServiceError::NotAMember {
            remedy: "the list of members shows who is; to invite somebody name the e-mail address",
        }),
    }
}
