//! What a store is to hold after its key was replaced.
//!
//! Owns comparing what is there with what was expected, and keeping whatever else the secret holds. Never writes.

use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::parse::parse_key;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError, digest};

/// What is to be written.
pub(super) enum Change {
    /// Nothing: the key is there.
    Nothing,
    /// This text, in place of the one that was read.
    Write(Zeroizing<String>),
}

/// Decides by the text that was read at `place`.
///
/// # Errors
/// [`ReplaceError::Changed`] when it holds another key than was expected; [`ReplaceError::Failed`] when it holds none.
pub(super) fn change(
    place: &str,
    text: &str,
    field: &str,
    replacement: &Replacement<'_>,
) -> Result<Change, ReplaceError> {
    let there = digest(&parse_key(place, text, field)?);
    let is_fence = digest(replacement.key) == replacement.expected;
    if there == digest(replacement.key) && !is_fence {
        return Ok(Change::Nothing);
    }
    if there != replacement.expected {
        return Err(ReplaceError::Changed {
            place: place.to_owned(),
        });
    }
    let key = replacement.key.expose_secret();
    if !text.trim_start().starts_with('{') {
        return Ok(Change::Write(Zeroizing::new(key.to_owned())));
    }
    let malformed = |_| SecretError::Malformed {
        place: place.to_owned(),
        problem: "it begins like a JSON object but is not one".to_owned(),
        remedy: "store the bare key, or one JSON object".to_owned(),
    };
    let mut object: Map<String, Value> = serde_json::from_str(text).map_err(malformed)?;
    object.insert(field.to_owned(), Value::String(key.to_owned()));
    let text = serde_json::to_string(&object).map_err(malformed)?;
    Ok(Change::Write(Zeroizing::new(text)))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn changed(text: &str, expected: &str, to: &str) -> Result<Option<String>, &'static str> {
        let expected = digest(&SecretString::from(expected));
        let replacement = Replacement {
            expected: &expected,
            key: &SecretString::from(to),
            token: "t",
        };
        match change("the test", text, "api_key", &replacement) {
            Ok(Change::Nothing) => Ok(None),
            Ok(Change::Write(text)) => Ok(Some(text.to_string())),
            Err(error) => Err(error.code()),
        }
    }

    #[test]
    fn the_key_is_replaced_and_what_stands_beside_it_stays() {
        assert_eq!(
            changed("essu_a\n", "essu_a", "essu_b"),
            Ok(Some("essu_b".to_owned()))
        );
        let json = r#"{"owner":"ada","api_key":"essu_a","n":[1]}"#;
        let written = changed(json, "essu_a", "essu_b")
            .expect("fits")
            .expect("written");
        let written: Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(
            written,
            serde_json::json!({"owner": "ada", "api_key": "essu_b", "n": [1]})
        );
    }

    #[test]
    fn another_key_than_expected_is_left_and_one_that_is_there_is_not_written_again() {
        assert_eq!(changed("essu_c", "essu_a", "essu_b"), Err("secret_changed"));
        assert_eq!(changed("essu_b", "essu_a", "essu_b"), Ok(None));
        assert_eq!(changed("", "essu_a", "essu_b"), Err("secret_malformed"));
    }

    #[test]
    fn a_fence_writes_what_is_there_once_more() {
        assert_eq!(
            changed("essu_a", "essu_a", "essu_a"),
            Ok(Some("essu_a".to_owned()))
        );
        assert_eq!(changed("essu_b", "essu_a", "essu_a"), Err("secret_changed"));
    }
}
