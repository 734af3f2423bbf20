//! Why a use case did not happen.
//!
//! Owns one sum type for every refusal and failure. Never holds text from upstream or from the ledger in what it
//! displays: causes are sources, for our log only.

use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::grant::InvalidTransition;
use crate::domain::law;
use crate::policy;
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{ReadError, Refusal};

/// Why a use case did not happen. `Display` is safe to show to the caller.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A field of the request is not well formed.
    #[error("{field}: {problem}")]
    InvalidField {
        /// Path of the field.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// There is no such grant, or it belongs to another caller: both look the same.
    #[error("no such grant; the list of grants shows their ids")]
    UnknownGrant,
    /// There is no integration of that name.
    #[error("no integration of that name is configured; ListIntegrations names them")]
    UnknownIntegration,
    /// A complete read shows no such member.
    #[error("the beneficiary is not a member of the organization; {remedy}")]
    NotAMember {
        /// What to do.
        remedy: &'static str,
    },
    /// The member was not shown, and the read does not prove that there is none.
    #[error(
        "the beneficiary was not shown, but the key sees a filtered list of members, so nobody can tell; give the connector's key the role organization-admin"
    )]
    NotShown,
    /// Several members share the address.
    #[error("several members share this address; name the user id instead")]
    Ambiguous,
    /// The connector's own identity.
    #[error("this member is the connector's own identity, which it never changes")]
    OwnIdentity,
    /// There is no such deployment or project in this organization.
    #[error(
        "{what} does not exist in this organization, or is shut down; {list} names those that can be granted"
    )]
    UnknownResource {
        /// What was looked for, with its id.
        what: String,
        /// The call that lists what exists.
        list: &'static str,
    },
    /// The request id was used with another body or for another call.
    #[error("this request_id was used with another body; choose a new one for a new request")]
    RequestIdReused,
    /// The request id was revoked before its grant arrived.
    #[error("this request_id was revoked before it arrived; nothing was granted")]
    RequestClosed,
    /// Policy refuses.
    #[error(transparent)]
    Policy(#[from] policy::Refusal),
    /// The customer's law refuses, or the settings do.
    #[error(transparent)]
    Law(Box<law::Refusal>),
    /// The key of the integration would expire before the access could be taken away.
    #[error(
        "the connector's key expires at {}, before this access would end; ask for a shorter time or have the key rotated",
        expires_at.format("%Y-%m-%dT%H:%M:%SZ")
    )]
    KeyExpires {
        /// When the key expires.
        expires_at: Timestamp,
    },
    /// The state of the grant does not allow it.
    #[error(transparent)]
    State(#[from] InvalidTransition),
    /// A bulk change would reach more members than allowed without saying so.
    #[error(
        "{members} members would lose access, more than the {limit} allowed; set max_members to go on"
    )]
    TooMany {
        /// How many members.
        members: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// New grants are refused because the integration drains.
    #[error("the connector is draining and takes no new grants")]
    Draining,
    /// Ledger and witness disagree: nothing is granted until an operator has looked.
    #[error(
        "the connector is in hold since {} ({}): its ledger may have been restored or lost, so nothing is granted or extended until an operator has looked: `latchkey hold`",
        since.format("%Y-%m-%dT%H:%M:%SZ"),
        reasons.join(", ")
    )]
    Held {
        /// Since when.
        since: Timestamp,
        /// Codes of the reasons.
        reasons: Vec<String>,
    },
    /// The witness cannot be written, so that an intent would be known to the ledger alone.
    #[error(
        "the connector's witness cannot be written, so nothing is granted; have its operator look at the volume of the witness"
    )]
    Unwitnessed,
    /// Our clock and upstream's differ too much.
    #[error(
        "the connector's clock and Elastic Cloud's differ by {} s, more than the {} s allowed, so access would end at the wrong time; have its operator set the clock right",
        skew_ms / 1000,
        limit.num_seconds()
    )]
    ClockSkew {
        /// Upstream's clock minus ours, in milliseconds.
        skew_ms: i64,
        /// What is allowed.
        limit: TimeDelta,
    },
    /// The connector owns no such assignment.
    #[error(
        "the connector owns no such assignment of this member; the list of overdue removals and ExplainAccess show what it owns"
    )]
    NotOwned,
    /// An approval or an emergency token that came with the request is not taken.
    #[error("{field} {problem}")]
    Voucher {
        /// Which one.
        field: String,
        /// Stable code: `approval_refused` or `break_glass_refused`.
        code: &'static str,
        /// Stable word for what is wrong.
        why: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// What is asked does not fit how the assignment stands.
    #[error("{problem}")]
    Unfit {
        /// Stable code.
        code: &'static str,
        /// Why not, and what to do instead.
        problem: &'static str,
    },
    /// Others changed the member again and again.
    #[error("the member was changed by others at the same time; try again")]
    Contended,
    /// It is too close to the end of access for anybody but the replica that takes it away.
    #[error(
        "this access is about to end, and only the replica that takes it away may still change that: repeat the call, which may reach that one, or ask for a new grant; some ten seconds before the end any replica extends"
    )]
    OwnerOnly,
    /// A limit of the connector was reached.
    #[error("too many {what} at once; try again later")]
    Exhausted {
        /// What there was too much of.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// So much access ends at that time that it could not be taken away within the bound.
    #[error(
        "access that ends then might be taken away up to {} s late, more than the {} s allowed, because too much ends at the same time; {}",
        predicted.num_seconds(),
        bound.num_seconds(),
        another_end(earliest)
    )]
    TooLate {
        /// How late it might become.
        predicted: TimeDelta,
        /// How late it may become.
        bound: TimeDelta,
        /// The end that was asked for.
        asked: Timestamp,
        /// The first end from then on that can be kept.
        earliest: Option<Timestamp>,
    },
    /// Elastic Cloud gave no usable answer.
    #[error("{}", upstream(.0))]
    Upstream(#[source] ReadError),
    /// The ledger could not do it.
    #[error("{}", ledger(.0))]
    Ledger(#[from] LedgerError),
}

/// Short for the results of the service.
pub type Result<T> = std::result::Result<T, ServiceError>;

impl ServiceError {
    /// A malformed field.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidField {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// Stable code in lower case, for audit, metrics and callers.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidField { .. } => "field_invalid",
            Self::UnknownGrant => "grant_unknown",
            Self::UnknownIntegration => "integration_unknown",
            Self::NotAMember { .. } => "not_a_member",
            Self::NotShown => "member_not_shown",
            Self::Ambiguous => "member_ambiguous",
            Self::OwnIdentity => "own_identity",
            Self::UnknownResource { .. } => "resource_unknown",
            Self::RequestIdReused => "request_id_reused",
            Self::RequestClosed => "request_closed",
            Self::Policy(refusal) => refusal.code,
            Self::Law(refusal) => refusal.code,
            Self::KeyExpires { .. } => "key_expires",
            Self::State(_) => "wrong_state",
            Self::TooMany { .. } => "too_many_members",
            Self::Draining => "draining",
            Self::Held { .. } => "hold",
            Self::Unwitnessed => "witness_unavailable",
            Self::ClockSkew { .. } => "clock_skew",
            Self::NotOwned => "access_not_owned",
            Self::Unfit { code, .. } | Self::Voucher { code, .. } => code,
            Self::Contended => "contended",
            Self::OwnerOnly => "owner_only",
            Self::Exhausted { .. } => "limit_reached",
            Self::TooLate { .. } => "lateness_exceeded",
            Self::Upstream(ReadError::Unavailable { .. }) => "upstream_unavailable",
            Self::Upstream(ReadError::Refused(refusal)) => match refusal {
                Refusal::Unauthenticated { .. } => "upstream_unauthenticated",
                Refusal::Forbidden { .. } => "upstream_forbidden",
                Refusal::NotFound { .. } => "upstream_not_found",
                Refusal::Invalid { .. } => "upstream_invalid",
                Refusal::Throttled { .. } => "upstream_throttled",
                Refusal::NotSent { .. } => "upstream_not_reached",
                Refusal::KeyRotated => "upstream_key_rotated",
            },
            Self::Ledger(error) => error.code(),
        }
    }

    /// Whether this is a decision worth an audit event, rather than a malformed request or a failure.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::UnknownGrant
            | Self::NotAMember { .. }
            | Self::NotShown
            | Self::Ambiguous
            | Self::OwnIdentity
            | Self::UnknownResource { .. }
            | Self::RequestIdReused
            | Self::RequestClosed
            | Self::Policy(_)
            | Self::Law(_)
            | Self::KeyExpires { .. }
            | Self::State(_)
            | Self::TooMany { .. }
            | Self::Held { .. }
            | Self::ClockSkew { .. }
            | Self::NotOwned
            | Self::Unfit { .. }
            | Self::Voucher { .. }
            | Self::TooLate { .. }
            | Self::Draining => true,
            Self::InvalidField { .. }
            | Self::UnknownIntegration
            | Self::Unwitnessed
            | Self::Contended
            | Self::OwnerOnly
            | Self::Exhausted { .. }
            | Self::Upstream(_)
            | Self::Ledger(_) => false,
        }
    }
}

