//! A data stream of Elasticsearch.
//!
//! Owns the bulk request and what its answer says of each event. Documents are created under the id of their event, so
//! one that is there already is a delivery that was not acknowledged, and counts.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::ecs;
use super::event_id;
use super::http::{Answer, Http, HttpOptions, refusal, unavailable};
use crate::ports::SecretStore;
use crate::ports::audit::{AuditRecord, AuditSink, Undelivered};

/// A status of each event, and a reason for those that failed.
const MAX_ANSWER: usize = 8 << 20;
/// What is asked of the answer.
const WANTED: &str = "error.type,errors,items.create.status,items.create.error.type";

/// How a data stream is reached.
#[derive(Debug, Clone)]
pub struct ElasticsearchOptions {
    /// Where Elasticsearch is, without a path.
    pub http: HttpOptions,
    /// The data stream.
    pub data_stream: String,
    /// Which ledger the events are of: part of their ids.
    pub ledger: String,
}

/// A data stream.
#[derive(Debug)]
pub struct ElasticsearchSink {
    http: Http,
    data_stream: String,
    ledger: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bulk {
    error: Option<Cause>,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Cause>,
}

#[derive(Debug, Deserialize)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
}

impl ElasticsearchSink {
    /// A data stream that is written with the key in `api_key`.
    #[must_use]
    pub fn new(options: ElasticsearchOptions, api_key: Arc<dyn SecretStore>) -> Self {
        Self {
            http: Http::new(options.http, api_key),
            data_stream: options.data_stream,
            ledger: options.ledger,
        }
    }

    async fn post(&self, body: &str, key: &SecretString) -> Result<Answer, Undelivered> {
        let mut url = self.http.url().clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend([self.data_stream.as_str(), "_bulk"]);
        }
        url.query_pairs_mut().append_pair("filter_path", WANTED);
        let header = HeaderValue::try_from(format!("ApiKey {}", key.expose_secret()));
        let mut header = header
            .map_err(|_| unavailable("secret_malformed", "the key does not fit into a header"))?;
        header.set_sensitive(true);
        self.http
            .send(
                |client| {
                    client
                        .post(url)
                        .header(AUTHORIZATION, header)
                        .header(CONTENT_TYPE, "application/x-ndjson")
                        .body(body.to_owned())
                },
                MAX_ANSWER,
            )
            .await
    }
}

fn is_key_refused(answer: &Answer) -> bool {
    matches!(
        answer.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// What became of each event.
fn read(answer: &Answer, records: &[AuditRecord]) -> Result<(), Undelivered> {
    let bulk: Option<Bulk> = serde_json::from_slice(&answer.body).ok();
    if !answer.status.is_success() {
        let cause = bulk.and_then(|bulk| bulk.error).map(|cause| cause.kind);
        return Err(refusal(
            answer,
            cause.as_deref().filter(|kind| is_word(kind)),
        ));
    }
    let Some(bulk) = bulk.filter(|bulk| bulk.items.len() == records.len()) else {
        return Err(unavailable(
            "answer",
            "it answered something else than a bulk request gets",
        ));
    };
    let mut acknowledged = 0;
    for (item, record) in bulk.items.iter().zip(records) {
        let Outcome { status, error } = &item.create;
        if !matches!(status, 200..=299 | 409) {
            let passes = *status == 429 || *status >= 500;
            let kind = error.as_ref().map(|cause| cause.kind.as_str());
            let kind = kind.filter(|kind| is_word(kind)).unwrap_or("no reason");
            return Err(Undelivered {
                acknowledged,
                code: format!("item_{status}"),
                problem: format!(
                    "it answered {status} ({kind}) for the event of sequence {}",
                    record.sequence
                ),
                is_refused: !passes,
                retry_after: None,
            });
        }
        acknowledged = record.sequence;
    }
    Ok(())
}

/// Whether a text is the name of an error and nothing that could be somebody's.
fn is_word(text: &str) -> bool {
    text.len() <= 80
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[async_trait]
impl AuditSink for ElasticsearchSink {
    async fn deliver(&self, records: &[AuditRecord]) -> Result<(), Undelivered> {
        let mut body = String::new();
        for record in records {
            let id = event_id(&self.ledger, record);
            body += &json!({"create": {"_id": id}}).to_string();
            body.push('\n');
            body += &ecs::document(&self.ledger, record).to_string();
            body.push('\n');
        }
        let (key, is_fresh) = self.http.secret().await?;
        let mut answer = self.post(&body, &key).await?;
        if is_key_refused(&answer) {
            self.http.forget_secret().await;
            if !is_fresh {
                let (key, _) = self.http.secret().await?;
                answer = self.post(&body, &key).await?;
            }
        }
        read(&answer, records)
    }
}
