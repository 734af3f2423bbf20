//! `latchkey bench`: ratios measured in one run on one machine.
//!
//! Owns the measurements and their baselines, interleaved so that a machine that changes speed changes both. Never
//! states an absolute number without the baseline of the same run, and never talks to a real Elastic Cloud.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::demo;
use crate::api::pb;
use crate::api::pb::access_service_client::AccessServiceClient;
use crate::api::pb::connector_service_client::ConnectorServiceClient;
use crate::app::{App, Overrides, bare_commits};
use crate::config::Config;
use crate::sim::{Options, Running, Simulator, World};

/// Callers at a time.
const CALLERS: usize = 64;
/// Numbers of the requests that measure lateness begin here.
const LATENESS: u64 = 1 << 40;
/// Grants in one commit of the bare baseline.
const BATCH: usize = 100;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Interleaved rounds of each measurement.
    pub rounds: usize,
    /// How long one round of a throughput measurement runs.
    pub round: Duration,
}

/// Measures and prints one table.
///
/// # Errors
/// When the parts of the bench cannot be started or a call fails.
pub async fn run(plan: Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    ensure!(plan.rounds > 0, "at least one round is needed");
    let directory = tempfile::Builder::new()
        .prefix("latchkey-bench-")
        .tempdir()
        .context("making a directory")?;
    let simulator = Simulator::start(Options::new(World::sample(1)))
        .await
        .context("starting the simulator")?;
    let config = config(directory.path(), &simulator)?;
    let app = App::build(config, Overrides::default())
        .await
        .context("starting the connector")?;
    let (grpc, _) = app.addresses();
    let stop = app.shutdown();
    let mut connector = std::pin::pin!(app.run(false));
    let measured = async {
        accepts(plan, grpc, &simulator, directory.path(), out).await?;
        lateness(plan, grpc, &simulator, out).await
    };
    tokio::select! {
        ended = &mut connector => ended.context("running the connector")?,
        measured = measured => measured?,
    }
    stop.drain();
    connector.await.context("stopping the connector")?;
    simulator.shutdown().await;
    Ok(())
}

fn config(directory: &Path, simulator: &Running) -> anyhow::Result<Config> {
    let key = directory.join("elastic-key");
    demo::write_private(&key, &simulator.api_key())?;
    let path = directory.join("latchkey.yaml");
    let text = format!(
        "listen:\n  grpc: 127.0.0.1:0\n  http: 127.0.0.1:0\nledger:\n  path: {ledger}\n\
         limits:\n  requests_per_second: 100000\n  burst: 1000000\n\
         integrations:\n  - name: bench\n    kind: elastic_cloud\n    organization_id: \"{organization}\"\n    \
         base_url: {base_url}\n    secret:\n      file:\n        path: {key}\n",
        ledger = directory.join("ledger.db").display(),
        organization = simulator.organization_id(),
        base_url = simulator.base_url(),
        key = key.display(),
    );
    demo::write_private(&path, &text)?;
    Config::load(&path).context("reading the bench's own configuration")
}

/// Accepted grants per second against empty calls and against bare batched commits, round by round.
async fn accepts(
    plan: Plan,
    grpc: SocketAddr,
    simulator: &Running,
    directory: &Path,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let channel = channel(grpc).await?;
    let who = Subjects::of(simulator)?;
    let next = Arc::new(AtomicU64::new(0));
    let mut rows = Vec::new();
    for round in 0..plan.rounds {
        let empty = rate(plan.round, || {
            let mut client = ConnectorServiceClient::new(channel.clone());
            async move {
                client
                    .get_version(pb::GetVersionRequest::default())
                    .await
                    .map(drop)
                    .context("an empty call")
            }
        })
        .await?;
        let granted = rate(plan.round, || {
            let mut client = AccessServiceClient::new(channel.clone());
            let (who, next) = (who.clone(), Arc::clone(&next));
            async move {
                let number = next.fetch_add(1, Ordering::Relaxed);
                // Far in the future, so that only accepting is measured.
                let request = who.request(
                    number,
                    3600,
                    Some(TimeDelta::days(1)),
                    pb::GrantWait::Accepted,
                );
                client
                    .create_grant(request)
                    .await
                    .map(drop)
                    .context("accepting a grant")
            }
        })
        .await?;
        let path = directory.join(format!("bare-{round}.db"));
        let batches = usize::try_from(plan.round.as_millis() / 20)
            .unwrap_or(50)
            .max(10);
        let bare = bare_commits(&path, batches, BATCH).await?;
        rows.push(Row {
            empty,
            granted,
            bare,
        });
    }
    writeln!(
        out,
        "Accepting grants, {CALLERS} callers, {} rounds of {:?} each, interleaved",
        plan.rounds, plan.round
    )?;
    writeln!(
        out,
        "  round   empty calls/s   bare rows/s   grants/s   grants / min(empty, bare)"
    )?;
    for (index, row) in rows.iter().enumerate() {
        writeln!(
            out,
            "  {:>5}   {:>13.0}   {:>11.0}   {:>8.0}   {:>25.2}",
            index + 1,
            row.empty,
            row.bare,
            row.granted,
            row.ratio()
        )?;
    }
    let mut ratios: Vec<f64> = rows.iter().map(Row::ratio).collect();
    let (middle, worst) = (median(&mut ratios), ratios.first().copied().unwrap_or(0.0));
    writeln!(
        out,
        "  median ratio {middle:.2}, worst {worst:.2} (goal at least 0.6)\n"
    )?;
    out.flush().context("printing")
}

struct Row {
    empty: f64,
    granted: f64,
    bare: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.granted / self.empty.min(self.bare)
    }
}

