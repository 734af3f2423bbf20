//! Texts that people signed away from the connector: approvals and emergency tokens.
//!
//! Owns the contract: what is answered was signed by a configured key and is in time. Whether it is of the request at
//! hand, and unused, is for whoever asks.

use std::collections::BTreeSet;
use std::fmt::Debug;

use crate::domain::Timestamp;

/// An approval whose signature is right and which is in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedApproval {
    /// Configured name of the approver.
    pub approver: String,
    /// Every name of the person: the first one is what policies see, the others are addresses and user ids.
    pub names: Vec<String>,
    /// Id that the approver gave it.
    pub id: String,
    /// Under which it is remembered as used.
    pub token: String,
    /// SHA-256 of the request, in hexadecimal digits.
    pub request: String,
    /// When it expires.
    pub until: Timestamp,
}

/// An emergency token whose seal is right and which is in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmergencyToken {
    /// Configured name of the key that sealed it.
    pub key: String,
    /// Id that it was issued with.
    pub id: String,
    /// Under which it is remembered as used.
    pub token: String,
    /// Name of the integration that it is for.
    pub integration: String,
    /// Addresses and user ids of those whom it is for.
    pub beneficiaries: BTreeSet<String>,
    /// Canonical role id.
    pub role: String,
    /// Targets in the words of the audit.
    pub targets: BTreeSet<String>,
    /// Stack roles; `None` where Elastic chooses.
    pub application_roles: Option<BTreeSet<String>>,
    /// Longest duration, in seconds.
    pub max_duration_s: i64,
    /// What it was issued for.
    pub reason: String,
    /// When it expires.
    pub until: Timestamp,
}

/// Why a signed text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealRefused {
    /// No key is configured for texts of this kind.
    #[error("no key is configured for it")]
    NotConfigured,
    /// Not three parts of base64url, or not JSON.
    #[error("is no signed text (JWS in its compact form)")]
    Malformed,
    /// Another kind of text: the type in its header says so.
    #[error("is a signed text of another kind")]
    Type,
    /// Not signed, or signed by something that is not accepted: only EdDSA and ES256 are.
    #[error("is signed by an algorithm that is not accepted: only EdDSA and ES256 are")]
    Algorithm,
    /// By somebody who is not configured.
    #[error("is signed by nobody who is configured here")]
    UnknownKey,
    /// The signature is wrong: it was altered, or another key made it.
    #[error("does not fit its signature: it was altered, or another key signed it")]
    Signature,
    /// A claim is missing or out of bounds.
    #[error("lacks a claim that it must have, or one is out of bounds")]
    Claims,
    /// Not valid yet.
    #[error("is not valid yet")]
    Early,
    /// Too late.
    #[error("has expired")]
    Expired,
    /// Signed longer ago than is accepted.
    #[error("was signed longer ago than is accepted")]
    TooOld,
}

impl SealRefused {
    /// Every reason, for metrics.
    pub const ALL: [Self; 10] = [
        Self::NotConfigured,
        Self::Malformed,
        Self::Type,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Claims,
        Self::Early,
        Self::Expired,
        Self::TooOld,
    ];

    /// Stable code in lower case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Malformed => "malformed",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "key_unknown",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::TooOld => "too_old",
        }
    }
}

/// Checks signatures of people.
pub trait Seals: Debug + Send + Sync {
    /// Checks an approval.
    ///
    /// # Errors
    /// [`SealRefused`] with the first thing that is wrong.
    fn approval(&self, text: &str, now: Timestamp) -> Result<SignedApproval, SealRefused>;

    /// Checks an emergency token.
    ///
    /// # Errors
    /// [`SealRefused`] with the first thing that is wrong.
    fn emergency(&self, text: &str, now: Timestamp) -> Result<EmergencyToken, SealRefused>;
}
