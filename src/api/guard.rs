//! What stands before every call: who calls, how often, how many at once, for how long.
//!
//! Owns rate limits, the cap on calls in flight and on deadlines. Never lets a flood of grants or reads use up
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
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::domain::ids::CallerName;

use super::status::exhausted;

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
    caller: CallerName,
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
        caller: CallerName,
    ) -> Self {
        Self {
            limits: Arc::new(Limits {
                clock: DefaultClock::default(),
                calls: Lane::new(calls, max_in_flight),
                revocations: Lane::new(revocations, max_in_flight),
                max_deadline,
                caller,
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
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
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
        let limits = &self.limits;
        let lane = if is_revocation(path) {
            &limits.revocations
        } else {
            &limits.calls
        };
        if let Err(until) = lane.rate.check_key(&limits.caller) {
            let wait = until.wait_time_from(limits.clock.now());
            return refuse(method, exhausted("calls of this caller", wait));
        }
        let Ok(permit) = Arc::clone(&lane.in_flight).try_acquire_owned() else {
            return refuse(method, exhausted("calls", Duration::from_secs(1)));
        };
        let asked = match timeout_of(request.headers()) {
            Ok(asked) => asked.unwrap_or(limits.max_deadline),
            Err(status) => return refuse(method, status),
        };
        let left = asked.min(limits.max_deadline).saturating_sub(MARGIN);
        let deadline = Instant::now() + left;
        let extensions = request.extensions_mut();
        extensions.insert(Deadline(deadline));
        extensions.insert(limits.caller.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answered = tokio::time::timeout_at(deadline, answer).await;
            drop(permit);
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

/// The methods of the surface by name; everything else is one word, so that callers cannot make up series.
fn method_of(path: &str) -> &'static str {
    const METHODS: [&str; 27] = [
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
    ];
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("other")
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
