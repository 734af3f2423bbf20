//! Asking the customer's law.
//!
//! Owns which facts are put before it, and that nothing is done without its answer. Never loosens an answer: what the
//! settings refuse stays refused, whatever the law permits.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::domain::assignment::Target;
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Grant, GrantState};
use crate::domain::ids::IntegrationName;
use crate::domain::law::{Access, Ending, Matter, Question, Reading, Refusal, Verdict, Wants};
use crate::domain::member::Subject;
use crate::domain::request::GrantRequest;
use crate::domain::ttl::Ttl;
use crate::policy;
use crate::ports::Law;

use super::error::{Result, ServiceError};
use super::vouch::Vouched;
use super::{Integration, Service, subject_key};

/// Names of rules that are built in: no law can loosen them, and refusals name them all the same.
const OWN_ROWS: &str = "latchkey.own-rows-only";
const OWN_ORGANIZATION: &str = "latchkey.this-organization-only";
const OWN_IDENTITY: &str = "latchkey.never-itself";
const KEY_LIFE: &str = "latchkey.no-grant-outlives-the-key";
const APPROVALS: &str = "latchkey.approvals-of-this-request-only";
const TOKENS: &str = "latchkey.emergency-tokens-once-and-as-sealed";
pub(super) const ROLES: &str = "latchkey.roles-of-callers";

impl Service {
    /// The same under a law. Without one the settings alone decide.
    #[must_use]
    pub fn with_law(mut self, law: Arc<dyn Law>) -> Self {
        self.law = Some(law);
        self
    }

    /// Writes down that a caller made a call that is not for callers like it.
    pub async fn note_forbidden(&self, caller: &Caller, method: &str) {
        tracing::warn!(caller = %caller.name, method, "A caller made a call that is not for its role");
        self.note_refusal(AuditEvent {
            at: self.clock.now(),
            integration: None,
            subject: None,
            grant_id: None,
            caller: Some(caller.name.clone()),
            kind: EventKind::RequestRefused {
                code: "role_not_allowed".to_owned(),
                operation: method.to_owned(),
                policies: vec![ROLES.to_owned()],
            },
        })
        .await;
    }

    pub(super) async fn note_refusal(&self, event: AuditEvent) {
        if let Err(failure) = self.ledger.append(vec![event]).await {
            tracing::warn!(error = failure.code(), "A refusal left no audit event");
        }
    }

    fn wants(&self) -> Wants {
        self.law.as_ref().map(|law| law.wants()).unwrap_or_default()
    }

    /// Asks the law. Answers the policies that permit.
    fn decide(
        &self,
        caller: &Caller,
        integration: Option<&IntegrationName>,
        matter: Matter,
    ) -> Result<Vec<String>> {
        let Some(law) = &self.law else {
            return Ok(Vec::new());
        };
        let question = Question {
            caller: caller.clone(),
            integration: integration.cloned(),
            now: self.clock.now(),
            matter,
        };
        match law.decide(&question) {
            Verdict::Allowed { policies } => Ok(policies),
            Verdict::Refused(refusal) => Err(ServiceError::Law(Box::new(refusal))),
        }
    }

    /// What the settings refuse, with the policies that would refuse it too.
    pub(super) fn denied(
        &self,
        caller: &Caller,
        integration: &IntegrationName,
        refusal: policy::Refusal,
        matter: impl FnOnce() -> Matter,
    ) -> ServiceError {
        if refusal.kind == policy::Kind::Impossible {
            return refusal.into();
        }
        let policies = match self.decide(caller, Some(integration), matter()) {
            Err(ServiceError::Law(law)) => law.policies,
            Ok(_) | Err(_) => vec![format!("settings.{}", refusal.code)],
        };
        ServiceError::Law(Box::new(Refusal {
            policies,
            code: refusal.code,
            field: Some(refusal.field.to_owned()),
            remedy: refusal.remedy,
        }))
    }

