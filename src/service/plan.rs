//! What a grant would do.
//!
//! Owns a plan for people to read: the exact calls and their inverse. Never writes anything down and never calls
//! Elastic Cloud but to read.

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::caller::Caller;
use crate::domain::ids::{RequestId, UserId};
use crate::domain::member::{Subject, WriteKind};
use crate::domain::request::GrantRequest;
use crate::ports::provider::{PlannedCall, Priority};

use super::create::{GrantAsk, request, subject};
use super::error::Result;
use super::vouch::Vouchers;
use super::{Integration, Service, subject_key};

/// One assignment of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAssignment {
    /// Which.
    pub assignment: Assignment,
    /// Whether standing access covers it.
    pub is_standing: bool,
    /// Whether the connector holds it because of other grants.
    pub is_owned: bool,
}

/// What a grant would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantPlan {
    /// The member; `None` when an invitation would be sent.
    pub user_id: Option<UserId>,
    /// Every assignment asked for.
    pub assignments: Vec<PlannedAssignment>,
    /// Calls that would give access.
    pub calls: Vec<PlannedCall>,
    /// Calls that would take it away again.
    pub inverse_calls: Vec<PlannedCall>,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// How late its removal may become, where that is forecast to be more than the bound.
    pub predicted_lateness: Option<TimeDelta>,
    /// When the read behind the plan started.
    pub observed_at: Timestamp,
    /// Whether that read showed everything.
    pub is_complete: bool,
}

impl Service {
    /// Answers what `create_grant` would do with this ask.
    ///
    /// # Errors
    /// The same refusals that `create_grant` would give.
    pub async fn plan_grant(&self, caller: impl Into<Caller>, ask: GrantAsk) -> Result<GrantPlan> {
        self.plan_grant_vouched(caller, None, ask, Vouchers::default())
            .await
    }

    /// The same with what the request would bring along, and the request id that it would have. Nothing of that is
    /// used up. Refusals are audited like those of `create_grant`: nobody tries out law and signatures unseen.
    ///
    /// # Errors
    /// The same refusals that `create_grant_vouched` would give.
    pub async fn plan_grant_vouched(
        &self,
        caller: impl Into<Caller>,
        request_id: Option<RequestId>,
        ask: GrantAsk,
        vouchers: Vouchers,
    ) -> Result<GrantPlan> {
        let caller = &caller.into();
        let integration = self.integration(ask.integration.as_ref())?;
        let subject = Some(ask.beneficiary.to_string());
        let is_named = request_id.is_some();
        let request_id =
            request_id.unwrap_or_else(|| RequestId::parse("plan").expect("a word is a request id"));
        let request = request(&caller.name, request_id, integration, ask)?;
        let result = self
            .try_plan(caller, integration, &request, is_named, &vouchers)
            .await;
        let name = Some(&integration.name);
        self.audited("plan_grant", &caller.name, name, subject, result)
            .await
    }

    async fn try_plan(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: &GrantRequest,
        is_named: bool,
        vouchers: &Vouchers,
    ) -> Result<GrantPlan> {
        let is_repeat = is_named && {
            let repeat = (request.caller.clone(), request.request_id.clone());
            let known = self
                .replay(integration, &repeat, request.fingerprint())
                .await?;
            known.is_some()
        };
        let vouched = self.vouch(caller, request, vouchers)?;
        if !is_repeat {
            self.check_unused(caller, &vouched).await?;
        }
        self.check_rules(caller, request)?;
        let (read, resolved) = self
            .observe_member(integration, &request.beneficiary, Priority::Discovery)
            .await?;
        let subject = subject(request, resolved)?;
        vouched.check_subject(&subject)?;
        self.check_targets(integration, &request.targets).await?;
        self.check_law(caller, integration, request, &subject, &vouched)
            .await?;
        self.check_key(integration, request, &subject)?;

        let mut plan = GrantPlan {
            user_id: None,
            assignments: Vec::new(),
            calls: Vec::new(),
            inverse_calls: Vec::new(),
            warnings: Vec::new(),
            predicted_lateness: None,
            observed_at: read.started_at,
            is_complete: read.is_complete(),
        };
        if is_repeat {
            plan.warnings.push(
                "this request was accepted before: asking again answers the grant that it became"
                    .to_owned(),
            );
        }
        if vouched.is_emergency() {
            plan.warnings.push(
                "the emergency token would be used up; its use alarms, and owes a review"
                    .to_owned(),
            );
        }
        let end = self.expected_end(request, &subject);
        // The place is given back at once: nothing is asked for yet.
        let (predicted_lateness, reserved) = self.forecast(integration, end).await?;
        if let Some(reserved) = reserved {
            reserved.forget();
        }
        plan.predicted_lateness = predicted_lateness;
        if predicted_lateness.is_some() {
            plan.warnings.push(
                "so much access ends at that time that it may be taken away late: see predicted_lateness".to_owned(),
            );
        }
        let wanted = request.assignments();
        if *integration.draining.read().await {
            plan.warnings
                .push("the connector is draining and would refuse this grant now".to_owned());
        }
        // Refused for now, whatever is asked for: that passes, and the plan holds.
        for refused in [self.check_hold(integration), self.check_skew(integration)] {
            if let Err(error) = refused {
                plan.warnings
                    .push(format!("it would be refused now: {error}"));
            }
        }
        plan.warnings.extend(integration.warnings());
        let Subject::Member(user) = &subject else {
            plan.assignments = wanted
                .into_iter()
                .map(|assignment| PlannedAssignment {
                    assignment,
                    is_standing: false,
                    is_owned: false,
                })
                .collect();
            plan.warnings.push(
                "the person would be invited to the organization without roles; roles follow when they join, and \
                 membership outlives the grant"
                    .to_owned(),
            );
            return Ok(plan);
        };
        let record = self
            .ledger
            .member(&subject_key(&integration.name, subject.clone()))
            .await?;
        let held = read
            .member(user)
            .map(|member| &member.assignments)
            .cloned()
            .unwrap_or_default();
        let mut to_add = Vec::new();
        for assignment in wanted {
            let is_owned = record.owned(&assignment).is_some();
            let is_standing = !is_owned
                && held
                    .iter()
                    .any(|other| record.owned(other).is_none() && other.covers(&assignment));
            if !is_owned && !is_standing {
                to_add.push(assignment.clone());
            }
            plan.assignments.push(PlannedAssignment {
                assignment,
                is_standing,
                is_owned,
            });
        }
        if to_add.is_empty() {
            plan.warnings
                .push("everything is held already: nothing would be added".to_owned());
        } else {
            let preview = |kind| integration.provider.preview(kind, user, &to_add);
            plan.calls.push(preview(WriteKind::Add));
            plan.inverse_calls.push(preview(WriteKind::Remove));
        }
        if plan.assignments.iter().any(|planned| planned.is_standing) {
            plan.warnings.push(
                "standing access covers part of this and stays when the grant ends".to_owned(),
            );
        }
        if !plan.is_complete {
            plan.warnings.push(
                "the key sees a filtered list of members: standing access may exist that is not shown".to_owned(),
            );
        }
        plan.user_id = Some(user.clone());
        Ok(plan)
    }
}
