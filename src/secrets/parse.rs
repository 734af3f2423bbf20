//! From what a store holds to the bare key.
//!
//! Owns the two accepted shapes: the key alone, or a JSON object with the key in one field. Never quotes any part
//! of the text in an error.

use std::fmt;

use secrecy::SecretString;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::ports::secrets::SecretError;

/// The field of a JSON secret that holds the key, unless configured otherwise.
pub const DEFAULT_FIELD: &str = "api_key";

/// The most bytes a store may hand over. Keys are a few hundred bytes; stores allow 64 KiB.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// The longest key that makes sense in a header.
const MAX_KEY_BYTES: usize = 4096;

/// Takes the key out of the text found at `place`: the text itself without surrounding white space, or the string
/// in `field` when the text is a JSON object.
///
/// # Errors
/// [`SecretError::Malformed`] saying what is wrong, without the text.
pub fn parse_key(place: &str, text: &str, field: &str) -> Result<SecretString, SecretError> {
    let malformed = |problem: String, remedy: String| SecretError::Malformed {
        place: place.to_owned(),
        problem,
        remedy,
    };
    let shapes = || format!("store the bare key, or a JSON object such as {{\"{field}\": \"…\"}}");
    let text = text.trim();
    if text.is_empty() {
        return Err(malformed("it is empty".to_owned(), shapes()));
    }
    if text.len() > MAX_SECRET_BYTES {
        return Err(malformed(
            format!("it is longer than {MAX_SECRET_BYTES} bytes"),
            shapes(),
        ));
    }
    let key = if text.starts_with('{') {
        match field_of(text, field) {
            Ok(Found::One(key)) => key,
            Ok(Found::None) => {
                return Err(malformed(
                    format!("the JSON object has no field `{field}`"),
                    format!(
                        "add the field `{field}`, or name the right one with `field` in the configuration"
                    ),
                ));
            }
            Ok(Found::Several) => {
                return Err(malformed(
                    format!("the JSON object has the field `{field}` more than once"),
                    "keep one of them".to_owned(),
                ));
            }
            Ok(Found::NotText) => {
                return Err(malformed(
                    format!("the field `{field}` of the JSON object is not a string"),
                    shapes(),
                ));
            }
            // The parser's own words are dropped: some of them quote what they met.
            Err(error) => {
                return Err(malformed(
                    format!(
                        "it begins like a JSON object but is not one (line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                    shapes(),
                ));
            }
        }
    } else {
        Zeroizing::new(text.to_owned())
    };
    check_key(&key)
        .map_err(|(problem, remedy)| malformed(problem.to_owned(), remedy.to_owned()))?;
    Ok(SecretString::from(key.as_str()))
}

fn check_key(key: &str) -> Result<(), (&'static str, &'static str)> {
    const ONLY_THE_KEY: &str = "store only the key as Elastic Cloud showed it when it was created, usually beginning with `essu_`";
    if key.is_empty() {
        return Err(("the key is empty", ONLY_THE_KEY));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(("the key is longer than 4096 bytes", ONLY_THE_KEY));
    }
    if key.starts_with(['"', '\'']) {
        return Err(("the key stands in quotes", ONLY_THE_KEY));
    }
    let scheme = key.split_ascii_whitespace().next().unwrap_or_default();
    if scheme.len() < key.len()
        && (scheme.eq_ignore_ascii_case("apikey") || scheme.eq_ignore_ascii_case("authorization:"))
    {
        return Err((
            "it is a whole `Authorization` header instead of a key",
            ONLY_THE_KEY,
        ));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err((
            "the key contains spaces, line breaks or characters that are not ASCII",
            ONLY_THE_KEY,
        ));
    }
    Ok(())
}

/// What an object has under the name that was looked for.
pub(super) enum Found {
    None,
    One(Zeroizing<String>),
    Several,
    NotText,
}

/// Looks for a string field of a JSON object.
///
/// # Errors
/// When `text` is not one JSON object. The error's words may quote the text.
pub(super) fn field_of(text: &str, field: &str) -> serde_json::Result<Found> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Field(field).deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

/// Reads one string field of an object and drops the rest unread.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Found;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::None;
        while let Some(name) = map.next_key::<String>()? {
            if name.as_str() != self.0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(Text)?;
            found = match (found, value) {
                (Found::None, Some(key)) => Found::One(key),
                (Found::None, None) => Found::NotText,
                _ => Found::Several,
            };
        }
        Ok(found)
    }
}

/// A string, or `None` for any other scalar.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Zeroizing<String>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Zeroizing<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Zeroizing::new(text.to_owned())))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn parsed(text: &str, field: &str) -> Result<String, SecretError> {
        parse_key("the test", text, field).map(|key| key.expose_secret().to_owned())
    }

    #[test]
    fn a_bare_key_and_a_json_object_give_the_same_key() {
        for text in [
            "essu_abc",
            "essu_abc\n",
            " essu_abc\r\n",
            r#"{"api_key":"essu_abc"}"#,
            "{\"note\": [1, {\"api_key\": \"no\"}], \"api_key\": \"essu_abc\"}\n",
        ] {
            assert_eq!(parsed(text, DEFAULT_FIELD).as_deref(), Ok("essu_abc"));
        }
        assert_eq!(
            parsed(r#"{"api_key":"no","key":"essu_abc"}"#, "key").as_deref(),
            Ok("essu_abc")
        );
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_never_quoted() {
        let cases: &[(&str, &str)] = &[
            ("", "empty"),
            ("  \n", "empty"),
            ("{}", "no field `api_key`"),
            (r#"{"apiKey":"HUSH"}"#, "no field `api_key`"),
            (r#"{"api_key":17}"#, "not a string"),
            (r#"{"api_key":["HUSH"]}"#, "not a string"),
            (r#"{"api_key":""}"#, "empty"),
            (r#"{"api_key":"HUSH","api_key":"HUSH"}"#, "more than once"),
            (r#"{"api_key":"HUSH""#, "is not one"),
            (r#"{"api_key":"HUSH"} HUSH"#, "is not one"),
            ("{HUSH: HUSH}", "is not one"),
            ("\"HUSH\"", "quotes"),
            ("ApiKey HUSH", "header"),
            ("Authorization: ApiKey HUSH", "header"),
            ("HUSH HUSH", "spaces"),
            ("HUSH\nHUSH", "line breaks"),
            ("HUSH\u{e9}", "not ASCII"),
        ];
        for (text, expected) in cases {
            let error = parsed(text, DEFAULT_FIELD).expect_err(text);
            let all = format!("{error} {error:?} {}", error.remedy());
            assert!(error.to_string().contains(expected), "{text:?}: {error}");
            assert!(!all.contains("HUSH"), "{text:?} is quoted in {all}");
            assert!(!error.remedy().is_empty());
        }
        let long = parsed(&"x".repeat(5000), DEFAULT_FIELD).expect_err("too long");
        assert!(long.to_string().contains("4096"));
    }
}