    /// Asks whether a new grant may be given, once it is known to whom and on what.
    pub(super) async fn check_law(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: &GrantRequest,
        subject: &Subject,
        vouched: &Vouched,
    ) -> Result<Vec<String>> {
        if self.law.is_none() {
            return Ok(Vec::new());
        }
        let mut access = asked(request, self.clock.now());
        access.approvers = vouched.approvers();
        if let Subject::Member(user) = subject {
            access.beneficiary_id = Some(user.to_string());
        }
        self.find_out(integration, subject, request.targets.iter(), &mut access)
            .await?;
        let matter = if vouched.is_emergency() {
            Matter::BreakGlass(access)
        } else {
            Matter::Create(access)
        };
        self.decide(caller, Some(&integration.name), matter)
    }

    /// Asks whether an active grant may last longer by so much.
    #[expect(
        clippy::too_many_arguments,
        reason = "the facts of one question, each from elsewhere"
    )]
    pub(super) async fn check_extension(
        &self,
        caller: &Caller,
        integration: &Integration,
        grant: &Grant,
        by: Ttl,
        requester: &str,
        is_justified: bool,
        vouched: &Vouched,
    ) -> Result<Vec<String>> {
        if self.law.is_none() {
            return Ok(Vec::new());
        }
        let mut access = prolonged(grant, by, requester, is_justified);
        access.approvers = vouched.approvers();
        let targets: BTreeSet<Target> = grant
            .assignments
            .iter()
            .map(|held| held.assignment.target.clone())
            .collect();
        if self.wants().tags {
            // What was looked up before may be long gone.
            self.check_targets(integration, &targets).await?;
        }
        self.find_out(integration, &grant.subject, targets.iter(), &mut access)
            .await?;
        self.decide(caller, Some(&integration.name), Matter::Extend(access))
    }

    /// Asks whether access may be ended early.
    pub(super) fn check_ending(
        &self,
        caller: &Caller,
        integration: Option<&IntegrationName>,
        what: &str,
        requester: &str,
    ) -> Result<()> {
        let ending = Ending {
            what: what.to_owned(),
            reaches_others: caller.revokes_all() || what == "everything",
            requester: requester.to_owned(),
        };
        self.decide(caller, integration, Matter::Revoke(ending))
            .map(drop)
    }

    /// Asks whether a caller may look, and writes a refusal down.
    pub(super) async fn check_reading(
        &self,
        caller: &Caller,
        integration: Option<&IntegrationName>,
        what: &'static str,
    ) -> Result<()> {
        let reading = Reading {
            what: what.to_owned(),
            reaches_others: caller.reads_all(),
        };
        let decided = self
            .decide(caller, integration, Matter::Read(reading))
            .map(drop);
        self.audited("read", &caller.name, integration, None, decided)
            .await
    }

    /// Finds out what the law looks at and nobody has looked up yet.
    async fn find_out(
        &self,
        integration: &Integration,
        subject: &Subject,
        targets: impl Iterator<Item = &Target>,
        access: &mut Access,
    ) -> Result<()> {
        let wants = self.wants();
        if wants.tags {
            for target in targets {
                access.tags.extend(tags_of(integration, target)?);
            }
        }
        if wants.current {
            let now = self.clock.now();
            let record = self
                .ledger
                .member(&subject_key(&integration.name, subject.clone()))
                .await?;
            let open = record.grants.iter().filter(|grant| {
                !matches!(
                    grant.state,
                    GrantState::Ended { .. } | GrantState::Revoking { .. }
                ) && grant.ends_at().is_none_or(|end| end > now)
            });
            for grant in open {
                access.current_grants += 1;
                let held = grant.assignments.iter().map(|held| held.assignment.clone());
                access.current.extend(held);
            }
        }
        Ok(())
    }
}

