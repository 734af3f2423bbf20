//! Approvals and emergency tokens: JSON Web Signatures of configured people and keys.
//!
//! Owns what must be true of one before anybody looks at what it is about, and making them. Never takes the word of a
//! text for how it is to be checked: the algorithm must be one of two and fit the configured key, and the type in the
//! header keeps one kind from being taken for the other.

mod key;
mod make;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::Validation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use key::{KeyFileError, PublicKey};
pub use make::{ApprovalDraft, MakeError, SealKey, TokenDraft, claims_of};

use crate::domain::Timestamp;
use crate::domain::authority::TokenKind;
use crate::ports::seals::{EmergencyToken, SealRefused, Seals, SignedApproval};

/// `typ` of an approval.
pub const APPROVAL_TYPE: &str = "latchkey-approval+jwt";
/// `typ` of an emergency token.
pub const EMERGENCY_TYPE: &str = "latchkey-break-glass+jwt";

/// Longest text that is looked at.
const LONGEST: usize = 16 * 1024;
/// Most beneficiaries or targets of an emergency token.
const MOST: usize = 100;
/// How far the clock of whoever signed may be ahead of ours.
const SKEW: TimeDelta = TimeDelta::seconds(60);

/// What an approval claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalClaims {
    /// Configured name of the approver.
    pub iss: String,
    /// Its id: 1 to 128 characters.
    pub jti: String,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// SHA-256 of the canonical request, in 64 hexadecimal digits.
    pub req: String,
    /// `approve`.
    pub decision: String,
}

/// What an emergency token claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmergencyClaims {
    /// Configured name of the key.
    pub iss: String,
    /// Its id: 1 to 128 characters.
    pub jti: String,
    /// When it was sealed, in seconds since 1970.
    pub iat: i64,
    /// Not before, in seconds since 1970.
    pub nbf: i64,
    /// Not from then on, in seconds since 1970.
    pub exp: i64,
    /// Name of the integration.
    pub integration: String,
    /// Addresses in lower case, and user ids.
    pub beneficiaries: BTreeSet<String>,
    /// Canonical role id.
    pub role: String,
    /// Targets in the words of the audit.
    pub targets: BTreeSet<String>,
    /// Stack roles; absent where Elastic chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_roles: Option<BTreeSet<String>>,
    /// Longest duration, in seconds.
    pub max_duration_s: i64,
    /// What it is for.
    pub reason: String,
}

/// Somebody who may approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproverOptions {
    /// Name in `iss`.
    pub name: String,
    /// Every name of the person: the first is what policies see, the others are addresses and user ids.
    pub names: Vec<String>,
    /// PEM of the public key.
    pub key_file: PathBuf,
}

/// A key that seals emergency tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmergencyKeyOptions {
    /// Name in `iss`.
    pub name: String,
    /// PEM of the public key.
    pub key_file: PathBuf,
}

/// Whose signatures are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyringOptions {
    /// Who may approve.
    pub approvers: Vec<ApproverOptions>,
    /// How long ago an approval may have been signed.
    pub max_age: TimeDelta,
    /// Keys that seal emergency tokens.
    pub emergency: Vec<EmergencyKeyOptions>,
}

/// What became of reading the keys anew.
#[derive(Debug)]
pub enum Reread {
    /// They are as they were.
    Unchanged,
    /// New ones are in force.
    Changed,
    /// They cannot be used; those from before stay. The error is there when this is news.
    Kept(Option<KeyFileError>),
}

#[derive(Debug, PartialEq, Eq)]
struct Keys {
    approvers: Vec<(ApproverOptions, PublicKey)>,
    emergency: Vec<(EmergencyKeyOptions, PublicKey)>,
}

impl Keys {
    fn read(options: &KeyringOptions) -> Result<Self, KeyFileError> {
        let mut known: Vec<(String, String)> = Vec::new();
        let mut read = |name: &str, file: &std::path::Path| {
            let key = PublicKey::read(file)?;
            // One key under two names would be two approvers in one person.
            if let Some((_, other)) = known.iter().find(|(one, _)| one == key.fingerprint()) {
                return Err(KeyFileError::Shared {
                    one: other.clone(),
                    other: name.to_owned(),
                });
            }
            known.push((key.fingerprint().to_owned(), name.to_owned()));
            Ok(key)
        };
        let mut approvers = Vec::new();
        for one in &options.approvers {
            approvers.push((one.clone(), read(&one.name, &one.key_file)?));
        }
        let mut emergency = Vec::new();
        for one in &options.emergency {
            emergency.push((one.clone(), read(&one.name, &one.key_file)?));
        }
        Ok(Self {
            approvers,
            emergency,
        })
    }
}

/// The configured keys, which are read again when their files change.
#[derive(Debug)]
pub struct Keyring {
    options: KeyringOptions,
    keys: ArcSwap<Keys>,
    failed: Mutex<Option<String>>,
}

impl Keyring {
    /// Reads the keys for the first time.
    ///
    /// # Errors
    /// [`KeyFileError`] when one cannot be used, or two are the same.
    pub fn open(options: KeyringOptions) -> Result<Self, KeyFileError> {
        let keys = ArcSwap::from_pointee(Keys::read(&options)?);
        Ok(Self {
            options,
            keys,
            failed: Mutex::new(None),
        })
    }

    /// Reads the keys again. Blocks for as long as that takes.
    pub fn reread(&self) -> Reread {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match Keys::read(&self.options) {
            Ok(keys) => {
                *failed = None;
                if keys == **self.keys.load() {
                    return Reread::Unchanged;
                }
                self.keys.store(Arc::new(keys));
                Reread::Changed
            }
            Err(error) => {
                let words = error.to_string();
                let is_news = failed.replace(words.clone()) != Some(words);
                Reread::Kept(is_news.then_some(error))
            }
        }
    }
}

