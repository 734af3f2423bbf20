//! From values to the wire.
//!
//! Owns what callers are told of a grant. Destructures every value, so that a new field cannot be forgotten, and
//! never shows an invitation's token or text from upstream's errors.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, ProjectType, Scope, Target};
use crate::domain::authority::Authority;
use crate::domain::drift::{DriftAction, DriftKind, OpenDrift};
use crate::domain::grant::{
    Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding, LastError,
};
use crate::domain::member::Subject;
use crate::domain::ttl::Ttl;
use crate::ports::provider::PlannedCall;
use crate::service::{Access, AccessKind, Explanation, GrantPlan};

use super::pb;

pub(super) fn instant(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos().min(999_999_999)).unwrap_or(0),
    }
}

pub(super) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A length of time that is not negative, in whole seconds.
pub(super) fn length(length: TimeDelta) -> prost_types::Duration {
    seconds(length.num_seconds().max(0))
}

pub(super) fn ttl(ttl: Ttl) -> prost_types::Duration {
    seconds(ttl.seconds())
}

pub(super) fn project_type(kind: ProjectType) -> pb::ProjectType {
    match kind {
        ProjectType::Elasticsearch => pb::ProjectType::Elasticsearch,
        ProjectType::Observability => pb::ProjectType::Observability,
        ProjectType::Security => pb::ProjectType::Security,
    }
}

pub(super) fn scope(scope: Scope) -> pb::RoleScope {
    match scope {
        Scope::Organization => pb::RoleScope::Organization,
        Scope::Deployment => pb::RoleScope::Deployment,
        Scope::Project(ProjectType::Elasticsearch) => pb::RoleScope::ElasticsearchProject,
        Scope::Project(ProjectType::Observability) => pb::RoleScope::ObservabilityProject,
        Scope::Project(ProjectType::Security) => pb::RoleScope::SecurityProject,
    }
}

fn target(target: Target) -> pb::Target {
    use pb::target::Kind;
    let kind = match target {
        Target::Organization => Kind::Organization(pb::OrganizationTarget {}),
        Target::Deployment { id } => Kind::Deployment(pb::DeploymentTarget {
            deployment_id: id.into(),
        }),
        Target::AllDeployments => Kind::AllDeployments(pb::AllDeploymentsTarget {}),
        Target::Project {
            project_type: kind,
            id,
        } => Kind::Project(pb::ProjectTarget {
            project_type: project_type(kind).into(),
            project_id: id.into(),
        }),
        Target::AllProjects { project_type: kind } => Kind::AllProjects(pb::AllProjectsTarget {
            project_type: project_type(kind).into(),
        }),
    };
    pb::Target { kind: Some(kind) }
}

pub(super) fn assignment(value: Assignment) -> pb::Assignment {
    let Assignment {
        role,
        target: place,
        application_roles,
    } = value;
    pb::Assignment {
        role,
        target: Some(target(place)),
        application_roles: match application_roles {
            ApplicationRoles::Mapped => None,
            ApplicationRoles::Exactly(names) => Some(pb::ApplicationRoles {
                names: names.into_iter().map(Into::into).collect(),
            }),
        },
    }
}

pub(super) fn end_cause(cause: EndCause) -> pb::EndCause {
    use pb::EndReason as Reason;
    let mut wire = pb::EndCause::default();
    let reason = match cause {
        EndCause::Expired => Reason::Expired,
        EndCause::Revoked { by, reason } => {
            wire.by = by;
            wire.comment = reason;
            Reason::Revoked
        }
        EndCause::Withdrawn { by } => {
            wire.by = by;
            Reason::Withdrawn
        }
        EndCause::Lapsed => Reason::Lapsed,
        EndCause::ActivationFailed { code } => {
            wire.code = code;
            Reason::ActivationFailed
        }
        EndCause::MemberLeft => Reason::MemberLeft,
        EndCause::Superseded => Reason::Superseded,
    };
    wire.set_reason(reason);
    wire
}

