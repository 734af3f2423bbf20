//! What may be granted: one pure decision over request, rules and time.
//!
//! Owns every limit on what a caller can ask for. Never reads a clock, looks anything up, or changes a request: it
//! allows it as it stands, or refuses it and says what to ask for instead.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::{Assignment, Scope};
use crate::domain::grant::{Grant, GrantState};
use crate::domain::request::GrantRequest;
use crate::domain::ttl::Ttl;

/// The rules in force. The default is what a fresh installation allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Longest duration of one grant, and of one extension.
    pub max_duration: Ttl,
    /// Longest time from activation to the end, extensions included: the cap of the original approval.
    pub max_total: TimeDelta,
    /// How far in the future a grant may start.
    pub max_start_delay: TimeDelta,
    /// Whether roles on the organization itself can be granted.
    pub organization_roles: bool,
    /// Whether *all* targets can be granted.
    pub all_targets: bool,
    /// Whether people who are not members may be invited.
    pub invitations: bool,
    /// The only canonical role ids that can be granted; `None` for every role of the catalogue.
    pub allowed_roles: Option<BTreeSet<String>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_duration: Ttl::from_seconds(12 * 3600).expect("12 h is within the bounds"),
            max_total: TimeDelta::hours(24),
            max_start_delay: TimeDelta::days(30),
            organization_roles: false,
            all_targets: false,
            invitations: true,
            allowed_roles: None,
        }
    }
}

/// Whether a refused request could be allowed by other rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It contradicts itself or the present time: no rules would allow it.
    Impossible,
    /// The rules in force do not allow it.
    Denied,
}

/// Why a request is refused and what to ask for instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{remedy}")]
pub struct Refusal {
    /// Whether other rules could allow it.
    pub kind: Kind,
    /// Stable code in lower case.
    pub code: &'static str,
    /// The field of the request that is at fault.
    pub field: &'static str,
    /// What is wrong and what to ask for instead, in words for the caller.
    pub remedy: String,
}

/// The answer of policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be granted as it stands.
    Allow,
    /// It may not.
    Refuse(Refusal),
}

impl Decision {
    /// The decision as a result.
    ///
    /// # Errors
    /// The [`Refusal`], if it is one.
    pub fn into_result(self) -> Result<(), Refusal> {
        match self {
            Self::Allow => Ok(()),
            Self::Refuse(refusal) => Err(refusal),
        }
    }
}

fn denied(code: &'static str, field: &'static str, remedy: String) -> Refusal {
    Refusal {
        kind: Kind::Denied,
        code,
        field,
        remedy,
    }
}

fn impossible(code: &'static str, field: &'static str, remedy: String) -> Refusal {
    Refusal {
        kind: Kind::Impossible,
        code,
        field,
        remedy,
    }
}

/// Decides a request for a grant.
#[must_use]
pub fn decide(request: &GrantRequest, rules: &Rules, now: Timestamp) -> Decision {
    match check(request, rules, now) {
        Ok(()) => Decision::Allow,
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// Whether policy lets a role be granted anywhere at all.
#[must_use]
pub fn is_role_grantable(role: &str, scope: Scope, rules: &Rules) -> bool {
    (scope != Scope::Organization || rules.organization_roles)
        && rules
            .allowed_roles
            .as_ref()
            .is_none_or(|allowed| allowed.contains(role))
}

/// Decides an extension: answers by how much the end may move, at most what was asked for. `not_after` and
/// `max_total` shorten it.
///
/// # Errors
/// [`Refusal`] when the rules forbid it or no whole second would be gained.
pub fn decide_extension(grant: &Grant, by: Ttl, rules: &Rules) -> Result<Ttl, Refusal> {
    for held in &grant.assignments {
        check_assignment(&held.assignment, rules)?;
    }
    check_duration(by, rules)?;
    let GrantState::Active {
        activated_at,
        expires_at,
    } = grant.state
    else {
        return Err(impossible(
            "not_active",
            "grant_id",
            "only an active grant can be extended; ask for a new grant".to_owned(),
        ));
    };
    let cap = activated_at + rules.max_total;
    let end = (expires_at + by.delta())
        .min(cap)
        .min(grant.not_after.unwrap_or(cap));
    Ttl::from_seconds((end - expires_at).num_seconds()).map_err(|_| {
        let (code, why) = if grant.not_after.is_some_and(|hard| hard < cap) {
            (
                "hard_end_reached",
                "the grant already lasts until its not_after".to_owned(),
            )
        } else {
            (
                "total_reached",
                format!(
                    "the grant already lasts as long as policy allows from activation on ({})",
                    words(rules.max_total)
                ),
            )
        };
        denied(
            code,
            "duration",
            format!("{why}; ask for a new grant when it has ended"),
        )
    })
}

fn check(request: &GrantRequest, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
    let start = request.starts_at.unwrap_or(now).max(now);
    if let Some(end) = request.not_after {
        if end <= now {
            return Err(impossible(
                "not_after_past",
                "not_after",
                "not_after has passed already; give a later instant or leave it out".to_owned(),
            ));
        }
        if end <= start {
            return Err(impossible(
                "not_after_before_start",
                "not_after",
                "not_after lies before the grant starts; give a later not_after or an earlier starts_at"
                    .to_owned(),
            ));
        }
    }
    if start - now > rules.max_start_delay {
        return Err(denied(
            "start_too_late",
            "starts_at",
            format!(
                "a grant may start at most {} from now; ask again closer to the start",
                words(rules.max_start_delay)
            ),
        ));
    }
    check_duration(request.duration, rules)?;
    for assignment in request.assignments() {
        check_assignment(&assignment, rules)?;
    }
    if request.invite && !rules.invitations {
        return Err(denied(
            "invitations_disabled",
            "invite",
            "policy does not allow invitations; have the person join the organization first"
                .to_owned(),
        ));
    }
    Ok(())
}

fn check_duration(duration: Ttl, rules: &Rules) -> Result<(), Refusal> {
    let longest = rules.max_duration.delta().min(rules.max_total);
    if duration.delta() > longest {
        return Err(denied(
            "duration_too_long",
            "duration",
            format!("policy allows at most {}; ask for less", words(longest)),
        ));
    }
    Ok(())
}

fn check_assignment(assignment: &Assignment, rules: &Rules) -> Result<(), Refusal> {
    if assignment.target.scope() == Scope::Organization && !rules.organization_roles {
        return Err(denied(
            "organization_roles_disabled",
            "role",
            "policy does not allow roles on the organization; ask for a role on a deployment or project".to_owned(),
        ));
    }
    if assignment.target.is_all() && !rules.all_targets {
        return Err(denied(
            "all_targets_disabled",
            "targets",
            "policy does not allow \"all\"; name the deployments or projects".to_owned(),
        ));
    }
    if let Some(allowed) = &rules.allowed_roles
        && !allowed.contains(&assignment.role)
    {
        let known: Vec<&str> = allowed.iter().map(String::as_str).collect();
        return Err(denied(
            "role_not_allowed",
            "role",
            format!("policy allows only these roles: {}", known.join(", ")),
        ));
    }
    Ok(())
}

fn words(delta: TimeDelta) -> String {
    Ttl::from_seconds(delta.num_seconds()).map_or_else(
        |_| format!("{} days", delta.num_days()),
        |ttl| ttl.to_string(),
    )
}

#[cfg(test)]
mod tests;
