//! Answers as documents: the stable field names of `--output json` and `yaml`.
//!
//! Owns what scripts rely on: fields are added, never renamed or removed; absent values are `null`; times are RFC 3339
//! in UTC; enumerations are lower-case words. Never holds generated types.

use serde::Serialize;

use super::text;
use crate::api::pb;
use crate::domain::Timestamp;

/// A time of the wire.
pub(super) fn instant(wire: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let wire = wire?;
    Timestamp::from_timestamp(wire.seconds, u32::try_from(wire.nanos).ok()?)
}

/// A time for the wire.
pub(super) fn wire_instant(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

/// `ACTIVE` of `GRANT_STATE_ACTIVE` as `active`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// The word for a state.
pub(super) fn state_word(state: pb::GrantState) -> String {
    word(state.as_str_name(), "GRANT_STATE_")
}

pub(super) fn present(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A target as it is written on the command line, with ids.
pub(super) fn target_text(target: Option<&pb::Target>) -> String {
    use pb::target::Kind;
    let project = |kind: i32| {
        pb::ProjectType::try_from(kind).map_or_else(
            |_| "project".to_owned(),
            |kind| word(kind.as_str_name(), "PROJECT_TYPE_"),
        )
    };
    match target.and_then(|target| target.kind.as_ref()) {
        None => "unknown".to_owned(),
        Some(Kind::Organization(pb::OrganizationTarget {})) => "organization".to_owned(),
        Some(Kind::Deployment(pb::DeploymentTarget { deployment_id })) => {
            format!("deployment/{deployment_id}")
        }
        Some(Kind::AllDeployments(pb::AllDeploymentsTarget {})) => "deployment/all".to_owned(),
        Some(Kind::Project(pb::ProjectTarget {
            project_type,
            project_id,
        })) => format!("{}/{project_id}", project(*project_type)),
        Some(Kind::AllProjects(pb::AllProjectsTarget { project_type })) => {
            format!("{}/all", project(*project_type))
        }
    }
}

/// One role on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Assignment {
    /// Canonical role id.
    pub(super) role: String,
    /// As written on the command line, with ids.
    pub(super) target: String,
    /// Stack roles; null for the default ones.
    pub(super) application_roles: Option<Vec<String>>,
}

impl From<Option<&pb::Assignment>> for Assignment {
    fn from(wire: Option<&pb::Assignment>) -> Self {
        wire.map_or_else(
            || Self {
                role: "unknown".to_owned(),
                target: "unknown".to_owned(),
                application_roles: None,
            },
            Self::from,
        )
    }
}

impl From<&pb::Assignment> for Assignment {
    fn from(wire: &pb::Assignment) -> Self {
        let pb::Assignment {
            role,
            target,
            application_roles,
        } = wire;
        Self {
            role: role.clone(),
            target: target_text(target.as_ref()),
            application_roles: application_roles.as_ref().map(|roles| roles.names.clone()),
        }
    }
}

/// An assignment of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct GrantedAssignment {
    #[serde(flatten)]
    pub(super) assignment: Assignment,
    /// `undecided`, `owned` or `standing`.
    pub(super) holding: String,
}

/// Why and through whom a grant ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) reason: String,
    pub(super) by: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) code: Option<String>,
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct GrantError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) at: Option<Timestamp>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) certainty: String,
    pub(super) integration: String,
    pub(super) beneficiary: String,
    pub(super) user_id: Option<String>,
    pub(super) role: String,
    pub(super) assignments: Vec<GrantedAssignment>,
    pub(super) duration_seconds: i64,
    pub(super) requester: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) caller: String,
    pub(super) request_id: String,
    pub(super) created_at: Option<Timestamp>,
    pub(super) starts_at: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) invited_at: Option<Timestamp>,
    pub(super) lapses_at: Option<Timestamp>,
    pub(super) activating_since: Option<Timestamp>,
    pub(super) activated_at: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoking_since: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) end: Option<End>,
    pub(super) externally_modified: bool,
    pub(super) invited: bool,
    pub(super) attempts: u32,
    pub(super) last_error: Option<GrantError>,
    pub(super) warnings: Vec<String>,
    pub(super) version: u64,
    pub(super) approvers: Vec<String>,
    pub(super) is_break_glass: bool,
}

