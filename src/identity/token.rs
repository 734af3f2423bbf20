//! Bearer tokens: JSON Web Tokens of a configured issuer.
//!
//! Owns what must be true of one. Never takes the word of a token for how it is to be checked: the algorithm must be
//! one of a short list and fit the key that the issuer publishes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::domain::Timestamp;

use super::Refused;
use super::issuer::Issuer;

/// Longest token that is looked at; issuers that put hundreds of groups into one reach a few thousand bytes.
const LONGEST: usize = 12 * 1024;

/// A token that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who issued it.
    pub issuer: String,
    /// For whom.
    pub subject: String,
    /// Everything that it says.
    pub claims: Value,
}

/// Checks a token against the issuer that it names.
pub(super) async fn verify(
    token: &str,
    issuers: &[Issuer],
    now: Timestamp,
) -> Result<Verified, Refused> {
    if token.len() > LONGEST || token.split('.').count() != 3 {
        return Err(Refused::TokenMalformed);
    }
    let mut parts = token.split('.');
    let header = object(parts.next())?;
    let unproven = object(parts.next())?;
    let algorithm = algorithm(&header)?;
    let named = unproven.get("iss").and_then(Value::as_str);
    let issuer = issuers
        .iter()
        .find(|issuer| Some(issuer.name()) == named)
        .ok_or(Refused::TokenIssuer)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(Refused::TokenMalformed),
    };
    let key = issuer.key(kid, algorithm).await?;
    // The times are compared below, with the clock that everything else here goes by.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decode =
        |key: &DecodingKey| jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
    let claims = match decode(&key) {
        Ok(read) => read.claims,
        // A token without the name of its key does not show that the key is a new one: its signature does.
        Err(_) if kid.is_none() => {
            let key = issuer.newest_key(algorithm).await?;
            decode(&key).map_err(|_| Refused::TokenSignature)?.claims
        }
        Err(_) => return Err(Refused::TokenSignature),
    };
    check(&claims, issuer, now)
}

fn object(part: Option<&str>) -> Result<Map<String, Value>, Refused> {
    let bytes = part.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or(Refused::TokenMalformed)
}

/// The algorithm, where it is one by which only the issuer can sign.
fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Refused> {
    // Extensions that must be understood are not understood here.
    if header.contains_key("crit") {
        return Err(Refused::TokenMalformed);
    }
    match header.get("alg").and_then(Value::as_str) {
        Some("RS256") => Ok(Algorithm::RS256),
        Some("RS384") => Ok(Algorithm::RS384),
        Some("RS512") => Ok(Algorithm::RS512),
        Some("PS256") => Ok(Algorithm::PS256),
        Some("PS384") => Ok(Algorithm::PS384),
        Some("PS512") => Ok(Algorithm::PS512),
        Some("ES256") => Ok(Algorithm::ES256),
        Some("ES384") => Ok(Algorithm::ES384),
        Some("EdDSA") => Ok(Algorithm::EdDSA),
        _ => Err(Refused::TokenAlgorithm),
    }
}

/// Compares what a token says with what it must say. Pure.
pub(super) fn check(
    claims: &Map<String, Value>,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<Verified, Refused> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(issuer.name()) {
        return Err(Refused::TokenIssuer);
    }
    let subject = text("sub")
        .filter(|subject| !subject.is_empty())
        .ok_or(Refused::TokenClaims)?;
    let is_meant = match claims.get("aud") {
        Some(Value::String(audience)) => audience == issuer.audience(),
        Some(Value::Array(all)) => all
            .iter()
            .any(|one| one.as_str() == Some(issuer.audience())),
        _ => return Err(Refused::TokenClaims),
    };
    if !is_meant {
        return Err(Refused::TokenAudience);
    }
    let skew = TimeDelta::from_std(issuer.skew()).unwrap_or(TimeDelta::zero());
    let expires = instant(claims, "exp")?.ok_or(Refused::TokenClaims)?;
    if expires + skew <= now {
        return Err(Refused::TokenExpired);
    }
    for name in ["nbf", "iat"] {
        if instant(claims, name)?.is_some_and(|begins| begins - skew > now) {
            return Err(Refused::TokenEarly);
        }
    }
    Ok(Verified {
        issuer: issuer.name().to_owned(),
        subject: subject.to_owned(),
        claims: Value::Object(claims.clone()),
    })
}

/// An instant in seconds since 1970, with or without a fraction, within a range where adding to it is safe.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refused> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    const YEAR_9000: f64 = 221_845_392_000.0;
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..YEAR_9000).contains(seconds))
        .ok_or(Refused::TokenClaims)?;
    #[expect(clippy::cast_possible_truncation, reason = "within bounds, see above")]
    let whole = seconds.floor() as i64;
    Timestamp::from_timestamp(whole, 0)
        .map(Some)
        .ok_or(Refused::TokenClaims)
}
