//! A question in the words of the schema.
//!
//! Owns which fact stands where. Never leaves one out: a policy that asks for it would not be applied.

use std::collections::BTreeSet;

use chrono::{Datelike as _, Timelike as _};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, Scope};
use crate::domain::law::{Access, Ending, Matter, Question, Reading};
use crate::domain::overdue::class_of;
use crate::policy::Rules;

/// The entities of a question: who calls, and where.
pub(super) fn entities(question: &Question) -> Value {
    let caller = &question.caller;
    let roles: Vec<&str> = caller.roles.iter().map(|role| role.as_str()).collect();
    let place = place(question);
    json!([
        {
            "uid": {"type": "Latchkey::Caller", "id": caller.name.as_str()},
            "attrs": {"name": caller.name.as_str(), "roles": roles},
            "parents": [],
        },
        {
            "uid": {"type": "Latchkey::Integration", "id": place},
            "attrs": {"name": place},
            "parents": [],
        },
    ])
}

/// The integration, or a star for all.
pub(super) fn place(question: &Question) -> &str {
    question
        .integration
        .as_ref()
        .map_or("*", |name| name.as_str())
}

/// The context of a question.
pub(super) fn context(question: &Question, zone: Tz, rules: &Rules) -> Value {
    let mut context = match &question.matter {
        Matter::Create(access) | Matter::Extend(access) | Matter::BreakGlass(access) => {
            asked(access)
        }
        Matter::Revoke(Ending {
            what,
            reaches_others,
            requester,
        }) => json!({
            "what": what,
            "reaches_others": reaches_others,
            "requester": requester,
        }),
        Matter::Read(Reading {
            what,
            reaches_others,
        }) => json!({"what": what, "reaches_others": reaches_others}),
    };
    context["now"] = json!(question.now.timestamp());
    context["local"] = local(question.now, zone);
    context["settings"] = settings(rules);
    context
}

fn asked(access: &Access) -> Value {
    let Access {
        assignments,
        tags,
        requester,
        beneficiary,
        beneficiary_id,
        is_justified,
        duration_s,
        total_s,
        start_delay_s,
        has_hard_end,
        invite,
        approvers,
        tickets,
        current,
        current_grants,
    } = access;
    let first = assignments.first();
    let scope = first.map(|one| scope(one.target.scope()));
    let power = assignments.iter().map(Assignment::weight).max();
    let (maps, stack_roles) = match first.map(|one| &one.application_roles) {
        None | Some(ApplicationRoles::Mapped) => (true, BTreeSet::new()),
        Some(ApplicationRoles::Exactly(roles)) => {
            (false, roles.iter().map(ToString::to_string).collect())
        }
    };
    let any_tags: BTreeSet<&String> = tags.iter().flatten().collect();
    // A target without tags of its own has none in common with the others.
    let is_tagged = tags.len() == assignments.len();
    let all_tags: BTreeSet<&String> = any_tags
        .iter()
        .copied()
        .filter(|tag| is_tagged && tags.iter().all(|of| of.contains(*tag)))
        .collect();
    json!({
        "role": first.map_or("", |one| one.role.as_str()),
        "scope": scope.unwrap_or(""),
        "targets": targets(assignments),
        "target_count": assignments.len(),
        "all_targets": assignments.iter().any(|one| one.target.is_all()),
        "maps_stack_roles": maps,
        "stack_roles": stack_roles,
        "power": power.unwrap_or(0),
        "power_class": class_of(power.unwrap_or(0)),
        "any_tags": any_tags,
        "all_tags": all_tags,
        "duration": duration_s,
        "total": total_s,
        "start_delay": start_delay_s,
        "has_hard_end": has_hard_end,
        "invite": invite,
        "requester": requester,
        "beneficiary": beneficiary,
        "beneficiary_id": beneficiary_id.as_deref().unwrap_or(""),
        "is_justified": is_justified,
        "approvers": approvers,
        "approver_count": approvers.len(),
        "tickets": tickets,
        "current": {
            "grants": current_grants,
            "roles": current.iter().map(|one| &one.role).collect::<BTreeSet<_>>(),
            "targets": targets(current),
        },
    })
}

fn targets(assignments: &BTreeSet<Assignment>) -> BTreeSet<String> {
    assignments
        .iter()
        .map(|one| one.target.to_string())
        .collect()
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Organization => "organization",
        Scope::Deployment => "deployment",
        Scope::Project(kind) => kind.as_str(),
    }
}

fn local(now: Timestamp, zone: Tz) -> Value {
    let there = now.with_timezone(&zone);
    json!({
        "zone": zone.name(),
        "date": there.format("%Y-%m-%d").to_string(),
        "weekday": there.weekday().number_from_monday(),
        "hour": there.hour(),
        "minute": there.minute(),
    })
}

fn settings(rules: &Rules) -> Value {
    let Rules {
        max_duration,
        max_total,
        max_start_delay,
        organization_roles,
        all_targets,
        invitations,
        allowed_roles,
    } = rules;
    json!({
        "max_duration": max_duration.seconds(),
        "max_total": max_total.num_seconds(),
        "max_start_delay": max_start_delay.num_seconds(),
        "allow_organization_roles": organization_roles,
        "allow_all_targets": all_targets,
        "allow_invitations": invitations,
        "limits_roles": allowed_roles.is_some(),
        "roles": allowed_roles.clone().unwrap_or_default(),
    })
}