impl From<&pb::Grant> for Grant {
    fn from(wire: &pb::Grant) -> Self {
        let state = wire.state();
        let certainty = word(wire.certainty().as_str_name(), "CERTAINTY_");
        let pb::Grant {
            id,
            integration,
            state: _,
            caller,
            request_id,
            beneficiary,
            user_id,
            requester,
            justification,
            role,
            assignments,
            duration,
            starts_at,
            not_after,
            created_at,
            invited_at,
            lapses_at,
            activating_since,
            activated_at,
            expires_at,
            revoking_since,
            ended_at,
            end_cause,
            certainty: _,
            externally_modified,
            invited,
            attempts,
            last_error,
            warnings,
            version,
            approvers,
            is_break_glass,
        } = wire;
        Self {
            id: id.clone(),
            state: state_word(state),
            certainty,
            integration: integration.clone(),
            beneficiary: beneficiary.clone(),
            user_id: present(user_id),
            role: role.clone(),
            assignments: assignments
                .iter()
                .map(|granted| GrantedAssignment {
                    assignment: Assignment::from(granted.assignment.as_ref()),
                    holding: match granted.holding() {
                        pb::Holding::Unspecified => "undecided".to_owned(),
                        decided @ (pb::Holding::Owned | pb::Holding::Standing) => {
                            word(decided.as_str_name(), "HOLDING_")
                        }
                    },
                })
                .collect(),
            duration_seconds: duration.as_ref().map_or(0, |length| length.seconds),
            requester: present(requester),
            reason: present(justification),
            caller: caller.clone(),
            request_id: request_id.clone(),
            created_at: instant(created_at.as_ref()),
            starts_at: instant(starts_at.as_ref()),
            not_after: instant(not_after.as_ref()),
            invited_at: instant(invited_at.as_ref()),
            lapses_at: instant(lapses_at.as_ref()),
            activating_since: instant(activating_since.as_ref()),
            activated_at: instant(activated_at.as_ref()),
            expires_at: instant(expires_at.as_ref()),
            revoking_since: instant(revoking_since.as_ref()),
            ended_at: instant(ended_at.as_ref()),
            end: end_cause.as_ref().map(|cause| End {
                reason: word(cause.reason().as_str_name(), "END_REASON_"),
                by: present(&cause.by),
                comment: present(&cause.comment),
                code: present(&cause.code),
            }),
            externally_modified: *externally_modified,
            invited: *invited,
            attempts: *attempts,
            last_error: last_error.as_ref().map(|error| GrantError {
                code: error.code.clone(),
                message: error.message.clone(),
                at: instant(error.at.as_ref()),
            }),
            warnings: warnings.clone(),
            version: *version,
            approvers: approvers.clone(),
            is_break_glass: *is_break_glass,
        }
    }
}

impl Grant {
    /// Whether standing access covers all of it, so that nothing was added and nothing will be removed.
    pub(super) fn is_standing(&self) -> bool {
        !self.assignments.is_empty()
            && self
                .assignments
                .iter()
                .all(|granted| granted.holding == "standing")
    }

    /// The beginning of the id that is shown in tables: the whole time of creation.
    pub(super) fn short_id(&self) -> &str {
        self.id.get(..13).unwrap_or(&self.id)
    }
}

/// Something that changed, for `watch`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Change {
    /// `snapshot`, `synced` or `changed`.
    pub(super) kind: String,
    pub(super) grant: Option<Grant>,
}

impl Change {
    /// What one message of the stream says.
    pub(super) fn new(kind: pb::WatchKind, grant: Option<&pb::Grant>) -> Self {
        Self {
            kind: word(kind.as_str_name(), "WATCH_KIND_"),
            grant: grant.map(Grant::from),
        }
    }
}