impl Seals for Keyring {
    fn approval(&self, text: &str, now: Timestamp) -> Result<SignedApproval, SealRefused> {
        let keys = self.keys.load();
        if keys.approvers.is_empty() {
            return Err(SealRefused::NotConfigured);
        }
        let unproven = Unproven::read(text, APPROVAL_TYPE)?;
        let (approver, key) = keys
            .approvers
            .iter()
            .find(|(one, _)| unproven.is_by(&one.name))
            .ok_or(SealRefused::UnknownKey)?;
        let claims: ApprovalClaims = unproven.proven(text, key)?;
        let (signed, until) = (instant(claims.iat)?, instant(claims.exp)?);
        in_time(signed, until, now)?;
        if now - signed > self.options.max_age {
            return Err(SealRefused::TooOld);
        }
        let is_digest = claims.req.len() == 64
            && claims
                .req
                .bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if !is_digest || claims.decision != "approve" || !is_id(&claims.jti) {
            return Err(SealRefused::Claims);
        }
        Ok(SignedApproval {
            approver: approver.name.clone(),
            names: approver.names.clone(),
            token: TokenKind::Approval.token(key.fingerprint(), &claims.jti),
            id: claims.jti,
            request: claims.req,
            until,
        })
    }

    fn emergency(&self, text: &str, now: Timestamp) -> Result<EmergencyToken, SealRefused> {
        let keys = self.keys.load();
        if keys.emergency.is_empty() {
            return Err(SealRefused::NotConfigured);
        }
        let unproven = Unproven::read(text, EMERGENCY_TYPE)?;
        let (named, key) = keys
            .emergency
            .iter()
            .find(|(one, _)| unproven.is_by(&one.name))
            .ok_or(SealRefused::UnknownKey)?;
        let claims: EmergencyClaims = unproven.proven(text, key)?;
        let EmergencyClaims {
            iss: _,
            jti,
            iat,
            nbf,
            exp,
            integration,
            beneficiaries,
            role,
            targets,
            application_roles,
            max_duration_s,
            reason,
        } = claims;
        let until = instant(exp)?;
        // A clock that is ahead must not open a token early: only `iat` has slack.
        if instant(nbf)? > now {
            return Err(SealRefused::Early);
        }
        in_time(instant(iat)?, until, now)?;
        let is_some = |set: &BTreeSet<String>| (1..=MOST).contains(&set.len());
        if !is_id(&jti) || !is_some(&beneficiaries) || !is_some(&targets) || max_duration_s < 1 {
            return Err(SealRefused::Claims);
        }
        Ok(EmergencyToken {
            key: named.name.clone(),
            token: TokenKind::BreakGlass.token(key.fingerprint(), &jti),
            id: jti,
            integration,
            beneficiaries,
            role,
            targets,
            application_roles,
            max_duration_s,
            reason,
            until,
        })
    }
}

/// A text whose signature nobody has checked yet.
struct Unproven {
    algorithm: String,
    issuer: String,
}

impl Unproven {
    fn read(text: &str, kind: &str) -> Result<Self, SealRefused> {
        if text.len() > LONGEST || text.split('.').count() != 3 {
            return Err(SealRefused::Malformed);
        }
        let mut parts = text.split('.').map(object);
        let (Some(Some(header)), Some(Some(claims))) = (parts.next(), parts.next()) else {
            return Err(SealRefused::Malformed);
        };
        let said = |map: &Map<String, Value>, name: &str| {
            map.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let algorithm = said(&header, "alg").ok_or(SealRefused::Algorithm)?;
        if !["EdDSA", "ES256"].contains(&algorithm.as_str()) {
            return Err(SealRefused::Algorithm);
        }
        // Extensions that must be understood are not understood here.
        if header.contains_key("crit") {
            return Err(SealRefused::Malformed);
        }
        if said(&header, "typ").as_deref() != Some(kind) {
            return Err(SealRefused::Type);
        }
        Ok(Self {
            algorithm,
            issuer: said(&claims, "iss").ok_or(SealRefused::UnknownKey)?,
        })
    }

    fn is_by(&self, name: &str) -> bool {
        self.issuer == name
    }

    /// The claims, once the key has proven them.
    fn proven<T: serde::de::DeserializeOwned>(
        &self,
        text: &str,
        key: &PublicKey,
    ) -> Result<T, SealRefused> {
        if self.algorithm != key.algorithm_name() {
            return Err(SealRefused::Algorithm);
        }
        // The times are compared with the clock that everything else here goes by.
        let mut validation = Validation::new(key.algorithm());
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(text, key.decoding(), &validation)
            .map_err(|_| SealRefused::Signature)?;
        serde_json::from_value(Value::Object(decoded.claims)).map_err(|_| SealRefused::Claims)
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_graphic())
}

fn instant(seconds: i64) -> Result<Timestamp, SealRefused> {
    const YEAR_9000: i64 = 221_845_392_000;
    if !(0..YEAR_9000).contains(&seconds) {
        return Err(SealRefused::Claims);
    }
    Timestamp::from_timestamp(seconds, 0).ok_or(SealRefused::Claims)
}

fn in_time(signed: Timestamp, until: Timestamp, now: Timestamp) -> Result<(), SealRefused> {
    if until <= signed {
        return Err(SealRefused::Claims);
    }
    if signed > now + SKEW {
        return Err(SealRefused::Early);
    }
    if until <= now {
        return Err(SealRefused::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