fn warnings(grant: &Grant) -> Vec<String> {
    let mut warnings = Vec::new();
    let holds = |holding| grant.assignments.iter().any(|held| held.holding == holding);
    if holds(Holding::Standing) {
        warnings.push(
            if grant.is_all_standing() {
                "standing access covers everything: nothing was added and nothing will be removed"
            } else {
                "standing access covers part of this and stays when the grant ends"
            }
            .to_owned(),
        );
    }
    let joined = matches!(grant.subject, Subject::Member(_));
    if grant.invited && joined {
        warnings.push(
            "the beneficiary was invited to the organization; membership outlives the grant"
                .to_owned(),
        );
    }
    if grant.break_glass().is_some() {
        warnings.push(
            "an emergency token opened this; it cannot be extended, and owes a review".to_owned(),
        );
    }
    if grant.externally_modified {
        warnings.push("somebody else changed what this grant gave".to_owned());
    }
    if matches!(grant.state, GrantState::Revoking { .. }) && grant.attempts > 0 {
        warnings.push(
            "access could not be taken away yet; it is tried again until it is gone".to_owned(),
        );
    }
    warnings
}

/// The people behind the approvals, each once.
fn approvers(authority: Option<&Authority>) -> Vec<String> {
    let approvals = authority.map_or(&[][..], |authority| &authority.approvals);
    let people: BTreeSet<&String> = approvals.iter().map(|one| &one.person).collect();
    people.into_iter().cloned().collect()
}

/// A grant as callers see it.
pub(super) fn grant(value: Grant) -> pb::Grant {
    let warnings = warnings(&value);
    let is_break_glass = value.break_glass().is_some();
    let Grant {
        id,
        integration,
        subject,
        caller,
        request_id,
        beneficiary,
        requester,
        justification,
        assignments,
        duration,
        starts_at,
        not_after,
        created_at,
        state,
        version,
        certainty,
        externally_modified,
        invited,
        attempts,
        last_error,
        verified_at,
        removal_sent_at: _,
        authority,
    } = value;
    let mut wire = pb::Grant {
        id: id.to_string(),
        integration: integration.into(),
        caller: caller.into(),
        request_id: request_id.into(),
        beneficiary,
        user_id: match subject {
            Subject::Member(user) => user.into(),
            Subject::Invitee(_) => String::new(),
        },
        requester,
        justification,
        role: assignments
            .first()
            .map(|held| held.assignment.role.clone())
            .unwrap_or_default(),
        assignments: assignments.into_iter().map(granted).collect(),
        duration: Some(ttl(duration)),
        starts_at: starts_at.map(instant),
        not_after: not_after.map(instant),
        created_at: Some(instant(created_at)),
        activated_at: verified_at.map(instant),
        certainty: match certainty {
            Certainty::Verified => pb::Certainty::Verified,
            Certainty::AcceptedUnverified => pb::Certainty::AcceptedUnverified,
            Certainty::Unknown => pb::Certainty::Unknown,
        }
        .into(),
        externally_modified,
        invited,
        attempts,
        last_error: last_error.map(|error| {
            let LastError { code, message, at } = error;
            pb::GrantError {
                code,
                message,
                at: Some(instant(at)),
            }
        }),
        warnings,
        version,
        approvers: approvers(authority.as_deref()),
        is_break_glass,
        ..pb::Grant::default()
    };
    let state = match state {
        GrantState::Scheduled { starts_at } => {
            wire.starts_at = Some(instant(starts_at));
            pb::GrantState::Scheduled
        }
        GrantState::AwaitingMember {
            invited_at,
            lapses_at,
        } => {
            wire.invited_at = Some(instant(invited_at));
            wire.lapses_at = Some(instant(lapses_at));
            pb::GrantState::AwaitingMember
        }
        GrantState::Activating {
            since,
            must_end_by: _,
        } => {
            wire.activating_since = Some(instant(since));
            pb::GrantState::Activating
        }
        GrantState::Active {
            activated_at,
            expires_at,
        } => {
            wire.activated_at = Some(instant(activated_at));
            wire.expires_at = Some(instant(expires_at));
            pb::GrantState::Active
        }
        GrantState::Revoking { since, cause } => {
            wire.revoking_since = Some(instant(since));
            wire.end_cause = Some(end_cause(cause));
            pb::GrantState::Revoking
        }
        GrantState::Ended { at, cause } => {
            wire.ended_at = Some(instant(at));
            wire.end_cause = Some(end_cause(cause));
            pb::GrantState::Ended
        }
    };
    wire.set_state(state);
    wire
}

