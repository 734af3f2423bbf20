//! What the sinks over HTTP send, and what they make of answers, against a server on this machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::*;
use crate::ports::SecretStore;
use crate::ports::audit::{AuditRecord, AuditSink, Undelivered};
use crate::ports::secrets::SecretError;
use crate::runtime::ManualClock;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Hands out one secret after the other, and the last one for ever.
#[derive(Debug)]
struct Secrets {
    texts: Vec<&'static str>,
    fetched: AtomicUsize,
}

impl Secrets {
    fn of(texts: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            texts: texts.to_vec(),
            fetched: AtomicUsize::new(0),
        })
    }
    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let at = self.fetched.fetch_add(1, Ordering::SeqCst);
        Ok(SecretString::from(self.texts[at.min(self.texts.len() - 1)]))
    }
    fn describe(&self) -> String {
        "the test".to_owned()
    }
}

fn records(count: u64) -> Vec<AuditRecord> {
    let record = |sequence| {
        AuditRecord {
        sequence,
        body: json!({"at": "2026-11-22T06:25:00Z", "integration": "a", "subject": "user:1", "grant_id": null, "caller": null,
            "kind": {"event": "second_look", "assignment": "x"}})
        .to_string(),
    }
    };
    (1..=count).map(record).collect()
}

fn id(sequence: u64) -> String {
    event_id("0199", &records(sequence)[sequence as usize - 1])
}

fn options(server: &MockServer, at: &str) -> HttpOptions {
    HttpOptions {
        url: Url::parse(&format!("{}{at}", server.uri())).expect("a URL"),
        timeout: Duration::from_secs(20),
        ca_file: None,
        proxy: None,
    }
}

fn webhook(server: &MockServer, secret: &Arc<Secrets>, batched: bool) -> WebhookSink {
    let options = WebhookOptions {
        http: options(server, "/hook"),
        batched,
        ledger: "0199".to_owned(),
    };
    let secret = Arc::clone(secret) as Arc<dyn SecretStore>;
    WebhookSink::new(options, secret, Arc::new(ManualClock::default()))
}

fn elasticsearch(server: &MockServer, key: &Arc<Secrets>) -> ElasticsearchSink {
    let options = ElasticsearchOptions {
        http: options(server, ""),
        data_stream: "logs-latchkey.audit-default".to_owned(),
        ledger: "0199".to_owned(),
    };
    ElasticsearchSink::new(options, Arc::clone(key) as Arc<dyn SecretStore>)
}

/// Answers with one template after the other, and the last one for ever.
struct InTurn(Mutex<Vec<ResponseTemplate>>);

impl Respond for InTurn {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let mut left = self.0.lock().expect("not poisoned");
        if left.len() > 1 {
            left.remove(0)
        } else {
            left[0].clone()
        }
    }
}

async fn server(answers: impl IntoIterator<Item = ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let answers = InTurn(Mutex::new(answers.into_iter().collect()));
    Mock::given(method("POST"))
        .respond_with(answers)
        .mount(&server)
        .await;
    server
}

async fn received(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recorded")
}

fn status(code: u16) -> ResponseTemplate {
    ResponseTemplate::new(code)
}

/// The answer to a bulk request with these outcomes.
fn bulk(statuses: &[u16]) -> ResponseTemplate {
    let item = |status: &u16| match status {
        201 => json!({"create": {"status": 201}}),
        status => {
            json!({"create": {"status": status, "error": {"type": "some_exception", "reason": "of HUSH"}}})
        }
    };
    let items: Vec<Value> = statuses.iter().map(item).collect();
    ResponseTemplate::new(200).set_body_json(json!({"errors": true, "items": items}))
}

fn failed(outcome: Result<(), Undelivered>) -> Undelivered {
    let failed = outcome.expect_err("it was not taken");
    assert!(!failed.problem.contains("HUSH"), "{failed:?}");
    failed
}

