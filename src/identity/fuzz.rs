//! What the fuzz targets of `tests/fuzz` reach in this module, and nobody else.
//!
//! Owns nothing: decoders of what an issuer says, behind its signature. Never called by the program.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::issuer::{Issuer, fits, read_key};
use super::token;
use crate::domain::Timestamp;

/// Claims that were proven, compared with what they must say; the code of the refusal where they do not.
///
/// # Errors
/// The code.
pub fn claims(body: &[u8], issuer: &Issuer, now: Timestamp) -> Result<String, &'static str> {
    let Ok(Value::Object(claims)) = serde_json::from_slice(body) else {
        return Err("no_claims");
    };
    match token::check(&claims, issuer, now) {
        Ok(verified) => {
            assert_eq!(verified.issuer, issuer.name(), "of another issuer");
            assert!(!verified.subject.is_empty(), "of nobody");
            Ok(verified.subject)
        }
        Err(why) => Err(why.code()),
    }
}

/// How many keys of a published set can be used, and for which algorithms.
#[must_use]
pub fn keys(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let keys = document.get("keys")?.as_array()?;
    let fitting = keys.iter().filter_map(read_key).map(|key| {
        [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|one| fits(&key.jwk, one))
    });
    Some(format!("{:?}", fitting.collect::<Vec<_>>()))
}