/// From the instant access must go to the removal's arrival upstream, against a bare timer and HTTP call.
async fn lateness(
    plan: Plan,
    grpc: SocketAddr,
    simulator: &Running,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut client = AccessServiceClient::new(channel(grpc).await?);
    let who = Subjects::of(simulator)?;
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("making an HTTP client")?;
    let url = format!("{}/api/v1/organizations", simulator.base_url());
    let key = simulator.api_key();
    let call = || {
        http.get(&url)
            .header("Authorization", format!("ApiKey {key}"))
            .send()
    };
    drop(call().await.context("warming up")?);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let number = LATENESS + u64::try_from(round).unwrap_or(0);
        let grant = client
            .create_grant(who.request(number, 1, None, pb::GrantWait::Active))
            .await
            .context("granting")?
            .into_inner()
            .grant
            .context("the answer holds a grant")?;
        let due = grant.expires_at.context("an active grant has an end")?;
        let due =
            chrono::DateTime::from_timestamp(due.seconds, u32::try_from(due.nanos).unwrap_or(0))
                .context("the end is an instant")?;
        wait_ended(&mut client, &grant.id).await?;
        let removed = simulator
            .handle()
            .calls()
            .log
            .iter()
            .rev()
            .find(|call| call.kind == "role_assignments.remove")
            .map(|call| call.at)
            .context("the simulator saw the removal")?;
        ours.push(millis(removed - due));

        let deadline = simulator.handle().now() + TimeDelta::milliseconds(300);
        let wait = (deadline - simulator.handle().now())
            .to_std()
            .unwrap_or_default();
        tokio::time::sleep_until(Instant::now() + wait).await;
        drop(call().await.context("the bare call")?);
        let arrived = simulator
            .handle()
            .calls()
            .log
            .last()
            .map(|call| call.at)
            .context("the simulator saw the call")?;
        bare.push(millis(arrived - deadline));
    }
    writeln!(
        out,
        "Due to sent, one grant at a time, {} rounds, interleaved with a bare timer and call",
        plan.rounds
    )?;
    writeln!(out, "               median ms    worst ms")?;
    for (name, values) in [("connector", &mut ours), ("timer + call", &mut bare)] {
        let middle = median(values);
        writeln!(
            out,
            "  {name:<12} {middle:>10.2}  {:>10.2}",
            values.last().copied().unwrap_or(0.0)
        )?;
    }
    out.flush().context("printing")
}

async fn wait_ended(client: &mut AccessServiceClient<Channel>, id: &str) -> anyhow::Result<()> {
    let mut watch = client
        .watch_grants(pb::WatchGrantsRequest::default())
        .await
        .context("watching grants")?
        .into_inner();
    while let Some(message) = watch.message().await.context("watching grants")? {
        if message
            .grant
            .is_some_and(|grant| grant.id == id && grant.state() == pb::GrantState::Ended)
        {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended before the grant did")
}

/// Who and what the bench grants.
#[derive(Debug, Clone)]
struct Subjects {
    users: Vec<String>,
    deployment: String,
    base: chrono::DateTime<chrono::Utc>,
}

impl Subjects {
    fn of(simulator: &Running) -> anyhow::Result<Self> {
        let world = simulator.handle().world();
        let organization = world
            .organizations
            .first()
            .context("the sample world has an organization")?;
        Ok(Self {
            // The first member owns the organization and the key.
            users: organization
                .members
                .iter()
                .skip(4)
                .map(|member| member.user_id.clone())
                .collect(),
            deployment: organization
                .deployments
                .first()
                .context("the sample world has a deployment")?
                .id
                .clone(),
            base: simulator.handle().now(),
        })
    }

    fn request(
        &self,
        number: u64,
        seconds: i64,
        starts_in: Option<TimeDelta>,
        wait: pb::GrantWait,
    ) -> pb::CreateGrantRequest {
        // The last one has no other grants, whose number would blur lateness.
        let others = self.users.len().saturating_sub(1).max(1);
        let at = if number >= LATENESS {
            others
        } else {
            usize::try_from(number).unwrap_or(0) % others
        };
        let target = pb::target::Kind::Deployment(pb::DeploymentTarget {
            deployment_id: self.deployment.clone(),
        });
        let starts_at = starts_in
            .map(|delay| self.base + delay)
            .map(|at| prost_types::Timestamp {
                seconds: at.timestamp(),
                nanos: 0,
            });
        pb::CreateGrantRequest {
            request_id: format!("bench-{number}"),
            spec: Some(pb::GrantSpec {
                integration: "bench".to_owned(),
                beneficiary: Some(pb::Principal {
                    kind: Some(pb::principal::Kind::UserId(self.users[at].clone())),
                }),
                role: "deployment-viewer".to_owned(),
                targets: vec![pb::Target { kind: Some(target) }],
                duration: Some(prost_types::Duration { seconds, nanos: 0 }),
                starts_at,
                ..pb::GrantSpec::default()
            }),
            wait: wait.into(),
        }
    }
}

async fn channel(grpc: SocketAddr) -> anyhow::Result<Channel> {
    Channel::from_shared(format!("http://{grpc}"))
        .context("the address is a URL")?
        .connect()
        .await
        .context("calling the connector")
}

/// Calls per second that [`CALLERS`] callers get done in a time.
async fn rate<F>(time: Duration, call: impl Fn() -> F) -> anyhow::Result<f64>
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

fn millis(delta: TimeDelta) -> f64 {
    delta.num_microseconds().map_or(f64::NAN, |micros| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "lateness is far below 2^52 microseconds"
        )]
        let value = micros as f64 / 1000.0;
        value
    })
}

/// Sorts the values and answers the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