fn another_end(earliest: &Option<Timestamp>) -> String {
    earliest.map_or_else(
        || "ask for a much earlier or later end".to_owned(),
        |at| {
            format!(
                "the earliest later end that can be kept is {}",
                at.format("%Y-%m-%dT%H:%M:%SZ")
            )
        },
    )
}

fn upstream(error: &ReadError) -> &'static str {
    match error {
        ReadError::Unavailable { code } if code == "organization_not_visible" => {
            "the connector's key does not see the organization it is meant for; have its operator check `organization_id` and the key"
        }
        ReadError::Unavailable { code } if code == "several_organizations" => {
            "the connector's key sees several organizations; have its operator set `organization_id`"
        }
        ReadError::Unavailable { .. } => "Elastic Cloud gave no usable answer; try again",
        ReadError::Refused(refusal) => match refusal {
            Refusal::Unauthenticated { .. } => {
                "Elastic Cloud does not accept the connector's key; have its operator check the key"
            }
            Refusal::Forbidden { .. } => {
                "Elastic Cloud does not allow this to the connector's key; give it the role organization-admin"
            }
            Refusal::NotFound { .. } => "Elastic Cloud does not know this",
            Refusal::Invalid { .. } => "Elastic Cloud rejects the request",
            Refusal::Throttled { .. } => {
                "Elastic Cloud throttles the connector's key; try again later"
            }
            Refusal::NotSent { code } if code == "no_key" => {
                "the connector has no key to Elastic Cloud yet; have its operator check the secret store"
            }
            Refusal::NotSent { .. } => "Elastic Cloud could not be reached; try again",
            Refusal::KeyRotated => "the connector's key was rotated meanwhile; try again",
        },
    }
}

fn ledger(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Conflict { .. } => {
            "the member was changed by others at the same time; try again"
        }
        LedgerError::Unavailable { .. } if error.is_full() => {
            "the disk of the connector's ledger is full: nothing new is granted until its operator makes room"
        }
        LedgerError::Unavailable { .. } => "the connector's ledger is unavailable; try again",
        LedgerError::CommitUnknown { .. } => {
            "it is not known whether this was recorded; repeat the call with the same request_id"
        }
        LedgerError::Corrupt { .. } => "the connector's ledger holds a record that cannot be read",
        LedgerError::OrganizationTaken { .. } => "the organization belongs to another integration",
    }
}
