//! Load on a connector: who asks for what, how many at a time, and how long each call took.
//!
//! Owns the requests of the bench. Never decides what a number means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::stage::{INTEGRATION, PATIENCE, Stage};
use crate::api::pb;
use crate::api::pb::access_service_client::AccessServiceClient;
use crate::api::pb::connector_service_client::ConnectorServiceClient;

/// Callers at a time where throughput is measured.
pub(super) const CALLERS: usize = 64;

/// Whom the bench grants what.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    users: Arc<Vec<String>>,
    deployments: Arc<Vec<String>>,
    role: &'static str,
    base: DateTime<Utc>,
    next: Arc<AtomicU64>,
}

/// When a grant begins and ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Seconds that it lasts.
    pub(super) seconds: i64,
    /// When it begins; at once if none.
    pub(super) starts_at: Option<DateTime<Utc>>,
    /// Its hard end.
    pub(super) not_after: Option<DateTime<Utc>>,
}

impl Subjects {
    pub(super) fn of(stage: &Stage) -> Self {
        let deployments = stage.deployments.iter().map(ToString::to_string);
        Self {
            users: Arc::new(stage.users.iter().map(ToString::to_string).collect()),
            deployments: Arc::new(deployments.collect()),
            role: crate::app::bench::ROLE,
            base: stage.now(),
            next: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The same members and deployments with another role.
    pub(super) fn with_role(mut self, role: &'static str) -> Self {
        self.role = role;
        self
    }

    /// Only so many of the members.
    pub(super) fn first(mut self, count: usize) -> Self {
        self.users = Arc::new(self.users.iter().take(count).cloned().collect());
        self
    }

    /// Times that keep a grant from doing anything while it is measured how it is accepted.
    pub(super) fn later(&self) -> Times {
        Times {
            seconds: 3600,
            starts_at: Some(self.base + TimeDelta::days(1)),
            not_after: None,
        }
    }

    /// One more request, for the next member in turn.
    pub(super) fn request(&self, times: Times, wait: pb::GrantWait) -> pb::CreateGrantRequest {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(number).unwrap_or(0);
        self.request_for(
            place % self.users.len(),
            place / self.users.len(),
            times,
            wait,
        )
    }

    /// One more request, for the member and the deployment at these places.
    pub(super) fn request_for(
        &self,
        user: usize,
        deployment: usize,
        times: Times,
        wait: pb::GrantWait,
    ) -> pb::CreateGrantRequest {
        let instant = |at: DateTime<Utc>| prost_types::Timestamp {
            seconds: at.timestamp(),
            nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0),
        };
        let target = pb::target::Kind::Deployment(pb::DeploymentTarget {
            deployment_id: self.deployments[deployment % self.deployments.len()].clone(),
        });
        let unique = self.next.fetch_add(1, Ordering::Relaxed);
        pb::CreateGrantRequest {
            request_id: format!("bench-{unique}"),
            spec: Some(pb::GrantSpec {
                integration: INTEGRATION.to_owned(),
                beneficiary: Some(pb::Principal {
                    kind: Some(pb::principal::Kind::UserId(self.users[user].clone())),
                }),
                role: self.role.to_owned(),
                targets: vec![pb::Target { kind: Some(target) }],
                duration: Some(prost_types::Duration {
                    seconds: times.seconds,
                    nanos: 0,
                }),
                starts_at: times.starts_at.map(instant),
                not_after: times.not_after.map(instant),
                ..pb::GrantSpec::default()
            }),
            wait: wait.into(),
            ..pb::CreateGrantRequest::default()
        }
    }
}

/// A call that touches nothing.
pub(super) async fn empty(channel: Channel) -> anyhow::Result<()> {
    ConnectorServiceClient::new(channel)
        .get_version(pb::GetVersionRequest::default())
        .await
        .map(drop)
        .context("an empty call")
}

/// Asks for a grant.
pub(super) async fn create(
    channel: Channel,
    request: pb::CreateGrantRequest,
) -> anyhow::Result<pb::Grant> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(PATIENCE);
    AccessServiceClient::new(channel)
        .create_grant(request)
        .await
        .context("asking for a grant")?
        .into_inner()
        .grant
        .context("the answer holds a grant")
}

/// Calls per second that [`CALLERS`] callers get done in a time.
pub(super) async fn rate<F>(time: Duration, call: impl Fn() -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut callers = JoinSet::new();
    let mut done = 0_u32;
    for _ in 0..CALLERS {
        callers.spawn(call());
    }
    while let Some(ended) = callers.join_next().await {
        ended.context("a caller panicked")??;
        done += 1;
        if started.elapsed() < time {
            callers.spawn(call());
        }
    }
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

/// Milliseconds that each of some calls took, one after the other, with a pause between them.
pub(super) async fn latencies<F>(
    count: usize,
    pause: Duration,
    call: impl Fn() -> F,
) -> anyhow::Result<Vec<f64>>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        call().await?;
        took.push(started.elapsed().as_secs_f64() * 1000.0);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(took)
}

/// A span in milliseconds.
pub(super) fn millis(delta: TimeDelta) -> f64 {
    delta.num_microseconds().map_or(f64::NAN, |micros| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "spans of a bench are far below 2^52 microseconds"
        )]
        let value = micros as f64 / 1000.0;
        value
    })
}

/// A count as a number to calculate with.
pub(super) fn number(count: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a bench are far below 2^52"
    )]
    let value = count as f64;
    value
}
