//! From the wire to values.
//!
//! Owns the caps and grammars of everything a caller can send. Never repairs a value silently and never takes an
//! unspecified enum for a default: what does not fit is refused with the field and the reason.

use chrono::SubsecRound as _;

use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, ProjectType, Scope, Target};
use crate::domain::ids::{
    ApplicationRole, DeploymentId, Email, GrantId, IntegrationName, InvalidId, ProjectId,
    RequestId, UserId,
};
use crate::domain::request::{Principal, Selector};
use crate::domain::ttl::Ttl;
use crate::ports::ledger::GrantFilter;
use crate::service::{Extension, GrantAsk, Result, Revocation, ServiceError, WhichGrant};

use super::pb;

/// Most targets in one grant.
pub(super) const MAX_TARGETS: usize = 100;
/// Most stack roles in one grant.
const MAX_APPLICATION_ROLES: usize = 20;
/// Longest name of a requester, in characters.
pub(super) const MAX_REQUESTER: usize = 256;
/// Longest justification or reason, in characters.
pub(super) const MAX_REASON: usize = 1024;
/// Longest role text looked at, in characters.
pub(super) const MAX_ROLE: usize = 128;
/// The last second of the year 9999, the latest that a protobuf timestamp may hold.
const LAST_SECOND: i64 = 253_402_300_799;

fn missing(field: &str) -> ServiceError {
    ServiceError::invalid(field, "is required")
}

fn bad_id(field: &str) -> impl Fn(InvalidId) -> ServiceError {
    move |error| ServiceError::invalid(field, error.to_string())
}

/// Free text: a cap on characters, and nothing that could disturb a terminal, a log or the order of reading.
fn text(field: &str, value: String, max: usize) -> Result<String> {
    let length = value.chars().count();
    if length > max {
        return Err(ServiceError::invalid(
            field,
            format!("is {length} characters long; at most {max} are allowed"),
        ));
    }
    let disturbs = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if let Some(found) = value.chars().find(|c| disturbs(*c)) {
        return Err(ServiceError::invalid(
            field,
            format!("contains the control character {}", found.escape_unicode()),
        ));
    }
    Ok(value)
}

pub(super) fn required_text(field: &str, value: String, max: usize) -> Result<String> {
    if value.trim().is_empty() {
        return Err(missing(field));
    }
    text(field, value, max)
}

/// The name of an integration; `None` for the only one.
pub(super) fn integration(field: &str, value: String) -> Result<Option<IntegrationName>> {
    if value.is_empty() {
        return Ok(None);
    }
    IntegrationName::parse(value)
        .map(Some)
        .map_err(bad_id(field))
}

/// A caller-chosen idempotency key.
pub(super) fn request_id(field: &str, value: String) -> Result<RequestId> {
    RequestId::parse(value).map_err(bad_id(field))
}

/// A grant id in its hyphenated form.
pub(super) fn grant_id(field: &str, value: &str) -> Result<GrantId> {
    // Other spellings of the same id are refused, so that an id is one text in every log.
    if value.len() != 36 || value.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(ServiceError::invalid(
            field,
            "is not a grant id; copy it from the answer of CreateGrant",
        ));
    }
    GrantId::parse(value).map_err(bad_id(field))
}

/// Who is meant.
pub(super) fn principal(field: &str, value: Option<pb::Principal>) -> Result<Principal> {
    let Some(pb::Principal { kind: Some(kind) }) = value else {
        return Err(missing(field));
    };
    match kind {
        pb::principal::Kind::UserId(id) => UserId::parse(id)
            .map(Principal::User)
            .map_err(bad_id(&format!("{field}.user_id"))),
        pb::principal::Kind::Email(email) => Email::parse(email)
            .map(Principal::Email)
            .map_err(bad_id(&format!("{field}.email"))),
    }
}

/// A type of project; the zero value is refused.
pub(super) fn project_type(field: &str, value: i32) -> Result<ProjectType> {
    match pb::ProjectType::try_from(value) {
        Ok(pb::ProjectType::Elasticsearch) => Ok(ProjectType::Elasticsearch),
        Ok(pb::ProjectType::Observability) => Ok(ProjectType::Observability),
        Ok(pb::ProjectType::Security) => Ok(ProjectType::Security),
        Ok(pb::ProjectType::Unspecified) | Err(_) => Err(ServiceError::invalid(
            field,
            "must be one of the named project types",
        )),
    }
}

