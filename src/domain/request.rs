//! What a caller asks for, after its text has become types.
//!
//! Owns the fingerprint that makes a repeated request recognisable. Never decides whether the ask is allowed.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Timestamp;
use super::assignment::{ApplicationRoles, Assignment, Target};
use super::ids::{CallerName, Email, IntegrationName, RequestId, UserId};
use super::ttl::Ttl;

/// Whom a request names: an Elastic Cloud user id, or an e-mail address still to be resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A member by id.
    User(UserId),
    /// A member, or someone to be invited, by address.
    Email(Email),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Email(email) => email.fmt(f),
        }
    }
}

/// One ask for time-bound access: one role on one or several targets for one beneficiary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// Who calls; rows are bound to this name.
    pub caller: CallerName,
    /// The caller's idempotency key.
    pub request_id: RequestId,
    /// Which organization.
    pub integration: IntegrationName,
    /// Who receives access.
    pub beneficiary: Principal,
    /// Who asked, as told by the caller; empty when that is the beneficiary. At most 256 characters.
    pub requester: String,
    /// Why; at most 1,024 characters, kept in ledger and audit, never logged.
    pub justification: String,
    /// Canonical role id.
    pub role: String,
    /// Where; never empty, all of one scope.
    pub targets: BTreeSet<Target>,
    /// Stack roles that go with each target.
    pub application_roles: ApplicationRoles,
    /// How long, counted from verified access.
    pub duration: Ttl,
    /// Not before this instant; at once when absent.
    pub starts_at: Option<Timestamp>,
    /// Hard end that always wins.
    pub not_after: Option<Timestamp>,
    /// Whether someone who is not yet a member may be invited to the organization.
    pub invite: bool,
}

impl GrantRequest {
    /// The assignments that this request asks for.
    #[must_use]
    pub fn assignments(&self) -> BTreeSet<Assignment> {
        self.targets
            .iter()
            .map(|target| Assignment {
                role: self.role.clone(),
                target: target.clone(),
                application_roles: self.application_roles.clone(),
            })
            .collect()
    }

    /// SHA-256 over every field but the request id: equal bodies have equal fingerprints.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        // Debug output of every field, each with its length, is injective and needs no serialiser here.
        let Self {
            caller,
            request_id: _,
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
        } = self;
        let mut hash = Sha256::new();
        for field in [
            caller.to_string(),
            integration.to_string(),
            format!("{beneficiary:?}"),
            requester.clone(),
            justification.clone(),
            role.clone(),
            format!("{targets:?}"),
            format!("{application_roles:?}"),
            duration.seconds().to_string(),
            format!("{starts_at:?}"),
            format!("{not_after:?}"),
            invite.to_string(),
        ] {
            hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(field.as_bytes());
        }
        Fingerprint(hash.finalize().into())
    }
}

/// SHA-256 of a request body, to tell a repeat from a reuse of its request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Which grants a bulk revocation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Everything of one member (off-boarding).
    Member(Principal),
    /// Everything on one target.
    Target(Target),
    /// Everything of the integration (kill switch).
    Integration,
}