fn granted(value: GrantedAssignment) -> pb::GrantedAssignment {
    let GrantedAssignment {
        assignment: held,
        holding,
    } = value;
    pb::GrantedAssignment {
        assignment: Some(assignment(held)),
        holding: match holding {
            Holding::Undecided => pb::Holding::Unspecified,
            Holding::Owned => pb::Holding::Owned,
            Holding::Standing => pb::Holding::Standing,
        }
        .into(),
    }
}

fn planned_call(value: PlannedCall) -> pb::PlannedCall {
    let PlannedCall { method, path, body } = value;
    pb::PlannedCall { method, path, body }
}

pub(super) fn plan(value: GrantPlan) -> pb::PlanGrantResponse {
    let GrantPlan {
        user_id,
        assignments,
        calls,
        inverse_calls,
        warnings,
        predicted_lateness,
        observed_at,
        is_complete,
    } = value;
    pb::PlanGrantResponse {
        predicted_lateness: predicted_lateness.map(length),
        would_invite: user_id.is_none(),
        user_id: user_id.map(Into::into).unwrap_or_default(),
        assignments: assignments
            .into_iter()
            .map(|planned| pb::PlannedAssignment {
                assignment: Some(assignment(planned.assignment)),
                is_standing: planned.is_standing,
                is_owned: planned.is_owned,
            })
            .collect(),
        calls: calls.into_iter().map(planned_call).collect(),
        inverse_calls: inverse_calls.into_iter().map(planned_call).collect(),
        warnings,
        observed_at: Some(instant(observed_at)),
        is_complete,
    }
}

pub(super) fn explanation(value: Explanation) -> pb::ExplainAccessResponse {
    let Explanation {
        user_id,
        email,
        observed_at,
        is_complete,
        access,
        drift,
    } = value;
    let id = user_id.to_string();
    pb::ExplainAccessResponse {
        user_id: user_id.into(),
        email: email.map(Into::into).unwrap_or_default(),
        observed_at: Some(instant(observed_at)),
        is_complete,
        access: access.into_iter().map(explained).collect(),
        drift: drift
            .into_iter()
            .map(|open| open_drift(&id, open))
            .collect(),
    }
}

pub(super) fn open_drift(user_id: &str, value: OpenDrift) -> pb::OpenDrift {
    let OpenDrift {
        kind,
        assignment: what,
        first_seen,
        last_seen,
        action,
    } = value;
    pb::OpenDrift {
        user_id: user_id.to_owned(),
        assignment: Some(assignment(what)),
        kind: match kind {
            DriftKind::Missing => pb::DriftKind::Missing,
            DriftKind::Resurrected => pb::DriftKind::Resurrected,
            DriftKind::SurvivorMissing => pb::DriftKind::SurvivorMissing,
            DriftKind::Reappeared => pb::DriftKind::Reappeared,
        }
        .into(),
        first_seen_at: Some(instant(first_seen)),
        last_seen_at: Some(instant(last_seen)),
        action: action.words().to_owned(),
        is_held: matches!(action, DriftAction::Held { .. }),
    }
}

fn explained(value: Access) -> pb::ExplainedAccess {
    let Access {
        assignment: what,
        kind,
        is_present,
        grants,
        foreign_grants,
        until,
    } = value;
    pb::ExplainedAccess {
        assignment: Some(assignment(what)),
        kind: match kind {
            AccessKind::Standing => pb::AccessKind::Standing,
            AccessKind::Granted => pb::AccessKind::Granted,
            AccessKind::Closing => pb::AccessKind::Closing,
            AccessKind::Pending => pb::AccessKind::Pending,
            AccessKind::Missing => pb::AccessKind::Missing,
            AccessKind::Covered => pb::AccessKind::Covered,
            AccessKind::Forgotten => pb::AccessKind::Forgotten,
        }
        .into(),
        is_present,
        grant_ids: grants.iter().map(ToString::to_string).collect(),
        foreign_grants,
        until: until.map(instant),
    }
}
