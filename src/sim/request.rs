//! A request as the core sees it: whole, decompressed, without sockets.

use http::{HeaderMap, Method};
use serde_json::Value;

use super::reply::{Failure, strip_nulls};

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path as it came, percent-encoded
    pub(crate) path: String,
    /// Decoded pairs
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// What follows the scheme `ApiKey`, which may be written in any case.
    pub(crate) fn api_key(&self) -> Option<&str> {
        let (scheme, key) = self.header("authorization")?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("ApiKey").then(|| key.trim())
    }

    /// The body as JSON with nulls taken for absent; `{}` when there is none.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        let mut value = self.json_with_nulls()?;
        strip_nulls(&mut value);
        Ok(value)
    }

    pub(crate) fn json_with_nulls(&self) -> Result<Value, Failure> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(
                400,
                "root.invalid_data",
                format!("The body is not valid JSON: {error}"),
            )
        })
    }
}
