//! Failures in words that a caller may read: what happened and what to do.
//!
//! Owns codes and texts. Never repeats what upstream wrote.

use crate::domain::Timestamp;
use crate::domain::grant::LastError;
use crate::domain::observation::Incomplete;
use crate::ports::provider::{ReadError, Refusal};

pub(super) fn explain(refusal: &Refusal, at: Timestamp) -> LastError {
    let remedy = match refusal {
        Refusal::Unauthenticated { .. } => "check the key in the secret store, or rotate it",
        Refusal::Forbidden { .. } => {
            "the key needs the organization-admin role, and a deployment that is shut down refuses changes"
        }
        Refusal::NotFound { .. } => "check the base URL and the organization of the integration",
        Refusal::Invalid { .. } => {
            "check member, role and target; Elastic Cloud rejects the request as it is"
        }
        Refusal::Throttled { .. } => "it is tried again once the rate limit allows",
        Refusal::NotSent { .. } => "it is tried again; check that Elastic Cloud can be reached",
        Refusal::KeyRotated => "it is tried again with the new key",
    };
    LastError {
        code: refusal.code().to_owned(),
        message: format!("{refusal}: {remedy}"),
        at,
    }
}

pub(super) fn explain_unknown(code: &str, at: Timestamp) -> LastError {
    LastError {
        code: code.to_owned(),
        message: "Elastic Cloud did not answer; what happened is found out by reading".to_owned(),
        at,
    }
}

pub(super) fn explain_read(error: &ReadError, at: Timestamp) -> LastError {
    LastError {
        code: error.code().to_owned(),
        message: format!("{error}; the read is tried again, and removals are sent without it"),
        at,
    }
}

pub(super) fn explain_incomplete(incomplete: Incomplete, at: Timestamp) -> LastError {
    let (code, message) = match incomplete {
        Incomplete::KeyIsNotOwner => (
            "key_not_owner",
            "the key does not see the organization's owners: give it the organization-admin role",
        ),
        Incomplete::OtherOrganization => (
            "other_organization",
            "the key sees another organization: check organization_id and the key",
        ),
        Incomplete::MorePages => (
            "more_pages",
            "Elastic Cloud hints at more members than it showed: update the connector",
        ),
        Incomplete::Ambiguous => (
            "ambiguous_members",
            "Elastic Cloud showed members that cannot be told apart",
        ),
    };
    LastError {
        code: code.to_owned(),
        message: message.to_owned(),
        at,
    }
}

pub(super) fn explain_own_identity(at: Timestamp) -> LastError {
    LastError {
        code: "own_identity".to_owned(),
        message: "the connector's own identity is never touched: use a key of another member"
            .to_owned(),
        at,
    }
}