#[tokio::test]
async fn a_webhook_gets_a_signed_batch_of_cloud_events() {
    let server = server([status(204)]).await;
    let sink = webhook(&server, &Secrets::of(&[SECRET]), true);
    sink.deliver(&records(3)).await.expect("taken");
    let [request] = &received(&server).await[..] else {
        panic!("one request");
    };
    let header = |name: &str| request.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "application/cloudevents-batch+json");
    let name = format!("{}-3", id(1));
    assert_eq!(header("webhook-id"), name);
    let body = std::str::from_utf8(&request.body).expect("text");
    let signed = format!("{name}.{}.{body}", header("webhook-timestamp"));
    let key = STANDARD.decode(&SECRET["whsec_".len()..]).expect("base64");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signature = header("webhook-signature");
    let signature = STANDARD
        .decode(signature.strip_prefix("v1,").expect("version 1"))
        .expect("base64");
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &signature).expect("signed");
    let events: Vec<Value> = serde_json::from_str(body).expect("JSON");
    let ids: Vec<Value> = events.iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, [json!(id(1)), json!(id(2)), json!(id(3))]);
}

#[tokio::test]
async fn a_webhook_of_single_events_tells_how_far_it_came() {
    let server = server([status(200), status(202), status(500)]).await;
    let sink = webhook(&server, &Secrets::of(&[SECRET]), false);
    let told = failed(sink.deliver(&records(4)).await);
    assert_eq!(
        (told.acknowledged, told.code.as_str(), told.is_refused),
        (2, "http_500", false)
    );
    let requests = received(&server).await;
    let ids: Vec<_> = requests
        .iter()
        .map(|request| request.headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids, [id(1), id(2), id(3)]);
    assert!(
        requests
            .iter()
            .all(|request| request.headers["content-type"] == "application/cloudevents+json")
    );
}

