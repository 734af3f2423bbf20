//! What stands before every call: who calls, how often, how many at once, for how long.
//!
//! Owns who gets in, rate limits, the cap on calls in flight and on deadlines. Never lets a flood of grants or reads use up
//! what revocations need: they have a budget of their own.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::domain::caller::Caller;
use crate::domain::ids::CallerName;
use crate::identity::{Bearer, Identity, PeerCell};
use crate::service::Service as Latchkey;

use super::gate;
use super::status::{self, exhausted, unauthenticated};

/// A sustained rate and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls per second of one caller.
    pub per_second: NonZeroU32,
    /// Calls that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// Time left for a call, the caller's deadline or our cap, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// Slack between our answer and the caller's deadline, so that the answer arrives before it.
const MARGIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Lane {
    rate: DefaultKeyedRateLimiter<CallerName>,
    in_flight: Arc<Semaphore>,
}

impl Lane {
    fn new(rate: Rate, in_flight: usize) -> Self {
        Self {
            rate: RateLimiter::keyed(Quota::per_second(rate.per_second).allow_burst(rate.burst)),
            in_flight: Arc::new(Semaphore::new(in_flight)),
        }
    }
}

#[derive(Debug)]
struct Limits {
    clock: DefaultClock,
    calls: Lane,
    revocations: Lane,
    max_deadline: Duration,
    entry: Entry,
    /// Places of those who are not known yet.
    entering: Semaphore,
}

/// How callers are made out, and who writes down that one was turned away.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whoever calls where nobody has to prove anything.
    pub(super) implicit: Caller,
    /// Makes out callers, where they have to.
    pub(super) identity: Option<Arc<Identity>>,
    /// For the audit.
    pub(super) service: Arc<Latchkey>,
}

impl Entry {
    /// The caller of a request, if it may make this call at all.
    async fn admit(
        &self,
        method: &'static str,
        credentials: Credentials,
    ) -> Result<Caller, Status> {
        let caller = match &self.identity {
            None => self.implicit.clone(),
            Some(identity) => {
                let peer = credentials.peer.as_ref().and_then(|cell| cell.get());
                identity
                    .identify(peer, credentials.bearer())
                    .await
                    .map_err(|why| {
                        tracing::debug!(
                            method,
                            code = why.code(),
                            "A call was refused: nobody known"
                        );
                        unauthenticated(why)
                    })?
            }
        };
        if gate::allows(method, &caller) {
            return Ok(caller);
        }
        self.service.note_forbidden(&caller, method).await;
        Err(status::forbidden(gate::words(method)))
    }
}

/// What a request brought along to prove who calls.
#[derive(Debug)]
struct Credentials {
    peer: Option<PeerCell>,
    authorization: Vec<http::HeaderValue>,
}

impl Credentials {
    /// Takes them out of a request: nothing behind the guard can see or log them.
    fn take(request: &mut http::Request<Body>) -> Self {
        let authorization = match request.headers_mut().entry(http::header::AUTHORIZATION) {
            http::header::Entry::Occupied(found) => found.remove_entry_mult().1.collect(),
            http::header::Entry::Vacant(_) => Vec::new(),
        };
        Self {
            peer: request.extensions_mut().remove::<PeerCell>(),
            authorization,
        }
    }

    fn bearer(&self) -> Bearer<'_> {
        match self.authorization.as_slice() {
            [] => Bearer::Absent,
            [only] => {
                let text = only.to_str().unwrap_or_default();
                match text.split_once(' ') {
                    Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                        Bearer::Token(token.trim())
                    }
                    _ => Bearer::Malformed,
                }
            }
            _ => Bearer::Malformed,
        }
    }
}

/// Puts the guard before a service.
#[derive(Debug, Clone)]
pub(super) struct GuardLayer {
    limits: Arc<Limits>,
}

impl GuardLayer {
    pub(super) fn new(
        calls: Rate,
        revocations: Rate,
        max_in_flight: usize,
        max_deadline: Duration,
        entry: Entry,
    ) -> Self {
        Self {
            limits: Arc::new(Limits {
                clock: DefaultClock::default(),
                calls: Lane::new(calls, max_in_flight),
                revocations: Lane::new(revocations, max_in_flight),
                max_deadline,
                entry,
                entering: Semaphore::new(max_in_flight),
            }),
        }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            limits: Arc::clone(&self.limits),
            inner,
        }
    }
}

