//! Where HTTP meets the core: reads requests, carries out faults, writes answers.
//!
//! Owns waiting and sockets. Decides nothing about the simulated cloud.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State as Extracted};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::assignments::Assignments;
use super::calls::{Call, Calls};
use super::clock::SimClock;
use super::control;
use super::core::Core;
use super::faults::{Action, Faults, LateAnswer, Verdict};
use super::reply::{Failure, HTML, JSON, Reply};
use super::request::Request;
use super::route::Route;
use super::socket::Cut;

/// The largest request body that is read, in bytes.
const MOST_BODY: usize = 64 * 1024 * 1024;

/// A request whose effect is still to come.
#[derive(Debug)]
struct Pending {
    due: DateTime<Utc>,
    request: Request,
}

/// All that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    pending: Vec<Pending>,
}

/// All that the handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) clock: SimClock,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What becomes of a request.
#[derive(Debug)]
enum Deed {
    Answer(Reply),
    Close,
    Hang,
    Raw(Bytes),
    Long { bytes: u64, is_packed: bool },
}

impl State {
    /// Applies effects whose time has come, in order.
    fn settle(&mut self, now: DateTime<Utc>) {
        self.pending.sort_by_key(|pending| pending.due);
        let due = self
            .pending
            .iter()
            .take_while(|pending| pending.due <= now)
            .count();
        let ripe: Vec<Pending> = self.pending.drain(..due).collect();
        for pending in ripe {
            let route = Route::of(&pending.request.method, &pending.request.path);
            let seq = self
                .calls
                .arrive(describe(&pending.request, &route, pending.due, true));
            let reply = self.core.handle(&pending.request, pending.due);
            self.calls.answer(seq, reply.status);
        }
    }

    fn later(&mut self, request: &Request, now: DateTime<Utc>, ms: u64) {
        let wait = TimeDelta::try_milliseconds(i64::try_from(ms).unwrap_or(i64::MAX))
            .unwrap_or(TimeDelta::MAX);
        self.pending.push(Pending {
            due: now
                .checked_add_signed(wait)
                .unwrap_or(DateTime::<Utc>::MAX_UTC),
            request: request.clone(),
        });
    }

    /// What the core would answer, without doing it.
    fn pretend(&self, request: &Request, now: DateTime<Utc>) -> Reply {
        self.core.clone().handle(request, now)
    }

    fn carry_out(&mut self, action: Option<Action>, request: &Request, now: DateTime<Utc>) -> Deed {
        let Some(action) = action else {
            return Deed::Answer(self.core.handle(request, now));
        };
        match action {
            Action::Delay { .. } => Deed::Answer(self.core.handle(request, now)),
            Action::Throttle { retry_after } => {
                let code = self.core.settings.rate_code.clone();
                let mut failure = Failure::new(429, code, "Too many requests, try again later");
                failure.retry_after = retry_after;
                Deed::Answer(failure.into())
            }
            Action::Fail {
                status,
                code,
                message,
                html,
                applied,
            } => {
                if applied {
                    self.core.handle(request, now);
                }
                if html {
                    return Deed::Answer(Reply::html(status));
                }
                let code = code.unwrap_or_else(|| "root.internal_error".to_owned());
                let message = message.unwrap_or_else(|| "Injected failure".to_owned());
                Deed::Answer(Failure::new(status, code, message).into())
            }
            Action::DropAfterApply => {
                self.core.handle(request, now);
                Deed::Close
            }
            Action::DropBeforeApply => Deed::Close,
            Action::ApplyLate { ms, answer } => {
                let reply = self.pretend(request, now);
                self.later(request, now, ms);
                match answer {
                    LateAnswer::Ok => Deed::Answer(reply),
                    LateAnswer::Drop => Deed::Close,
                    LateAnswer::Hang => Deed::Hang,
                    LateAnswer::Timeout => Deed::Answer(Reply::html(504)),
                }
            }
            Action::ApplyTwice { ms } => {
                let reply = self.core.handle(request, now);
                self.later(request, now, ms);
                Deed::Answer(reply)
            }
            Action::Lie => Deed::Answer(self.pretend(request, now)),
            Action::Redirect { location, status } => {
                let page = Reply::html(status.unwrap_or(302));
                Deed::Answer(page.with("location", location))
            }
            Action::Truncate => Deed::Raw(cut_short(&self.core.handle(request, now))),
            Action::Malformed => {
                let mut reply = self.core.handle(request, now);
                let half = reply.body.len() / 2;
                reply.body = reply.body.slice(..half.max(1).min(reply.body.len()));
                Deed::Answer(reply)
            }
            Action::Rewrite { merge } => {
                let mut reply = self.core.handle(request, now);
                if let Ok(mut body) = serde_json::from_slice(&reply.body) {
                    merge_patch(&mut body, &merge);
                    reply.body = body.to_string().into();
                }
                Deed::Answer(reply)
            }
            Action::GarbageHtml => {
                let page = "<html><title>Welcome</title><body>Please sign in</body></html>";
                Deed::Answer(Reply::raw(200, HTML, page))
            }
            Action::Huge { bytes } => Deed::Long {
                bytes,
                is_packed: false,
            },
            Action::GzipBomb { bytes } => Deed::Long {
                bytes,
                is_packed: true,
            },
            Action::Hang => Deed::Hang,
        }
    }
}