/// The tags of a target that has some of its own; `None` for those that are no single deployment or project.
fn tags_of(integration: &Integration, target: &Target) -> Result<Option<BTreeSet<String>>> {
    let tags = match target {
        Target::Organization | Target::AllDeployments | Target::AllProjects { .. } => {
            return Ok(None);
        }
        Target::Deployment { id } => integration
            .deployments
            .last()
            .and_then(|list| Some(list.items.get(id)?.tags.clone())),
        Target::Project { project_type, id } => integration.projects
            [super::resolve::index(*project_type)]
        .last()
        .and_then(|list| Some(list.items.get(id)?.tags.clone())),
    };
    // A tag that is not known could be the one that forbids.
    let tags = tags.ok_or_else(|| {
        ServiceError::Law(Box::new(Refusal::undecided(vec![
            "latchkey.tags-unknown".to_owned(),
        ])))
    })?;
    Ok(Some(
        tags.into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
    ))
}

/// A request as the law sees it, before anything was looked up. Pure.
pub(super) fn asked(request: &GrantRequest, now: crate::domain::Timestamp) -> Access {
    let starts_at = request.starts_at.unwrap_or(now).max(now);
    Access {
        assignments: request.assignments(),
        requester: request.requester.clone(),
        beneficiary: request.beneficiary.to_string(),
        is_justified: !request.justification.trim().is_empty(),
        duration_s: request.duration.seconds(),
        total_s: request.duration.seconds(),
        start_delay_s: (starts_at - now).num_seconds(),
        has_hard_end: request.not_after.is_some(),
        invite: request.invite,
        ..Access::default()
    }
}

/// An extension as the law sees it, before anything was looked up. Pure.
pub(super) fn prolonged(grant: &Grant, by: Ttl, requester: &str, is_justified: bool) -> Access {
    let total = match &grant.state {
        GrantState::Active {
            activated_at,
            expires_at,
        } => *expires_at - *activated_at + by.delta(),
        GrantState::Scheduled { .. }
        | GrantState::AwaitingMember { .. }
        | GrantState::Activating { .. }
        | GrantState::Revoking { .. }
        | GrantState::Ended { .. } => TimeDelta::zero(),
    };
    Access {
        assignments: grant
            .assignments
            .iter()
            .map(|held| held.assignment.clone())
            .collect(),
        requester: requester.to_owned(),
        beneficiary: grant.beneficiary.clone(),
        beneficiary_id: match &grant.subject {
            Subject::Member(user) => Some(user.to_string()),
            Subject::Invitee(_) => None,
        },
        is_justified,
        duration_s: by.seconds(),
        total_s: total.num_seconds(),
        has_hard_end: grant.not_after.is_some(),
        ..Access::default()
    }
}

/// The policies behind a refusal, those of the law and those that are built in.
#[must_use]
pub fn policies_of(error: &ServiceError) -> Vec<String> {
    let built_in = match error {
        ServiceError::Law(refusal) => return refusal.policies.clone(),
        ServiceError::UnknownGrant => OWN_ROWS,
        ServiceError::UnknownResource { .. } | ServiceError::UnknownIntegration => OWN_ORGANIZATION,
        ServiceError::OwnIdentity => OWN_IDENTITY,
        ServiceError::KeyExpires { .. } => KEY_LIFE,
        ServiceError::Voucher { code, .. } if *code == "approval_refused" => APPROVALS,
        ServiceError::Voucher { .. } => TOKENS,
        ServiceError::Policy(refusal) => return vec![format!("settings.{}", refusal.code)],
        ServiceError::InvalidField { .. }
        | ServiceError::NotAMember { .. }
        | ServiceError::NotShown
        | ServiceError::Ambiguous
        | ServiceError::RequestIdReused
        | ServiceError::RequestClosed
        | ServiceError::State(_)
        | ServiceError::TooMany { .. }
        | ServiceError::Draining
        | ServiceError::Held { .. }
        | ServiceError::Unwitnessed
        | ServiceError::ClockSkew { .. }
        | ServiceError::NotOwned
        | ServiceError::Unfit { .. }
        | ServiceError::OwnerOnly
        | ServiceError::Contended
        | ServiceError::Exhausted { .. }
        | ServiceError::TooLate { .. }
        | ServiceError::Upstream(_)
        | ServiceError::Ledger(_) => return Vec::new(),
    };
    vec![built_in.to_owned()]
}
