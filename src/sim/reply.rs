//! Answers and refusals, before they become HTTP.
//!
//! Owns the error bodies of the Cloud API and the rule that no JSON null is ever sent.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const HTML: &str = "text/html";

impl Reply {
    /// JSON without nulls.
    pub(crate) fn json(status: u16, mut value: Value) -> Self {
        strip_nulls(&mut value);
        Self::raw(status, JSON, value.to_string())
    }

    /// 200 with JSON.
    pub(crate) fn ok(value: Value) -> Self {
        Self::json(200, value)
    }

    /// 200 with `{}`.
    pub(crate) fn empty() -> Self {
        Self::ok(json!({}))
    }

    pub(crate) fn raw(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type,
            body: body.into(),
        }
    }

    /// The page of the edge in front of the API.
    pub(crate) fn html(status: u16) -> Self {
        let reason = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        let title = format!("{status}: {reason}");
        let page = format!("<html><title>{title}</title><body>{title}</body></html>");
        Self::raw(status, HTML, page).with("access-control-allow-methods", "GET, POST, PUT, DELETE")
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A refusal with the Cloud API's error body.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) fields: Vec<String>,
    pub(crate) retry_after: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            fields: Vec::new(),
            retry_after: None,
        }
    }

    pub(crate) fn field(mut self, name: &str) -> Self {
        self.fields.push(name.to_owned());
        self
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(failure.code));
        error.insert("message".to_owned(), json!(failure.message));
        if !failure.fields.is_empty() {
            error.insert("fields".to_owned(), json!(failure.fields));
        }
        let mut reply = Self::json(failure.status, json!({ "errors": [error] }))
            .with("x-cloud-error-codes", failure.code);
        if let Some(after) = failure.retry_after {
            reply = reply.with("retry-after", after);
        }
        reply
    }
}

/// What handlers return.
pub(crate) type Outcome = Result<Reply, Failure>;

/// Removes object fields that are null and list items that are null, at any depth.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(strip_nulls);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