impl Shared {
    pub(crate) fn new(core: Core, seed: u64, clock: SimClock) -> Self {
        Self {
            state: Mutex::new(State {
                core,
                faults: Faults::new(seed),
                calls: Calls::default(),
                pending: Vec::new(),
            }),
            clock,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The state with everything applied that is due.
    pub(crate) fn settled(&self) -> (MutexGuard<'_, State>, DateTime<Utc>) {
        let now = self.clock.now();
        let mut state = self
            .state
            .lock()
            .expect("a panic under the lock ends the process");
        state.settle(now);
        (state, now)
    }

    async fn process(self: Arc<Self>, request: Request) -> Deed {
        if request.path == "/_sim" || request.path.starts_with("/_sim/") {
            return Deed::Answer(control::handle(&self, &request));
        }
        let route = Route::of(&request.method, &request.path);
        let (seq, verdict) = self.arrive(&request, &route);
        if verdict.delay_ms == 0 {
            return self.act(seq, verdict.action, &request);
        }
        // A server goes on with a request whose client has gone, so waiting is a task of its own.
        let shared = Arc::clone(&self);
        let waiting = self.tasks.spawn(async move {
            let wait = Duration::from_millis(verdict.delay_ms);
            tokio::select! {
                () = shared.stop.cancelled() => Deed::Close,
                () = tokio::time::sleep(wait) => shared.act(seq, verdict.action, &request),
            }
        });
        waiting.await.unwrap_or(Deed::Close)
    }

    fn arrive(&self, request: &Request, route: &Route) -> (u64, Verdict) {
        let (mut state, now) = self.settled();
        let seq = state.calls.arrive(describe(request, route, now, false));
        let verdict = state.faults.decide(route, request);
        if verdict.delay_ms > 0 {
            state.calls.hit(seq, "delay");
        }
        if let Some(action) = &verdict.action {
            state.calls.hit(seq, action.name());
        }
        (seq, verdict)
    }

    fn act(&self, seq: u64, action: Option<Action>, request: &Request) -> Deed {
        let (mut state, now) = self.settled();
        let deed = state.carry_out(action, request, now);
        match &deed {
            Deed::Answer(reply) => state.calls.answer(seq, reply.status),
            Deed::Long { .. } => state.calls.answer(seq, 200),
            Deed::Close | Deed::Hang | Deed::Raw(_) => {}
        }
        state.calls.leave();
        deed
    }
}

fn describe(request: &Request, route: &Route, at: DateTime<Utc>, late: bool) -> Call {
    let mut pairs = Vec::new();
    if let Route::AssignmentsAdd(_) | Route::AssignmentsRemove(_) = route
        && let Ok(body) = request.json()
        && let Ok(sent) = Assignments::parse(&body)
    {
        pairs = sent
            .pairs()
            .iter()
            .map(super::assignments::Pair::label)
            .collect();
    }
    Call {
        seq: 0,
        at,
        kind: route.kind().to_owned(),
        method: request.method.to_string(),
        path: request.path.clone(),
        user: route.user().map(str::to_owned),
        pairs,
        fault: None,
        status: None,
        late,
    }
}

/// The one handler of the server.
pub(crate) async fn serve(
    Extracted(shared): Extracted<Arc<Shared>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    incoming: axum::extract::Request,
) -> Response {
    let (parts, body) = incoming.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MOST_BODY).await else {
        let failure = Failure::new(400, "root.invalid_data", "The body could not be read");
        return respond(failure.into());
    };
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let request = Request {
        path: parts.uri.path().to_owned(),
        query: query.into_owned().collect(),
        method: parts.method,
        headers: parts.headers,
        body: body.to_vec(),
    };
    let mut response = answer(Arc::clone(&shared), &cut, request).await;
    let date = shared
        .clock
        .now()
        .format("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(http::header::DATE, date);
    }
    response
}

async fn answer(shared: Arc<Shared>, cut: &Cut, request: Request) -> Response {
    let stop = shared.stop.clone();
    match shared.process(request).await {
        Deed::Answer(reply) => respond(reply),
        Deed::Close => {
            cut.close();
            respond(Reply::empty())
        }
        Deed::Hang => {
            stop.cancelled().await;
            cut.close();
            respond(Reply::empty())
        }
        Deed::Raw(bytes) => {
            cut.replace(bytes);
            respond(Reply::empty())
        }
        Deed::Long {
            bytes,
            is_packed: false,
        } => long(bytes),
        Deed::Long {
            bytes,
            is_packed: true,
        } => packed(bytes).await,
    }
}

fn respond(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static(reply.content_type),
    );
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// RFC 7396.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = target {
        for (name, patch) in fields {
            if patch.is_null() {
                target.remove(name);
            } else {
                merge_patch(target.entry(name.clone()).or_insert(Value::Null), patch);
            }
        }
    }
}

