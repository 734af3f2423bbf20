//! Page and resume tokens.
//!
//! Owns that a token fits only the call, and the filter, that gave it. Never carries authority: what a caller may
//! see is decided anew for each page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::service::{Result, ServiceError};

/// Longest token looked at, in bytes.
const MAX: usize = 2048;

/// Bytes of the digest that bind a token.
const BOUND: usize = 8;

fn binding(call: &str, filter: &str) -> [u8; BOUND] {
    let digest = Sha256::digest(format!("{call}\n{filter}"));
    let mut bound = [0; BOUND];
    bound.copy_from_slice(&digest[..BOUND]);
    bound
}

/// A token for `cursor`, bound to a call and its filter.
pub(super) fn encode(call: &str, filter: &str, cursor: &str) -> String {
    let mut bytes = binding(call, filter).to_vec();
    bytes.extend_from_slice(cursor.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The cursor of a token, `None` for an empty one.
pub(super) fn decode(
    field: &'static str,
    call: &str,
    filter: &str,
    token: &str,
) -> Result<Option<String>> {
    if token.is_empty() {
        return Ok(None);
    }
    let open = || {
        if token.len() > MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let cursor = bytes.strip_prefix(&binding(call, filter))?;
        String::from_utf8(cursor.to_vec()).ok()
    };
    open().map(Some).ok_or_else(|| {
        ServiceError::invalid(
            field,
            "is not a token that this call gave for this filter; leave it empty to begin anew",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_only_the_call_and_filter_that_gave_it() {
        let token = encode("ListGrants", "a", "cursor");
        let decode =
            |call, filter, token: &str| super::decode("page_token", call, filter, token).ok();
        assert_eq!(
            decode("ListGrants", "a", &token),
            Some(Some("cursor".to_owned()))
        );
        assert_eq!(decode("ListGrants", "b", &token), None);
        assert_eq!(decode("ListMembers", "a", &token), None);
        assert_eq!(decode("ListGrants", "a", ""), Some(None));
        for hostile in ["x", "%%%", "AAAA", &"A".repeat(4096)] {
            assert_eq!(decode("ListGrants", "a", hostile), None);
        }
    }
}