/// One member.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Member {
    pub(super) user_id: String,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) member_since: Option<Timestamp>,
    pub(super) assignments: Vec<Assignment>,
}

impl From<&pb::Member> for Member {
    fn from(wire: &pb::Member) -> Self {
        let pb::Member {
            user_id,
            email,
            name,
            member_since,
            assignments,
        } = wire;
        Self {
            user_id: user_id.clone(),
            email: present(email),
            name: present(name),
            member_since: instant(member_since.as_ref()),
            assignments: assignments.iter().map(Assignment::from).collect(),
        }
    }
}

/// One role.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Role {
    pub(super) id: String,
    /// `organization`, `deployment`, `elasticsearch`, `observability` or `security`.
    pub(super) kind: String,
    pub(super) short_form: String,
    pub(super) stack_role: Option<String>,
    pub(super) summary: String,
    pub(super) is_grantable: bool,
}

impl From<&pb::Role> for Role {
    fn from(wire: &pb::Role) -> Self {
        let scope = wire.scope();
        let pb::Role {
            role_id,
            scope: _,
            short_form,
            stack_role,
            summary,
            is_grantable,
        } = wire;
        Self {
            id: role_id.clone(),
            kind: word(scope.as_str_name(), "ROLE_SCOPE_").replace("_project", ""),
            short_form: short_form.clone(),
            stack_role: present(stack_role),
            summary: summary.clone(),
            is_grantable: *is_grantable,
        }
    }
}

/// One deployment or project.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Resource {
    /// What `--on` takes, with the id.
    pub(super) target: String,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) region: Option<String>,
    pub(super) tags: std::collections::BTreeMap<String, String>,
}

impl From<&super::resolve::Resource> for Resource {
    fn from(found: &super::resolve::Resource) -> Self {
        let kind = super::resolve::kind_name(found.kind);
        Self {
            target: format!("{kind}/{}", found.id),
            kind: kind.to_owned(),
            id: found.id.clone(),
            name: found.name.clone(),
            alias: present(&found.alias),
            region: present(&found.region),
            tags: found.tags.iter().cloned().collect(),
        }
    }
}

/// What a bulk revocation did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Revoked {
    pub(super) request_id: String,
    pub(super) revoked: u32,
    pub(super) already_ending: u32,
    pub(super) replayed: bool,
}

/// How far draining is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Drained {
    pub(super) revoked: u64,
    pub(super) grants: u64,
    pub(super) owned_assignments: u64,
    pub(super) blocked_removals: u64,
}

/// A request id that was closed before its grant arrived.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Tombstone {
    pub(super) request_id: String,
    pub(super) tombstoned: bool,
}

/// Names of targets, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(std::collections::BTreeMap<String, String>);

impl Names {
    /// Names of these resources. Where several of a kind share one, the id is added.
    pub(super) fn of(resources: &[super::resolve::Resource]) -> Self {
        let mut uses = std::collections::BTreeMap::<(&str, &str), usize>::new();
        for one in resources {
            *uses
                .entry((super::resolve::kind_name(one.kind), &one.name))
                .or_default() += 1;
        }
        let named = resources
            .iter()
            .filter(|one| !one.name.is_empty())
            .map(|one| {
                let kind = super::resolve::kind_name(one.kind);
                let name = text::safe(&one.name);
                let shown = if uses.get(&(kind, one.name.as_str())) == Some(&1) && one.name != "all"
                {
                    format!("{kind}/{name}")
                } else {
                    format!("{kind}/{} ({name})", one.id)
                };
                (format!("{kind}/{}", one.id), shown)
            });
        Self(named.collect())
    }

    /// Adds more names.
    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The target as people know it, escaped.
    pub(super) fn show(&self, target: &str) -> String {
        self.0
            .get(target)
            .cloned()
            .unwrap_or_else(|| text::safe(target).into_owned())
    }
}