/// Head and half a body of an answer, announcing the whole.
fn cut_short(reply: &Reply) -> Bytes {
    let body = if reply.body.len() < 2 {
        Bytes::from_static(b"{}")
    } else {
        reply.body.clone()
    };
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
    text.extend_from_slice(
        format!(
            "content-type: {}\r\ncontent-length: {}\r\n\r\n",
            reply.content_type,
            body.len()
        )
        .as_bytes(),
    );
    text.extend_from_slice(&body[..body.len() / 2]);
    text.into()
}

/// A body of spaces, so that it parses as JSON for as long as one reads.
fn long(bytes: u64) -> Response {
    const CHUNK: u64 = 64 * 1024;
    let whole = Bytes::from(vec![b' '; 64 * 1024]);
    let mut left = bytes;
    let chunks = std::iter::from_fn(move || {
        let now = left.min(CHUNK);
        left -= now;
        let length = usize::try_from(now).unwrap_or(0);
        (now > 0).then(|| Ok::<_, std::io::Error>(whole.slice(..length)))
    });
    let mut response = Response::new(Body::from_stream(futures::stream::iter(chunks)));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

async fn packed(bytes: u64) -> Response {
    let inner = tower::service_fn(move |_: http::Request<Body>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(long(bytes)))
    });
    let packer = tower_http::compression::Compression::new(inner);
    let mut asks = http::Request::new(Body::empty());
    asks.headers_mut().insert(
        http::header::ACCEPT_ENCODING,
        HeaderValue::from_static("gzip"),
    );
    match packer.oneshot(asks).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