#[tokio::test]
async fn what_may_pass_is_told_apart_from_what_is_refused() {
    for (answer, is_refused, wait) in [
        (status(500), false, None),
        (
            status(503).insert_header("retry-after", "7"),
            false,
            Some(7),
        ),
        (
            status(429).insert_header("retry-after", "9"),
            false,
            Some(9),
        ),
        (
            status(429).insert_header("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            false,
            None,
        ),
        (status(408), false, None),
        (status(400).insert_header("retry-after", "7"), true, None),
        (status(410), true, None),
        (
            status(307).insert_header("location", "http://127.0.0.1:1/elsewhere"),
            true,
            None,
        ),
    ] {
        let server = server([answer]).await;
        let sink = webhook(&server, &Secrets::of(&[SECRET]), true);
        let told = failed(sink.deliver(&records(1)).await);
        assert_eq!(
            (told.is_refused, told.retry_after),
            (is_refused, wait.map(Duration::from_secs)),
            "{told:?}"
        );
        assert_eq!(
            received(&server).await.len(),
            1,
            "nothing is repeated at once"
        );
    }
}

#[tokio::test]
async fn nobody_there_and_no_answer_are_failures_that_pass() {
    // A port that nobody has any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = gone.local_addr().expect("bound").port();
    drop(gone);
    let slow = server([status(200).set_delay(Duration::from_secs(60))]).await;
    let closed = WebhookOptions {
        http: HttpOptions {
            url: Url::parse(&format!("http://127.0.0.1:{port}/hook")).expect("a URL"),
            ..options(&slow, "/hook")
        },
        batched: true,
        ledger: "0199".to_owned(),
    };
    let clock = || Arc::new(ManualClock::default());
    let sink = WebhookSink::new(closed, Secrets::of(&[SECRET]), clock());
    let told = failed(sink.deliver(&records(1)).await);
    assert_eq!((told.code.as_str(), told.is_refused), ("connect", false));
    let options = WebhookOptions {
        http: HttpOptions {
            timeout: Duration::from_millis(100),
            ..options(&slow, "/hook")
        },
        batched: true,
        ledger: "0199".to_owned(),
    };
    let sink = WebhookSink::new(options, Secrets::of(&[SECRET]), clock());
    assert_eq!(failed(sink.deliver(&records(1)).await).code, "timeout");
}

#[tokio::test]
async fn a_secret_that_is_none_is_told_without_its_text_and_nothing_is_sent() {
    let server = server([status(200)]).await;
    let told = failed(
        webhook(&server, &Secrets::of(&["HUSH"]), true)
            .deliver(&records(1))
            .await,
    );
    assert_eq!(told.code, "secret_malformed");
    let told = failed(
        elasticsearch(&server, &Secrets::of(&["HUSH\n"]))
            .deliver(&records(1))
            .await,
    );
    assert_eq!(told.code, "secret_malformed");
    assert!(received(&server).await.is_empty());
}

#[tokio::test]
async fn elasticsearch_gets_documents_that_are_created_under_the_ids_of_their_events() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/logs-latchkey.audit-default/_bulk"))
        .and(query_param(
            "filter_path",
            "error.type,errors,items.create.status,items.create.error.type",
        ))
        .and(header("authorization", "ApiKey a2V5"))
        .and(header("content-type", "application/x-ndjson"))
        .respond_with(bulk(&[201, 409]))
        .expect(1)
        .mount(&server)
        .await;
    let sink = elasticsearch(&server, &Secrets::of(&["a2V5"]));
    sink.deliver(&records(2))
        .await
        .expect("one is new, one was there");
    let requests = received(&server).await;
    let body = std::str::from_utf8(&requests[0].body).expect("text");
    assert!(body.ends_with('\n'), "a bulk request ends with a line");
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0], json!({"create": {"_id": id(1)}}));
    assert_eq!(lines[2], json!({"create": {"_id": id(2)}}));
    assert_eq!(
        (
            &lines[1]["event"]["sequence"],
            &lines[3]["event"]["sequence"]
        ),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn elasticsearch_says_of_each_event_whether_it_is_there() {
    for (answer, acknowledged, code, is_refused) in [
        (bulk(&[201, 409, 429]), 2, "item_429", false),
        (bulk(&[201, 503, 201]), 1, "item_503", false),
        (bulk(&[400, 201, 201]), 0, "item_400", true),
        (bulk(&[201, 201]), 0, "answer", false),
        (
            status(200).set_body_string("<html>HUSH</html>"),
            0,
            "answer",
            false,
        ),
        (status(200), 0, "answer", false),
        (
            status(404).set_body_json(json!({"error": {"type": "index_not_found_exception"}})),
            0,
            "http_404",
            true,
        ),
        (
            status(503).set_body_json(json!({"error": {"type": "HUSH of somebody"}})),
            0,
            "http_503",
            false,
        ),
    ] {
        let server = server([answer]).await;
        let told = failed(
            elasticsearch(&server, &Secrets::of(&["a2V5"]))
                .deliver(&records(3))
                .await,
        );
        assert_eq!(
            (told.acknowledged, told.code.as_str(), told.is_refused),
            (acknowledged, code, is_refused),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_is_fetched_once_and_one_that_is_refused_is_not_hammered() {
    let server = MockServer::start().await;
    let known = |key: &str| {
        Mock::given(method("POST")).and(header("authorization", format!("ApiKey {key}").as_str()))
    };
    known("new").respond_with(bulk(&[201])).mount(&server).await;
    known("old")
        .respond_with(InTurn(Mutex::new(vec![bulk(&[201]), status(401)])))
        .mount(&server)
        .await;
    let key = Secrets::of(&["old", "new"]);
    let sink = elasticsearch(&server, &key);
    sink.deliver(&records(1))
        .await
        .expect("taken with the old key");
    sink.deliver(&records(1))
        .await
        .expect("taken with the new key");
    sink.deliver(&records(1)).await.expect("which is kept");
    assert_eq!(key.fetched(), 2);
    known("unknown")
        .respond_with(status(401))
        .mount(&server)
        .await;
    let key = Secrets::of(&["unknown"]);
    let sink = elasticsearch(&server, &key);
    let told = failed(sink.deliver(&records(1)).await);
    assert_eq!(
        (told.code.as_str(), told.is_refused, key.fetched()),
        ("http_401", true, 1)
    );
}

#[test]
fn an_event_keeps_its_id_and_another_one_of_the_same_sequence_has_another() {
    let record = |body: &str| AuditRecord {
        sequence: 7,
        body: body.to_owned(),
    };
    assert_eq!(
        event_id("0199", &record("{}")),
        event_id("0199", &record("{}"))
    );
    assert_ne!(
        event_id("0199", &record("{}")),
        event_id("0199", &record("{ }"))
    );
    assert_ne!(
        event_id("0199", &record("{}")),
        event_id("0200", &record("{}"))
    );
}
