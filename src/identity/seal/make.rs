//! Making keys, approvals and emergency tokens, away from any connector.
//!
//! Owns what a text must say to be taken later. Never stores a key, and never shows one except where it is made.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    APPROVAL_TYPE, ApprovalClaims, EMERGENCY_TYPE, EmergencyClaims, LONGEST, MOST, is_id, object,
};
use crate::domain::Timestamp;
use crate::domain::asked::Asked;

/// What stands before the 32 bytes of an Ed25519 key in SubjectPublicKeyInfo.
const PUBLIC_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// Not a signing key.
    #[error(
        "it is no Ed25519 signing key in PEM (BEGIN PRIVATE KEY), as `keygen` and openssl write it"
    )]
    Key,
    /// The system gave no randomness.
    #[error("no key could be made: the system gave no randomness")]
    Random,
    /// What was to be signed could never be used.
    #[error("{0}")]
    Draft(&'static str),
}

/// A key that signs: Ed25519.
pub struct SealKey {
    encoding: EncodingKey,
    public: Vec<u8>,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").finish_non_exhaustive()
    }
}

/// What is approved, by whom, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalDraft {
    /// Configured name of the approver.
    pub approver: String,
    /// Id of the approval.
    pub id: String,
    /// When it is signed.
    pub now: Timestamp,
    /// How long it can be used.
    pub lasts: TimeDelta,
    /// What is approved.
    pub asked: Asked,
}

/// What an emergency token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDraft {
    /// Configured name of the key.
    pub key: String,
    /// Id of the token.
    pub id: String,
    /// When it is sealed.
    pub now: Timestamp,
    /// From when it can be used.
    pub not_before: Timestamp,
    /// From when it can be used no more.
    pub not_after: Timestamp,
    /// Name of the integration.
    pub integration: String,
    /// Addresses in lower case, and user ids.
    pub beneficiaries: BTreeSet<String>,
    /// Canonical role id.
    pub role: String,
    /// Targets in the words of the audit.
    pub targets: BTreeSet<String>,
    /// Stack roles; `None` where Elastic chooses.
    pub application_roles: Option<BTreeSet<String>>,
    /// Longest duration, in seconds.
    pub max_duration_s: i64,
    /// What it is for.
    pub reason: String,
}

impl SealKey {
    /// Makes a key; answers it as the text that [`Self::parse`] reads.
    ///
    /// # Errors
    /// [`MakeError::Random`].
    pub fn generate() -> Result<(Self, SecretString), MakeError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| MakeError::Random)?;
        let der = pair.to_pkcs8().map_err(|_| MakeError::Random)?;
        let text = Zeroizing::new(pem("PRIVATE KEY", der.as_ref()));
        Ok((Self::of(&pair)?, SecretString::from(text.as_str())))
    }

    /// Reads PEM of PKCS#8, with or without the public key in it.
    ///
    /// # Errors
    /// [`MakeError::Key`], without any part of the text.
    pub fn parse(text: &SecretString) -> Result<Self, MakeError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(text.expose_secret().as_bytes())
            .map_err(|_| MakeError::Key)?;
        if block.label != "PRIVATE KEY" {
            return Err(MakeError::Key);
        }
        let der = Zeroizing::new(block.contents);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| MakeError::Key)?;
        Self::of(&pair)
    }

    fn of(pair: &Ed25519KeyPair) -> Result<Self, MakeError> {
        let der = pair.to_pkcs8().map_err(|_| MakeError::Key)?;
        Ok(Self {
            encoding: EncodingKey::from_ed_der(der.as_ref()),
            public: pair.public_key().as_ref().to_vec(),
        })
    }

    /// PEM of the public key, for `key_file` in the configuration.
    #[must_use]
    pub fn public_pem(&self) -> String {
        let der: Vec<u8> = PUBLIC_PREFIX.iter().chain(&self.public).copied().collect();
        pem("PUBLIC KEY", &der)
    }

    /// Signs an approval.
    ///
    /// # Errors
    /// [`MakeError::Draft`] when it could never be used.
    pub fn approve(&self, draft: &ApprovalDraft) -> Result<String, MakeError> {
        if !is_id(&draft.id) || draft.approver.is_empty() {
            return Err(MakeError::Draft("an approval needs an approver and an id"));
        }
        if draft.lasts < TimeDelta::seconds(1) {
            return Err(MakeError::Draft("an approval must last a second at least"));
        }
        self.sign(
            APPROVAL_TYPE,
            &ApprovalClaims {
                iss: draft.approver.clone(),
                jti: draft.id.clone(),
                iat: draft.now.timestamp(),
                exp: (draft.now + draft.lasts).timestamp(),
                req: draft.asked.digest(),
                decision: "approve".to_owned(),
            },
        )
    }

    /// Seals an emergency token.
    ///
    /// # Errors
    /// [`MakeError::Draft`] when it could never be used.
    pub fn seal(&self, draft: TokenDraft) -> Result<String, MakeError> {
        let TokenDraft {
            key,
            id,
            now,
            not_before,
            not_after,
            integration,
            beneficiaries,
            role,
            targets,
            application_roles,
            max_duration_s,
            reason,
        } = draft;
        if !is_id(&id) || key.is_empty() {
            return Err(MakeError::Draft(
                "a token needs the name of its key and an id",
            ));
        }
        if not_after <= not_before || not_after <= now {
            return Err(MakeError::Draft(
                "a token must end after it begins, and later than now",
            ));
        }
        if beneficiaries.is_empty() || targets.is_empty() {
            return Err(MakeError::Draft("a token needs a beneficiary and a target"));
        }
        if beneficiaries.len() > MOST || targets.len() > MOST {
            return Err(MakeError::Draft(
                "a token has 100 beneficiaries and targets at most",
            ));
        }
        if max_duration_s < 1 || reason.trim().is_empty() {
            return Err(MakeError::Draft(
                "a token needs a longest duration and a reason",
            ));
        }
        let text = self.sign(
            EMERGENCY_TYPE,
            &EmergencyClaims {
                iss: key,
                jti: id,
                iat: now.timestamp(),
                nbf: not_before.timestamp(),
                exp: not_after.timestamp(),
                integration,
                beneficiaries,
                role,
                targets,
                application_roles,
                max_duration_s,
                reason,
            },
        )?;
        if text.len() > LONGEST {
            return Err(MakeError::Draft("the token would be too long"));
        }
        Ok(text)
    }

    fn sign(&self, kind: &str, claims: &impl Serialize) -> Result<String, MakeError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.to_owned());
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|_| MakeError::Key)
    }
}

/// Header and claims of a signed text, unproven, for people to look at.
#[must_use]
pub fn claims_of(text: &str) -> Option<(Value, Value)> {
    let mut parts = text.trim().split('.').map(object);
    let (header, claims) = (parts.next()??, parts.next()??);
    Some((Value::Object(header), Value::Object(claims)))
}

fn pem(label: &str, der: &[u8]) -> String {
    let block = Pem::new(label, der);
    let text = pem::encode_config(&block, EncodeConfig::new().set_line_ending(LineEnding::LF));
    // It may be a private key.
    block.into_contents().zeroize();
    text
}
