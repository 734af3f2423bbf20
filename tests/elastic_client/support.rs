//! A fake of the API for one test each, and the small world around the client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use latchkey::domain::Timestamp;
use latchkey::domain::assignment::{ApplicationRoles, Assignment, Target};
use latchkey::domain::ids::{DeploymentId, OrganizationId, UserId};
use latchkey::elastic::{Elastic, Options};
use latchkey::ports::secrets::SecretError;
use latchkey::ports::{Clock, SecretStore};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

pub(crate) const KEY: &str = "test-key-one";

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) user_agent: String,
    pub(crate) body: String,
}

/// A server on loopback that lives as long as this value.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Answers every request with `answer`, which also gets the number of requests before it.
    pub(crate) async fn serve(
        answer: impl Fn(&Seen, usize) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::serve_through(answer, |router| router).await
    }

    /// Like `serve`, with layers around.
    pub(crate) async fn serve_through(
        answer: impl Fn(&Seen, usize) -> Response + Clone + Send + Sync + 'static,
        layers: impl FnOnce(Router) -> Router,
    ) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        let router = layers(Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let header = |name: &str| {
                    head.headers
                        .get(name)
                        .map(|value| value.to_str().expect("ASCII").to_owned())
                        .unwrap_or_default()
                };
                let bytes = to_bytes(body, 1 << 20).await.expect("a small body");
                let one = Seen {
                    method: head.method.to_string(),
                    path: head.uri.to_string(),
                    authorization: header("authorization"),
                    user_agent: header("user-agent"),
                    body: String::from_utf8(bytes.to_vec()).expect("UTF-8"),
                };
                let before = {
                    let mut log = log.lock().expect("not poisoned");
                    log.push(one.clone());
                    log.len() - 1
                };
                answer(&one, before)
            }
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    /// Answers every connection with these bytes after its request has arrived, then closes it or hangs.
    pub(crate) async fn raw(answer: &'static [u8], hang: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // Every body sent here is JSON and every request without one ends with an empty line.
                while !(request.ends_with(b"\r\n\r\n") || request.ends_with(b"}")) {
                    let count = stream.read(&mut buffer).await.expect("reads");
                    assert!(count > 0, "the client closed before its request was whole");
                    request.extend_from_slice(&buffer[..count]);
                    // The body may follow its head in a segment of its own.
                    let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
                    if text.ends_with("\r\n\r\n") && text.contains("content-length") {
                        let count = stream.read(&mut buffer).await.expect("reads");
                        request.extend_from_slice(&buffer[..count]);
                    }
                }
                let text = String::from_utf8(request).expect("UTF-8");
                let mut words = text.split(' ');
                log.lock().expect("not poisoned").push(Seen {
                    method: words.next().unwrap_or_default().to_owned(),
                    path: words.next().unwrap_or_default().to_owned(),
                    authorization: String::new(),
                    user_agent: String::new(),
                    body: text
                        .split_once("\r\n\r\n")
                        .map(|(_, body)| body.to_owned())
                        .unwrap_or_default(),
                });
                stream.write_all(answer).await.expect("writes");
                if hang {
                    hanging.push(stream);
                }
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).expect("valid URL")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct StillClock;

pub(crate) fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("valid instant")
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        now()
    }
    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
    fn entropy(&self) -> [u8; 10] {
        [0; 10]
    }
}

/// A secret that tests can change.
#[derive(Debug)]
pub(crate) struct Store {
    text: Mutex<String>,
    pub(crate) fetches: AtomicUsize,
}

impl Store {
    pub(crate) fn new(text: &str) -> Arc<Self> {
        Arc::new(Self {
            text: Mutex::new(text.to_owned()),
            fetches: AtomicUsize::new(0),
        })
    }

    pub(crate) fn put(&self, text: &str) {
        text.clone_into(&mut self.text.lock().expect("not poisoned"));
    }

    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SecretStore for Store {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(SecretString::from(
            self.text.lock().expect("not poisoned").clone(),
        ))
    }
    fn describe(&self) -> String {
        "a test".to_owned()
    }
}

pub(crate) fn options(url: Url) -> Options {
    Options {
        organization: Some(OrganizationId::parse("7").expect("valid id")),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..Options::new(url)
    }
}

/// A client with its key loaded.
pub(crate) async fn client(options: Options) -> Elastic {
    with_store(options, Store::new(KEY)).await
}

pub(crate) async fn with_store(options: Options, store: Arc<Store>) -> Elastic {
    let elastic = Elastic::new(options, store, Arc::new(StillClock)).expect("usable options");
    elastic.load_key().await.expect("a usable key");
    elastic
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("valid id")
}

pub(crate) fn viewer(deployment: &str) -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(deployment).expect("valid id"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

pub(crate) fn answer(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(body.into())
        .expect("a valid answer")
}

pub(crate) fn json_answer(status: u16, body: &Value) -> Response {
    answer(status, "application/json", body.to_string())
}

pub(crate) fn html(status: u16) -> Response {
    answer(
        status,
        "text/html",
        "<html><title>405: Method Not Allowed</title></html>",
    )
}

pub(crate) fn failure(status: u16, code: &str) -> Response {
    json_answer(
        status,
        &json!({"errors": [{"code": code, "message": "secret text of upstream"}]}),
    )
}

pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    response
        .headers_mut()
        .insert(name, value.parse().expect("a valid header"));
    response
}

pub(crate) fn member(id: &str, owner: bool) -> Value {
    let mut roles = json!({"platform": null, "deployment": [
        {"role_id": "deployment-viewer", "organization_id": "7", "deployment_ids": ["b", "a"]}]});
    if owner {
        roles["organization"] = json!([{"role_id": "organization-admin", "organization_id": "7"}]);
    }
    json!({"organization_id": "7", "user_id": id, "member_since": "2025-01-01T00:00:00Z",
           "email": format!("{id}@example.com"), "name": "Ada", "role_assignments": roles})
}