/// A scope of roles; the zero value is refused.
pub(super) fn scope(field: &str, value: i32) -> Result<Scope> {
    match pb::RoleScope::try_from(value) {
        Ok(pb::RoleScope::Organization) => Ok(Scope::Organization),
        Ok(pb::RoleScope::Deployment) => Ok(Scope::Deployment),
        Ok(pb::RoleScope::ElasticsearchProject) => Ok(Scope::Project(ProjectType::Elasticsearch)),
        Ok(pb::RoleScope::ObservabilityProject) => Ok(Scope::Project(ProjectType::Observability)),
        Ok(pb::RoleScope::SecurityProject) => Ok(Scope::Project(ProjectType::Security)),
        Ok(pb::RoleScope::Unspecified) | Err(_) => Err(ServiceError::invalid(
            field,
            "must be one of the named scopes",
        )),
    }
}

/// One project.
pub(super) fn project(field: &str, value: pb::ProjectTarget) -> Result<(ProjectType, ProjectId)> {
    let pb::ProjectTarget {
        project_type: kind,
        project_id,
    } = value;
    Ok((
        project_type(&format!("{field}.project_type"), kind)?,
        ProjectId::parse(project_id).map_err(bad_id(&format!("{field}.project_id")))?,
    ))
}

/// What a role is held on.
pub(super) fn target(field: &str, value: pb::Target) -> Result<Target> {
    use pb::target::Kind;
    match value.kind.ok_or_else(|| missing(field))? {
        Kind::Organization(pb::OrganizationTarget {}) => Ok(Target::Organization),
        Kind::Deployment(pb::DeploymentTarget { deployment_id }) => {
            DeploymentId::parse(deployment_id)
                .map(|id| Target::Deployment { id })
                .map_err(bad_id(&format!("{field}.deployment.deployment_id")))
        }
        Kind::AllDeployments(pb::AllDeploymentsTarget {}) => Ok(Target::AllDeployments),
        Kind::Project(value) => project(&format!("{field}.project"), value)
            .map(|(project_type, id)| Target::Project { project_type, id }),
        Kind::AllProjects(pb::AllProjectsTarget { project_type: kind }) => {
            project_type(&format!("{field}.all_projects.project_type"), kind)
                .map(|project_type| Target::AllProjects { project_type })
        }
    }
}

fn targets(field: &str, values: Vec<pb::Target>) -> Result<Vec<Target>> {
    if values.len() > MAX_TARGETS {
        return Err(ServiceError::invalid(
            field,
            format!(
                "holds {} targets; at most {MAX_TARGETS} are allowed",
                values.len()
            ),
        ));
    }
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| target(&format!("{field}[{index}]"), value))
        .collect()
}

pub(super) fn application_roles(
    field: &str,
    value: Option<pb::ApplicationRoles>,
) -> Result<ApplicationRoles> {
    let Some(pb::ApplicationRoles { names }) = value else {
        return Ok(ApplicationRoles::Mapped);
    };
    if names.len() > MAX_APPLICATION_ROLES {
        return Err(ServiceError::invalid(
            field,
            format!(
                "holds {} names; at most {MAX_APPLICATION_ROLES} are allowed",
                names.len()
            ),
        ));
    }
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            ApplicationRole::parse(name).map_err(bad_id(&format!("{field}.names[{index}]")))
        })
        .collect::<Result<_>>()
        .map(ApplicationRoles::Exactly)
}

/// A length of time in whole seconds.
fn duration(field: &str, value: Option<prost_types::Duration>) -> Result<Ttl> {
    let prost_types::Duration { seconds, nanos } = value.ok_or_else(|| missing(field))?;
    if nanos != 0 {
        return Err(ServiceError::invalid(field, "must be whole seconds"));
    }
    Ttl::from_seconds(seconds).map_err(|error| ServiceError::invalid(field, error.to_string()))
}

/// An instant, cut to the microseconds that the ledger keeps.
pub(super) fn instant(
    field: &str,
    value: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>> {
    let Some(prost_types::Timestamp { seconds, nanos }) = value else {
        return Ok(None);
    };
    let invalid =
        || ServiceError::invalid(field, "is not an instant between the years 1970 and 9999");
    if !(0..=LAST_SECOND).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return Err(invalid());
    }
    let nanos = u32::try_from(nanos).map_err(|_| invalid())?;
    chrono::DateTime::from_timestamp(seconds, nanos)
        .map(|at| Some(at.trunc_subsecs(6)))
        .ok_or_else(invalid)
}

/// What is asked for.
pub(super) fn ask(value: Option<pb::GrantSpec>) -> Result<GrantAsk> {
    let pb::GrantSpec {
        integration: name,
        beneficiary,
        requester,
        justification,
        role,
        targets: places,
        application_roles: stack_roles,
        duration: length,
        starts_at,
        not_after,
        invite,
    } = value.ok_or_else(|| missing("spec"))?;
    Ok(GrantAsk {
        integration: integration("spec.integration", name)?,
        beneficiary: principal("spec.beneficiary", beneficiary)?,
        requester: text("spec.requester", requester, MAX_REQUESTER)?,
        justification: text("spec.justification", justification, MAX_REASON)?,
        role: required_text("spec.role", role, MAX_ROLE)?,
        targets: targets("spec.targets", places)?,
        application_roles: application_roles("spec.application_roles", stack_roles)?,
        duration: duration("spec.duration", length)?,
        starts_at: instant("spec.starts_at", starts_at)?,
        not_after: instant("spec.not_after", not_after)?,
        invite,
    })
}

