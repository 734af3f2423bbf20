//! Documents of `plan`, `why` and `drift`: what a grant would do, why a member holds a role, what differs.
//!
//! Owns their field names, under the promise of `view`. Never holds generated types.

use serde::Serialize;

use super::view::{Assignment, instant, present, word};
use crate::api::pb;
use crate::domain::Timestamp;

/// A call to Elastic Cloud.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    /// The body as JSON; as text where it is none.
    pub(super) body: Option<serde_json::Value>,
}

impl From<&pb::PlannedCall> for Call {
    fn from(wire: &pb::PlannedCall) -> Self {
        let pb::PlannedCall { method, path, body } = wire;
        Self {
            method: method.clone(),
            path: path.clone(),
            body: present(body)
                .map(|body| serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body))),
        }
    }
}

/// An assignment of a plan.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PlannedAssignment {
    #[serde(flatten)]
    pub(super) assignment: Assignment,
    pub(super) is_standing: bool,
    pub(super) is_owned: bool,
}

/// What a grant would do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plan {
    pub(super) user_id: Option<String>,
    pub(super) would_invite: bool,
    pub(super) assignments: Vec<PlannedAssignment>,
    pub(super) calls: Vec<Call>,
    pub(super) inverse_calls: Vec<Call>,
    pub(super) warnings: Vec<String>,
    /// In seconds, where it is more than the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) predicted_lateness: Option<i64>,
    pub(super) observed_at: Option<Timestamp>,
    pub(super) is_complete: bool,
}

impl From<&pb::PlanGrantResponse> for Plan {
    fn from(wire: &pb::PlanGrantResponse) -> Self {
        let pb::PlanGrantResponse {
            user_id,
            would_invite,
            assignments,
            calls,
            inverse_calls,
            warnings,
            predicted_lateness,
            observed_at,
            is_complete,
        } = wire;
        Self {
            predicted_lateness: predicted_lateness.as_ref().map(|late| late.seconds),
            user_id: present(user_id),
            would_invite: *would_invite,
            assignments: assignments
                .iter()
                .map(|planned| PlannedAssignment {
                    assignment: Assignment::from(planned.assignment.as_ref()),
                    is_standing: planned.is_standing,
                    is_owned: planned.is_owned,
                })
                .collect(),
            calls: calls.iter().map(Call::from).collect(),
            inverse_calls: inverse_calls.iter().map(Call::from).collect(),
            warnings: warnings.clone(),
            observed_at: instant(observed_at.as_ref()),
            is_complete: *is_complete,
        }
    }
}

/// One assignment of a member, explained.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    pub(super) assignment: Assignment,
    /// `standing`, `granted`, `closing`, `pending`, `missing`, `covered` or `forgotten`.
    pub(super) kind: String,
    pub(super) is_present: bool,
    pub(super) grant_ids: Vec<String>,
    pub(super) foreign_grants: u32,
    pub(super) until: Option<Timestamp>,
}

/// One open difference.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OpenDrift {
    pub(super) user_id: String,
    #[serde(flatten)]
    pub(super) assignment: Assignment,
    /// `missing`, `resurrected`, `survivor_missing` or `reappeared`.
    pub(super) kind: String,
    pub(super) first_seen_at: Option<Timestamp>,
    pub(super) last_seen_at: Option<Timestamp>,
    pub(super) action: String,
    pub(super) is_held: bool,
}

impl From<&pb::OpenDrift> for OpenDrift {
    fn from(wire: &pb::OpenDrift) -> Self {
        let pb::OpenDrift {
            user_id,
            assignment,
            kind: _,
            first_seen_at,
            last_seen_at,
            action,
            is_held,
        } = wire;
        Self {
            user_id: user_id.clone(),
            assignment: Assignment::from(assignment.as_ref()),
            kind: word(wire.kind().as_str_name(), "DRIFT_KIND_"),
            first_seen_at: instant(first_seen_at.as_ref()),
            last_seen_at: instant(last_seen_at.as_ref()),
            action: action.clone(),
            is_held: *is_held,
        }
    }
}

/// Why a member holds roles.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Explanation {
    pub(super) user_id: String,
    pub(super) email: Option<String>,
    pub(super) observed_at: Option<Timestamp>,
    pub(super) is_complete: bool,
    pub(super) access: Vec<Explained>,
    pub(super) drift: Vec<OpenDrift>,
}

impl From<&pb::ExplainAccessResponse> for Explanation {
    fn from(wire: &pb::ExplainAccessResponse) -> Self {
        let pb::ExplainAccessResponse {
            user_id,
            email,
            observed_at,
            is_complete,
            access,
            drift,
        } = wire;
        Self {
            user_id: user_id.clone(),
            email: present(email),
            observed_at: instant(observed_at.as_ref()),
            is_complete: *is_complete,
            access: access
                .iter()
                .map(|one| Explained {
                    assignment: Assignment::from(one.assignment.as_ref()),
                    kind: word(one.kind().as_str_name(), "ACCESS_KIND_"),
                    is_present: one.is_present,
                    grant_ids: one.grant_ids.clone(),
                    foreign_grants: one.foreign_grants,
                    until: instant(one.until.as_ref()),
                })
                .collect(),
            drift: drift.iter().map(OpenDrift::from).collect(),
        }
    }
}