/// The guard before one service.
#[derive(Debug, Clone)]
pub(super) struct Guard<S> {
    limits: Arc<Limits>,
    inner: S,
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answer {
        let path = request.uri().path();
        let method = method_of(path);
        if path.starts_with("/grpc.health.v1.") {
            return Box::pin(self.inner.call(request));
        }
        let asked = match timeout_of(request.headers()) {
            Ok(asked) => asked.unwrap_or(self.limits.max_deadline),
            Err(status) => return refuse(method, status),
        };
        let is_revocation = is_revocation(path);
        let left = asked.min(self.limits.max_deadline).saturating_sub(MARGIN);
        let deadline = Instant::now() + left;
        let credentials = Credentials::take(&mut request);
        let limits = Arc::clone(&self.limits);
        // The one that said it is ready; its twin is for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let call = async move {
                let (caller, _permit) = match limits.enter(method, is_revocation, credentials).await
                {
                    Ok(entered) => entered,
                    Err(status) => return Ok(status.into_http()),
                };
                let extensions = request.extensions_mut();
                extensions.insert(Deadline(deadline));
                extensions.insert(caller);
                inner.call(request).await
            };
            let answered = tokio::time::timeout_at(deadline, call).await;
            let answered = answered.unwrap_or_else(|_| {
                Ok(Status::deadline_exceeded(
                    "the deadline passed; what was accepted stays accepted: repeat the call with the same request_id",
                )
                .into_http())
            });
            count(method, &answered);
            answered
        })
    }
}

impl Limits {
    /// Who calls, and a place among the calls in flight.
    async fn enter(
        &self,
        method: &'static str,
        is_revocation: bool,
        credentials: Credentials,
    ) -> Result<(Caller, OwnedSemaphorePermit), Status> {
        let lane = if is_revocation {
            &self.revocations
        } else {
            &self.calls
        };
        let caller = {
            // Tokens may have to wait for their issuer. Those who wait take no place from those who are known.
            let Ok(_waiting) = self.entering.try_acquire() else {
                return Err(exhausted("calls", Duration::from_secs(1)));
            };
            self.entry.admit(method, credentials).await?
        };
        let Ok(permit) = Arc::clone(&lane.in_flight).try_acquire_owned() else {
            return Err(exhausted("calls", Duration::from_secs(1)));
        };
        if let Err(until) = lane.rate.check_key(&caller.name) {
            let wait = until.wait_time_from(self.clock.now());
            return Err(exhausted("calls of this caller", wait));
        }
        Ok((caller, permit))
    }
}

/// Calls answered, by method and status.
const REQUESTS: &str = "latchkey_grpc_requests_total";

/// Registers help texts.
pub(super) fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        "Calls answered, by method and gRPC status; streams count when they begin"
    );
}

/// Refusals stand in the head of the answer; an answer without a status there went well as far as its head tells.
fn count(method: &'static str, answered: &Result<http::Response<Body>, Infallible>) {
    let Ok(response) = answered else { return };
    let status = response
        .headers()
        .get("grpc-status")
        .and_then(|value| value.to_str().ok());
    let code = status.map_or(Code::Ok, |text| Code::from_bytes(text.as_bytes()));
    metrics::counter!(REQUESTS, "method" => method, "code" => format!("{code:?}")).increment(1);
}

/// The methods of the surface.
pub(super) const METHODS: &[&str] = &[
    "CreateGrant",
    "GetGrant",
    "ListGrants",
    "WatchGrants",
    "ExtendGrant",
    "RevokeGrant",
    "RevokeAccess",
    "PlanGrant",
    "ExplainAccess",
    "ListOrganizations",
    "ListMembers",
    "ListInvitations",
    "ListRoles",
    "ListDeployments",
    "ListProjects",
    "ListProjectRoles",
    "GetVersion",
    "ListIntegrations",
    "GetLimits",
    "Drain",
    "ListDrift",
    "ConfirmReapply",
    "GetReceipt",
    "ListReceipts",
    "ListOverdue",
    "ForgetAccess",
    "AdoptAccess",
    "GetKey",
    "RotateKey",
    "ListReviews",
    "CloseReview",
    "GetHold",
    "ReleaseHold",
    "ServerReflectionInfo",
];

/// The methods of the surface by name; everything else is one word, so that callers cannot make up series.
fn method_of(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS
        .iter()
        .find(|known| **known == name)
        .map_or("other", |known| known)
}

fn is_revocation(path: &str) -> bool {
    matches!(
        path,
        "/latchkey.v1.AccessService/RevokeGrant"
            | "/latchkey.v1.AccessService/RevokeAccess"
            | "/latchkey.v1.ConnectorService/Drain"
    )
}

fn refuse(method: &'static str, status: Status) -> Answer {
    let answer = Ok(status.into_http());
    count(method, &answer);
    Box::pin(std::future::ready(answer))
}

/// The time-out that the caller asks for: at most eight digits and a unit.
fn timeout_of(headers: &http::HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parse = || {
        let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len() - 1)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let count: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    };
    if value.is_empty() {
        return Err(malformed_timeout());
    }
    parse().map(Some).ok_or_else(malformed_timeout)
}

fn malformed_timeout() -> Status {
    Status::new(Code::InvalidArgument, "grpc-timeout is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a header value"));
            timeout_of(&headers).ok().flatten()
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        for text in ["", "S", "2", "2s", "-1S", "+1S", "123456789S", "1 S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
