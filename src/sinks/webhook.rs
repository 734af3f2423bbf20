//! Signed CloudEvents over HTTP.
//!
//! Owns the form of CloudEvents 1.0 in JSON and the signature of Standard Webhooks. The stored bytes of an event stand
//! in `data` unchanged.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::event_id;
use super::http::{Answer, Http, HttpOptions, refusal, unavailable};
use crate::ports::audit::{AuditRecord, AuditSink, Undelivered};
use crate::ports::{Clock, SecretStore};

/// Answers are not read further; nothing in them matters.
const MAX_ANSWER: usize = 64 * 1024;

/// How a webhook is called.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// Where and how.
    pub http: HttpOptions,
    /// Whether one request carries many events.
    pub batched: bool,
    /// Which ledger the events are of: part of their ids.
    pub ledger: String,
}

/// A webhook.
#[derive(Debug)]
pub struct WebhookSink {
    http: Http,
    batched: bool,
    ledger: String,
    clock: Arc<dyn Clock>,
}

/// What of an event stands outside of it as well.
#[derive(Debug, Deserialize)]
struct Head {
    at: String,
    subject: Option<String>,
    kind: Kind,
}

#[derive(Debug, Deserialize)]
struct Kind {
    event: String,
}

impl WebhookSink {
    /// A webhook that signs with what is in `secret`.
    #[must_use]
    pub fn new(
        options: WebhookOptions,
        secret: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            http: Http::new(options.http, secret),
            batched: options.batched,
            ledger: options.ledger,
            clock,
        }
    }

    /// One request. A secret that was kept and is refused is fetched anew, once.
    async fn post(&self, id: &str, content_type: &str, body: &str) -> Result<(), Undelivered> {
        let (secret, is_fresh) = self.http.secret().await?;
        let mut answer = self.signed(id, content_type, body, &secret).await?;
        let is_unknown = |answer: &Answer| {
            matches!(
                answer.status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            )
        };
        if is_unknown(&answer) {
            self.http.forget_secret().await;
            if !is_fresh {
                let (secret, _) = self.http.secret().await?;
                answer = self.signed(id, content_type, body, &secret).await?;
            }
        }
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(refusal(&answer, None))
        }
    }

    async fn signed(
        &self,
        id: &str,
        content_type: &str,
        body: &str,
        secret: &SecretString,
    ) -> Result<Answer, Undelivered> {
        let timestamp = self.clock.now().timestamp();
        let signature = sign(secret, id, timestamp, body)
            .ok_or_else(|| unavailable("secret_malformed", "the secret that signs is not `whsec_` and the base64 of 24 to 64 bytes: `echo whsec_$(openssl rand -base64 32)` makes one"))?;
        self.http
            .send(
                |client| {
                    client
                        .post(self.http.url().clone())
                        .header(CONTENT_TYPE, content_type)
                        .header("webhook-id", id)
                        .header("webhook-timestamp", timestamp.to_string())
                        .header("webhook-signature", signature)
                        .body(body.to_owned())
                },
                MAX_ANSWER,
            )
            .await
    }
}

/// The signature of Standard Webhooks, version 1; `None` when the secret is not one.
fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &str) -> Option<String> {
    let bytes = STANDARD
        .decode(secret.expose_secret().trim().strip_prefix("whsec_")?)
        .map(Zeroizing::new)
        .ok()?;
    if !(24..=64).contains(&bytes.len()) {
        return None;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

/// An event as a CloudEvent.
fn cloud_event(ledger: &str, record: &AuditRecord) -> String {
    let head: Option<Head> = serde_json::from_str(&record.body).ok();
    let kind = head.as_ref().map_or("unknown", |head| &head.kind.event);
    let mut event = json!({
        "specversion": "1.0",
        "id": event_id(ledger, record),
        "source": format!("/latchkey/ledgers/{ledger}"),
        "type": format!("latchkey.audit.v1.{kind}"),
        "datacontenttype": "application/json",
        // An extension that CloudEvents documents; as text of one length it sorts.
        "sequence": format!("{:020}", record.sequence),
    });
    if let Some(Head { at, subject, .. }) = &head {
        event["time"] = json!(at);
        if let Some(subject) = subject {
            event["subject"] = json!(subject);
        }
    }
    let mut text = event.to_string();
    text.truncate(text.len() - 1);
    text + ",\"data\":" + &record.body + "}"
}

#[async_trait]
impl AuditSink for WebhookSink {
    async fn deliver(&self, records: &[AuditRecord]) -> Result<(), Undelivered> {
        let ledger = &self.ledger;
        if self.batched {
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                return Ok(());
            };
            let events: Vec<String> = records
                .iter()
                .map(|record| cloud_event(ledger, record))
                .collect();
            let id = format!("{}-{}", event_id(ledger, first), last.sequence);
            let body = format!("[{}]", events.join(","));
            return self
                .post(&id, "application/cloudevents-batch+json", &body)
                .await;
        }
        let mut acknowledged = 0;
        for record in records {
            let id = event_id(ledger, record);
            let body = cloud_event(ledger, record);
            self.post(&id, "application/cloudevents+json", &body)
                .await
                .map_err(|failed| Undelivered {
                    acknowledged,
                    ..failed
                })?;
            acknowledged = record.sequence;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The example of the specification's own libraries.
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            "{\"test\": 2432232314}",
        );
        assert_eq!(
            signature.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn what_is_no_secret_of_a_webhook_signs_nothing() {
        for text in [
            "",
            "whsec_",
            "whsec_c2hvcnQ=",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_%%%",
        ] {
            assert_eq!(sign(&SecretString::from(text), "a", 1, "b"), None, "{text}");
        }
    }

    #[test]
    fn a_cloud_event_carries_the_stored_bytes_and_what_routes_it() {
        let body = r#"{"at":"2026-11-22T06:25:00Z", "integration":"a","subject":"user:1","kind":{"event":"second_look","assignment":"x"}}"#;
        let record = AuditRecord {
            sequence: 17,
            body: body.to_owned(),
        };
        let text = cloud_event("0199", &record);
        assert!(text.ends_with(&format!(",\"data\":{body}}}")), "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", &event_id("0199", &record)),
            ("source", "/latchkey/ledgers/0199"),
            ("type", "latchkey.audit.v1.second_look"),
            ("time", "2026-11-22T06:25:00Z"),
            ("subject", "user:1"),
            ("datacontenttype", "application/json"),
            ("sequence", "00000000000000000017"),
        ] {
            assert_eq!(event[name], value, "{name}");
        }
        // An event that this release does not know is delivered all the same.
        let record = AuditRecord {
            sequence: 18,
            body: "{\"new\":true}".to_owned(),
        };
        let event: serde_json::Value =
            serde_json::from_str(&cloud_event("0199", &record)).expect("JSON");
        assert_eq!(
            (&event["type"], &event["data"]["new"]),
            (&json!("latchkey.audit.v1.unknown"), &json!(true))
        );
    }
}
