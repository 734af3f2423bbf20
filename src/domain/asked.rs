//! A request in the one form that approvers sign.
//!
//! Owns the canonical text (RFC 8785) of a request and its SHA-256. Every field that decides what is given stands in
//! it, so that an approval is of one request and of no other. Never decides whether anything is approved.

use std::collections::BTreeSet;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Timestamp;
use super::assignment::{ApplicationRoles, Assignment, Target};
use super::catalogue;
use super::ids::{ApplicationRole, Email, GrantId, IntegrationName, RequestId, UserId};
use super::request::GrantRequest;
use super::ttl::Ttl;

/// What is asked for, as people approve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Asked {
    /// A new grant.
    Create(CreateAsked),
    /// A later end of a grant.
    Extend(ExtendAsked),
}

/// A new grant, as people approve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAsked {
    /// The caller's idempotency key: what makes this request another one than the next with the same words.
    pub request_id: String,
    /// Name of the integration.
    pub integration: String,
    /// An address or a user id, as the caller writes it.
    pub beneficiary: String,
    /// Who asked; may be empty.
    #[serde(default)]
    pub requester: String,
    /// Why; may be empty.
    #[serde(default)]
    pub justification: String,
    /// Canonical role id.
    pub role: String,
    /// Targets as the audit writes them: `deployment/ID`, `security/all`, `organization`.
    pub targets: BTreeSet<String>,
    /// Stack roles that were chosen; `None` where Elastic chooses.
    #[serde(default)]
    pub application_roles: Option<BTreeSet<String>>,
    /// Seconds, counted from verified access.
    pub duration_s: i64,
    /// Not before this instant.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// Hard end.
    #[serde(default)]
    pub not_after: Option<Timestamp>,
    /// Whether somebody may be invited.
    #[serde(default)]
    pub invite: bool,
}

/// A later end, as people approve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendAsked {
    /// The caller's idempotency key of the extension.
    pub request_id: String,
    /// Which grant.
    pub grant_id: String,
    /// Seconds beyond its present end.
    pub duration_s: i64,
    /// Who asked; may be empty.
    #[serde(default)]
    pub requester: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

impl Asked {
    /// The request that a connector is about to answer.
    #[must_use]
    pub fn create(request: &GrantRequest) -> Self {
        // Taken apart, so that a new field cannot be left out of what is approved. The caller is not in it: who
        // approves knows the request and not who carries it.
        let GrantRequest {
            caller: _,
            request_id,
            integration,
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
        } = request;
        Self::Create(CreateAsked {
            request_id: request_id.to_string(),
            integration: integration.to_string(),
            beneficiary: beneficiary.to_string(),
            requester: requester.clone(),
            justification: justification.clone(),
            role: role.clone(),
            targets: targets.iter().map(ToString::to_string).collect(),
            application_roles: stack_roles(application_roles),
            duration_s: duration.seconds(),
            starts_at: *starts_at,
            not_after: *not_after,
            invite: *invite,
        })
    }