/// When to answer: whether the caller waits for access.
pub(super) fn waits_for_access(value: i32) -> Result<bool> {
    match pb::GrantWait::try_from(value) {
        Ok(pb::GrantWait::Accepted) => Ok(false),
        Ok(pb::GrantWait::Active) => Ok(true),
        Ok(pb::GrantWait::Unspecified) | Err(_) => Err(ServiceError::invalid(
            "wait",
            "say GRANT_WAIT_ACCEPTED or GRANT_WAIT_ACTIVE",
        )),
    }
}

/// Which grants.
pub(super) fn filter(value: Option<pb::GrantFilter>) -> Result<GrantFilter> {
    let Some(pb::GrantFilter {
        integration: name,
        states,
        beneficiary,
        target: place,
    }) = value
    else {
        return Ok(GrantFilter::default());
    };
    if states.len() > 6 {
        return Err(ServiceError::invalid(
            "filter.states",
            "holds more than 6 states",
        ));
    }
    let subject = match beneficiary {
        None => None,
        Some(who) => match principal("filter.beneficiary", Some(who))? {
            Principal::User(user) => Some(format!("user:{user}")),
            Principal::Email(email) => Some(email.to_string()),
        },
    };
    Ok(GrantFilter {
        caller: None,
        integration: integration("filter.integration", name)?,
        states: states
            .into_iter()
            .map(|state| state_name(state).map(str::to_owned))
            .collect::<Result<_>>()?,
        subject,
        target: place
            .map(|place| target("filter.target", place))
            .transpose()?,
    })
}

fn state_name(value: i32) -> Result<&'static str> {
    match pb::GrantState::try_from(value) {
        Ok(pb::GrantState::Scheduled) => Ok("scheduled"),
        Ok(pb::GrantState::AwaitingMember) => Ok("awaiting_member"),
        Ok(pb::GrantState::Activating) => Ok("activating"),
        Ok(pb::GrantState::Active) => Ok("active"),
        Ok(pb::GrantState::Revoking) => Ok("revoking"),
        Ok(pb::GrantState::Ended) => Ok("ended"),
        Ok(pb::GrantState::Unspecified) | Err(_) => Err(ServiceError::invalid(
            "filter.states",
            "must be named states",
        )),
    }
}

/// An extension.
pub(super) fn extension(value: pb::ExtendGrantRequest) -> Result<(Extension, Vec<String>)> {
    let pb::ExtendGrantRequest {
        request_id: key,
        grant_id: id,
        duration: length,
        requester,
        reason,
        approvals,
    } = value;
    let extension = Extension {
        request_id: request_id("request_id", key)?,
        grant_id: grant_id("grant_id", &id)?,
        by: duration("duration", length)?,
        requester: text("requester", requester, MAX_REQUESTER)?,
        reason: text("reason", reason, MAX_REASON)?,
    };
    Ok((extension, approvals))
}

/// A revocation of one grant.
pub(super) fn revocation(value: pb::RevokeGrantRequest) -> Result<Revocation> {
    use pb::revoke_grant_request::Which;
    let pb::RevokeGrantRequest {
        which,
        requester,
        reason,
    } = value;
    Ok(Revocation {
        which: match which.ok_or_else(|| missing("which"))? {
            Which::GrantId(id) => WhichGrant::Id(grant_id("grant_id", &id)?),
            Which::GrantRequestId(id) => WhichGrant::Request(request_id("grant_request_id", id)?),
        },
        requester: text("requester", requester, MAX_REQUESTER)?,
        reason: text("reason", reason, MAX_REASON)?,
    })
}

/// A revocation of many grants.
#[derive(Debug)]
pub(super) struct Bulk {
    pub(super) request_id: RequestId,
    pub(super) integration: Option<IntegrationName>,
    pub(super) selector: Selector,
    pub(super) requester: String,
    pub(super) reason: String,
    pub(super) max_members: Option<usize>,
}