    /// The extension that a connector is about to answer.
    #[must_use]
    pub fn extend(
        request_id: &RequestId,
        grant: GrantId,
        by: Ttl,
        requester: &str,
        reason: &str,
    ) -> Self {
        Self::Extend(ExtendAsked {
            request_id: request_id.to_string(),
            grant_id: grant.to_string(),
            duration_s: by.seconds(),
            requester: requester.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// The same as the connector will understand it, with every id in its one spelling, and a short role written out.
    ///
    /// # Errors
    /// What is wrong, in words with the field in front.
    pub fn normalised(self) -> Result<Self, String> {
        match self {
            Self::Create(asked) => asked.normalised().map(Self::Create),
            Self::Extend(asked) => asked.normalised().map(Self::Extend),
        }
    }

    /// The canonical text: JSON without spaces, keys in order, text escaped no more than it must be, which is how
    /// serde_json writes it.
    #[must_use]
    pub fn canonical(&self) -> String {
        match self {
            Self::Create(asked) => asked.canonical(),
            Self::Extend(asked) => asked.canonical(),
        }
    }

    /// SHA-256 of the canonical text, in 64 hexadecimal digits: what an approval carries.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.canonical().as_bytes()))
    }
}

impl CreateAsked {
    fn normalised(self) -> Result<Self, String> {
        let Self {
            request_id,
            integration,
            beneficiary,
            requester,
            justification,
            role,
            targets,
            application_roles,
            duration_s,
            starts_at,
            not_after,
            invite,
        } = self;
        let at =
            |field: &'static str| move |error: super::ids::InvalidId| format!("{field}: {error}");
        let places: BTreeSet<Target> = targets
            .iter()
            .map(|text| target(text))
            .collect::<Result<_, _>>()
            .map_err(at("targets"))?;
        let scope = places
            .first()
            .map(Target::scope)
            .ok_or("targets: name at least one")?;
        let role = catalogue::resolve(&role, scope).map_err(|error| format!("role: {error}"))?;
        let beneficiary = if beneficiary.contains('@') {
            Email::parse(beneficiary)
                .map_err(at("beneficiary"))?
                .to_string()
        } else {
            UserId::parse(beneficiary)
                .map_err(at("beneficiary"))?
                .to_string()
        };
        let application_roles = application_roles
            .map(|names| {
                names
                    .into_iter()
                    .map(|name| ApplicationRole::parse(name).map(|name| name.to_string()))
                    .collect::<Result<_, _>>()
            })
            .transpose()
            .map_err(at("application_roles"))?;
        Ok(Self {
            request_id: RequestId::parse(request_id)
                .map_err(at("request_id"))?
                .to_string(),
            integration: IntegrationName::parse(integration)
                .map_err(at("integration"))?
                .to_string(),
            beneficiary,
            requester,
            justification,
            role: role.id.to_owned(),
            targets: places.iter().map(ToString::to_string).collect(),
            application_roles,
            duration_s: Ttl::from_seconds(duration_s)
                .map_err(|error| format!("duration_s: {error}"))?
                .seconds(),
            starts_at,
            not_after,
            invite,
        })
    }

    fn canonical(&self) -> String {
        let Self {
            request_id,
            integration,
            beneficiary,
            requester,
            justification,
            role,
            targets,
            application_roles,
            duration_s,
            starts_at,
            not_after,
            invite,
        } = self;
        // Members in the order of their names, which the canonical form demands, whatever map stands behind.
        json!({
            "application_roles": application_roles,
            "beneficiary": beneficiary,
            "duration_s": duration_s,
            "integration": integration,
            "invite": invite,
            "justification": justification,
            "kind": "create",
            "not_after": not_after.map(instant),
            "request_id": request_id,
            "requester": requester,
            "role": role,
            "starts_at": starts_at.map(instant),
            "targets": targets,
        })
        .to_string()
    }
}

impl ExtendAsked {
    fn normalised(self) -> Result<Self, String> {
        let Self {
            request_id,
            grant_id,
            duration_s,
            requester,
            reason,
        } = self;
        Ok(Self {
            request_id: RequestId::parse(request_id)
                .map_err(|error| format!("request_id: {error}"))?
                .to_string(),
            grant_id: GrantId::parse(&grant_id)
                .map_err(|error| format!("grant_id: {error}"))?
                .to_string(),
            duration_s: Ttl::from_seconds(duration_s)
                .map_err(|error| format!("duration_s: {error}"))?
                .seconds(),
            requester,
            reason,
        })
    }

    fn canonical(&self) -> String {
        let Self {
            request_id,
            grant_id,
            duration_s,
            requester,
            reason,
        } = self;
        json!({
            "duration_s": duration_s,
            "grant_id": grant_id,
            "kind": "extend",
            "reason": reason,
            "request_id": request_id,
            "requester": requester,
        })
        .to_string()
    }
}

/// A target in the words of the audit, read back.
///
/// # Errors
/// [`super::ids::InvalidId`] when it is none.
pub fn target(text: &str) -> Result<Target, super::ids::InvalidId> {
    Assignment::parse(&format!("any on {text}")).map(|one| one.target)
}

/// Stack roles as texts; `None` where Elastic chooses.
#[must_use]
pub fn stack_roles(roles: &ApplicationRoles) -> Option<BTreeSet<String>> {
    match roles {
        ApplicationRoles::Mapped => None,
        ApplicationRoles::Exactly(names) => Some(names.iter().map(ToString::to_string).collect()),
    }
}

/// UTC with as many digits of the fraction as there are: none, three or six.
fn instant(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> CreateAsked {
        CreateAsked {
            request_id: "r-1".to_owned(),
            integration: "main".to_owned(),
            beneficiary: "ada@example.com".to_owned(),
            requester: String::new(),
            justification: "say \"why\"\n\u{1}ü".to_owned(),
            role: "deployment-viewer".to_owned(),
            targets: ["deployment/b".to_owned(), "deployment/a".to_owned()].into(),
            application_roles: None,
            duration_s: 3600,
            starts_at: None,
            not_after: "2026-03-02T11:00:00.5Z".parse().ok(),
            invite: false,
        }
    }

    #[test]
    fn the_canonical_text_is_the_one_of_the_documentation() {
        let text = Asked::Create(asked()).canonical();
        assert_eq!(
            text,
            "{\"application_roles\":null,\"beneficiary\":\"ada@example.com\",\"duration_s\":3600,\
             \"integration\":\"main\",\"invite\":false,\
             \"justification\":\"say \\\"why\\\"\\n\\u0001ü\",\"kind\":\"create\",\
             \"not_after\":\"2026-03-02T11:00:00.500Z\",\"request_id\":\"r-1\",\"requester\":\"\",\
             \"role\":\"deployment-viewer\",\"starts_at\":null,\
             \"targets\":[\"deployment/a\",\"deployment/b\"]}"
        );
        assert_eq!(Asked::Create(asked()).digest().len(), 64);
    }

    #[test]
    fn every_field_changes_the_digest() {
        let base = Asked::Create(asked()).digest();
        let changes: [fn(&mut CreateAsked); 12] = [
            |one| one.request_id.push('x'),
            |one| one.integration.push('x'),
            |one| one.beneficiary.push('x'),
            |one| one.requester.push('x'),
            |one| one.justification.push('x'),
            |one| one.role.push('x'),
            |one| drop(one.targets.pop_last()),
            |one| one.application_roles = Some(BTreeSet::new()),
            |one| one.duration_s += 1,
            |one| one.starts_at = one.not_after,
            |one| one.not_after = None,
            |one| one.invite = true,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = asked();
            change(&mut other);
            assert_ne!(Asked::Create(other).digest(), base, "{index}");
        }
    }

    #[test]
    fn what_people_write_becomes_what_the_connector_understands() {
        let written = CreateAsked {
            beneficiary: "Ada@Example.com".to_owned(),
            role: "viewer".to_owned(),
            ..asked()
        };
        let normal = Asked::Create(written).normalised().expect("well formed");
        assert_eq!(normal, Asked::Create(asked()));
        let nowhere = CreateAsked {
            targets: BTreeSet::new(),
            ..asked()
        };
        assert!(Asked::Create(nowhere).normalised().is_err());
    }

    fn extension() -> ExtendAsked {
        ExtendAsked {
            request_id: "r-2".to_owned(),
            grant_id: "019A0000-0000-7000-8000-000000000001".to_owned(),
            duration_s: 600,
            requester: "ada".to_owned(),
            reason: "still burning".to_owned(),
        }
    }

    #[test]
    fn an_extension_has_a_canonical_text_of_its_own() {
        let normal = Asked::Extend(extension())
            .normalised()
            .expect("well formed");
        assert_eq!(
            normal.canonical(),
            "{\"duration_s\":600,\"grant_id\":\"019a0000-0000-7000-8000-000000000001\",\
             \"kind\":\"extend\",\"reason\":\"still burning\",\"request_id\":\"r-2\",\
             \"requester\":\"ada\"}"
        );
        let wrong = [
            ExtendAsked {
                request_id: String::new(),
                ..extension()
            },
            ExtendAsked {
                grant_id: "1".to_owned(),
                ..extension()
            },
            ExtendAsked {
                duration_s: 0,
                ..extension()
            },
        ];
        for (asked, field) in wrong
            .into_iter()
            .zip(["request_id", "grant_id", "duration_s"])
        {
            let error = Asked::Extend(asked).normalised().expect_err(field);
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn targets_and_stack_roles_are_read_back_from_their_words() {
        let read = target("deployment/a").expect("well formed");
        assert_eq!(read.to_string(), "deployment/a");
        assert!(target("somewhere").is_err());
        assert_eq!(stack_roles(&ApplicationRoles::Mapped), None);
        let none = stack_roles(&ApplicationRoles::Exactly(BTreeSet::new()));
        assert_eq!(none, Some(BTreeSet::new()));
    }
}