pub(super) fn bulk(value: pb::RevokeAccessRequest) -> Result<Bulk> {
    use pb::revoke_access_request::Selector as Wire;
    let pb::RevokeAccessRequest {
        request_id: key,
        integration: name,
        selector,
        requester,
        reason,
        max_members,
    } = value;
    let selector = match selector.ok_or_else(|| missing("selector"))? {
        Wire::Member(who) => Selector::Member(principal("member", Some(who))?),
        Wire::Target(place) => Selector::Target(target("target", place)?),
        Wire::Everything(true) => Selector::Integration,
        Wire::Everything(false) => {
            return Err(ServiceError::invalid(
                "everything",
                "must be true, or another selector given",
            ));
        }
    };
    Ok(Bulk {
        request_id: request_id("request_id", key)?,
        integration: integration("integration", name)?,
        selector,
        requester: text("requester", requester, MAX_REQUESTER)?,
        reason: required_text("reason", reason, MAX_REASON)?,
        max_members: match max_members {
            0 => None,
            some => Some(usize::try_from(some).unwrap_or(usize::MAX)),
        },
    })
}

/// What is drained, who does it and why.
pub(super) fn drain(value: pb::DrainRequest) -> Result<(Option<IntegrationName>, String, String)> {
    let pb::DrainRequest {
        integration: name,
        all_integrations,
        requester,
        reason,
    } = value;
    if name.is_empty() != all_integrations {
        return Err(ServiceError::invalid(
            "integration",
            "give either an integration or all_integrations",
        ));
    }
    Ok((
        integration("integration", name)?,
        text("requester", requester, MAX_REQUESTER)?,
        required_text("reason", reason, MAX_REASON)?,
    ))
}

pub(super) fn confirm_reapply(
    value: pb::ConfirmReapplyRequest,
) -> Result<(Option<IntegrationName>, String, String)> {
    let pb::ConfirmReapplyRequest {
        integration: name,
        requester,
        reason,
    } = value;
    Ok((
        integration("integration", name)?,
        text("requester", requester, MAX_REQUESTER)?,
        required_text("reason", reason, MAX_REASON)?,
    ))
}

/// Who asks, where the call is about the connector itself.
pub(super) fn requester(value: String) -> Result<String> {
    text("requester", value, MAX_REQUESTER)
}

/// Why, where that must be said.
pub(super) fn required_reason(value: String) -> Result<String> {
    required_text("reason", value, MAX_REASON)
}

/// The size of a page.
pub(super) fn page_size(value: i32, default: usize) -> Result<usize> {
    const MAX: usize = 500;
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(MAX)),
        Err(_) => Err(ServiceError::invalid("page_size", "must not be negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_and_unknown_enum_values_are_refused() {
        for value in [0, -1, 99] {
            assert!(project_type("f", value).is_err());
            assert!(scope("f", value).is_err());
            assert!(waits_for_access(value).is_err());
            assert!(state_name(value).is_err());
        }
    }

    #[test]
    fn text_that_disturbs_logs_or_reading_is_refused_and_not_repeated() {
        for hostile in [
            "a\nb",
            "a\0b",
            "\u{1b}[31m",
            "a\u{202e}b",
            "\u{2066}x",
            "\u{85}",
            "a\u{feff}",
        ] {
            let error = text("reason", hostile.to_owned(), 100).expect_err("refused");
            assert!(
                !error
                    .to_string()
                    .contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{error:?}"
            );
        }
        assert!(text("reason", "Grüße, 世界 🎉 'quoted'".to_owned(), 100).is_ok());
    }

    #[test]
    fn caps_count_characters_and_the_boundary_is_allowed() {
        assert!(text("f", "é".repeat(1024), MAX_REASON).is_ok());
        assert!(text("f", "é".repeat(1025), MAX_REASON).is_err());
    }

    #[test]
    fn instants_outside_of_protobufs_range_are_refused_and_inside_are_cut_to_microseconds() {
        let at = |seconds, nanos| instant("f", Some(prost_types::Timestamp { seconds, nanos }));
        for (seconds, nanos) in [
            (-1, 0),
            (LAST_SECOND + 1, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, 1_000_000_000),
        ] {
            assert!(at(seconds, nanos).is_err(), "{seconds}.{nanos}");
        }
        let cut = at(1, 1_999).expect("in range").expect("present");
        assert_eq!(cut.timestamp_subsec_nanos(), 1_000);
    }

    #[test]
    fn other_spellings_of_a_grant_id_are_refused() {
        let id = "0190a6d8-1b2c-7def-8123-456789abcdef";
        assert!(grant_id("f", id).is_ok());
        for text in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            format!("{id} "),
        ] {
            assert!(grant_id("f", &text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_empty_list_of_stack_roles_is_not_the_absence_of_one() {
        assert_eq!(
            application_roles("f", None).ok(),
            Some(ApplicationRoles::Mapped)
        );
        assert_eq!(
            application_roles("f", Some(pb::ApplicationRoles { names: vec![] })).ok(),
            Some(ApplicationRoles::Exactly(std::collections::BTreeSet::new()))
        );
    }
}
