//! The stage of a measurement: a simulated Elastic Cloud in this process, connectors as processes of their own.
//!
//! Owns configuration files, child processes and their end: whoever drops a connector ends it. Never talks to a real
//! Elastic Cloud.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::app::bench::Place;
use crate::cli::demo;
use crate::domain::ids::{DeploymentId, IntegrationName, UserId};
use crate::sim::{Assignment, Assignments, Handle, Options, Running, Settings, Simulator, World};

/// Members of every organization that the bench leaves alone: owners, and those with peculiar rights.
const OTHERS: usize = 9;
/// Longest that anything on the stage may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How often something that will come is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// A simulated organization and a place for files.
#[derive(Debug)]
pub(super) struct Stage {
    directory: PathBuf,
    simulator: Running,
    pub(super) users: Vec<UserId>,
    /// Since when they are members, in the same order.
    pub(super) since: Vec<DateTime<Utc>>,
    pub(super) deployments: Vec<DeploymentId>,
}

impl Stage {
    /// An organization of so many members and deployments, in which the bench's members hold the bench's role on
    /// every deployment if `held`. `settings` are those of the simulator, as `KEY=VALUE`.
    pub(super) async fn new(
        directory: &Path,
        members: usize,
        deployments: usize,
        held: bool,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut world = World::large(1, members + OTHERS, deployments);
        let organization = world
            .organizations
            .first_mut()
            .context("the world has an organization")?;
        let ids: Vec<String> = organization
            .deployments
            .iter()
            .take(deployments)
            .map(|deployment| deployment.id.clone())
            .collect();
        let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut users = Vec::with_capacity(members);
        for member in organization.members.iter_mut().skip(OTHERS) {
            users.push((UserId::parse(member.user_id.clone())?, member.member_since));
            member.role_assignments = if held {
                role_on(&organization.id, &refs)
            } else {
                Assignments::default()
            };
        }
        users.sort();
        let (users, since) = users.into_iter().unzip();
        let mut options = Options::new(world);
        let mut choices = Settings::default();
        for pair in settings {
            choices.set_pair(pair)?;
        }
        options.settings = choices;
        let simulator = Simulator::start(options)
            .await
            .context("starting the simulator")?;
        Ok(Self {
            directory: directory.to_owned(),
            simulator,
            users,
            since,
            deployments: ids
                .into_iter()
                .map(DeploymentId::parse)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Writes a configuration for a ledger in a file; `sections` is YAML that is added at the end.
    pub(super) fn configure(&self, ledger: &Path, sections: &str) -> anyhow::Result<PathBuf> {
        self.configuration(&format!("path: {}", ledger.display()), sections)
    }

    /// Writes a configuration for a ledger wherever it lies.
    pub(super) fn configure_for(&self, place: &Place, sections: &str) -> anyhow::Result<PathBuf> {
        match place {
            Place::File(path) => self.configure(path, sections),
            Place::Database { url, .. } => {
                self.configuration(&format!("kind: postgres\n  url: {url}"), sections)
            }
        }
    }

    fn configuration(&self, ledger: &str, sections: &str) -> anyhow::Result<PathBuf> {
        let at = tempfile::Builder::new()
            .prefix("connector-")
            .tempdir_in(&self.directory)
            .context("making a directory")?
            .keep();
        let key = at.join("elastic-key");
        demo::write_private(&key, &self.simulator.api_key())?;
        let path = at.join("latchkey.yaml");
        let text = format!(
            "listen:\n  grpc: 127.0.0.1:0\n  http: 127.0.0.1:0\nlog:\n  filter: \"off\"\n\
             ledger:\n  {ledger}\n\
             limits:\n  requests_per_second: 100000\n  burst: 1000000\n\
             integrations:\n  - name: {INTEGRATION}\n    kind: elastic_cloud\n    \
             organization_id: \"{organization}\"\n    base_url: {base_url}\n    secret:\n      \
             file:\n        path: {key}\n{sections}",
            organization = self.simulator.organization_id(),
            base_url = self.simulator.base_url(),
            key = key.display(),
        );
        demo::write_private(&path, &text)?;
        Ok(path)
    }

    /// A place for one more ledger.
    pub(super) fn ledger(&self) -> anyhow::Result<PathBuf> {
        let at = tempfile::Builder::new()
            .prefix("ledger-")
            .tempdir_in(&self.directory)
            .context("making a directory")?
            .keep();
        Ok(at.join("ledger.db"))
    }

    /// Gives every member of the bench its role back on every deployment.
    pub(super) fn give_back(&self) -> anyhow::Result<()> {
        let ids: Vec<&str> = self.deployments.iter().map(DeploymentId::as_str).collect();
        self.handle().with(|core| {
            let organization = core.world.organizations.first_mut();
            let organization = organization.context("the world has an organization")?;
            let held = role_on(&organization.id, &ids);
            let members = &mut organization.members;
            for member in members.iter_mut().skip(OTHERS) {
                member.role_assignments = held.clone();
            }
            Ok(())
        })
    }

    /// Reaches into the simulator.
    pub(super) fn handle(&self) -> Handle {
        self.simulator.handle()
    }

    /// Where the simulator listens, and the key that it takes.
    pub(super) fn upstream(&self) -> (String, String) {
        (self.simulator.base_url(), self.simulator.api_key())
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.simulator.handle().now()
    }

    /// Removals that upstream carried out: who, and when the call arrived, oldest first.
    pub(super) fn removals(&self) -> Vec<(String, DateTime<Utc>)> {
        let calls = self.simulator.handle().calls();
        calls
            .log
            .into_iter()
            .filter(|call| call.kind == "role_assignments.remove" && call.status == Some(200))
            .map(|call| (call.user.unwrap_or_default(), call.at))
            .collect()
    }

    /// Waits until so many removals were carried out since the calls were last forgotten.
    pub(super) async fn removed(
        &self,
        count: usize,
    ) -> anyhow::Result<Vec<(String, DateTime<Utc>)>> {
        until("removals to arrive", || {
            let removals = self.removals();
            Ok((removals.len() >= count).then_some(removals))
        })
        .await
    }

    pub(super) async fn close(self) {
        self.simulator.shutdown().await;
    }
}

/// What a member holds who holds the bench's role on these deployments.
fn role_on(organization: &str, deployments: &[&str]) -> Assignments {
    let role = crate::app::bench::ROLE;
    Assignments::new(vec![Assignment::deployments(
        organization,
        role,
        deployments,
    )])
}

/// The name of the bench's integration.
pub(super) const INTEGRATION: &str = "bench";

/// The name of the bench's integration, as an id.
pub(super) fn integration() -> IntegrationName {
    IntegrationName::parse(INTEGRATION).expect("a constant that fits the grammar")
}

/// Looks again and again until there is an answer.
pub(super) async fn until<T>(
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(
            Instant::now() < end,
            "waited {PATIENCE:?} in vain for {what}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

#[derive(Debug, Deserialize)]
struct Ready {
    grpc: SocketAddr,
    http: Option<SocketAddr>,
}

/// A process of this binary.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts this binary with other arguments.
    pub(super) fn start(args: &[&str]) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("finding this binary")?;
        let child = Command::new(binary)
            .args(args)
            .env_remove("LATCHKEY_CONFIG")
            // As the image and the systemd unit have it.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("starting this binary once more")?;
        Ok(Self { child })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line that it writes.
    async fn line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("its output is ours")?;
        spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        })
        .await
        .context("reading a line")?
        .context("reading the line that says it is ready")
    }

    /// Waits for its end; it must be a good one.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        let status = until("a process to end", || {
            self.child.try_wait().context("waiting for a process")
        })
        .await?;
        ensure!(status.success(), "a process of the bench failed: {status}");
        Ok(())
    }

    /// Ends it as a crash would.
    pub(super) fn crash(mut self) -> anyhow::Result<()> {
        self.child.kill().context("ending a process")?;
        self.child.wait().context("waiting for a process")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody to tell.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A process that serves gRPC.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    pub(super) grpc: SocketAddr,
    pub(super) http: Option<SocketAddr>,
}

impl Server {
    /// Starts a connector, with the switches of a baseline if any, and waits until it takes work.
    pub(super) async fn connector(config: &Path, switches: &[&str]) -> anyhow::Result<Self> {
        let server = Self::ready(connector(config, switches)?).await?;
        let mut health = HealthClient::new(server.channel().await?);
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = health
                .check(HealthCheckRequest::default())
                .await
                .context("asking whether it takes work")?;
            if answer.into_inner().status() == ServingStatus::Serving {
                return Ok(server);
            }
            ensure!(
                Instant::now() < end,
                "a connector takes no work after {PATIENCE:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts a server that does nothing.
    pub(super) async fn empty() -> anyhow::Result<Self> {
        Self::ready(Process::start(&["bench", "empty-server"])?).await
    }

    async fn ready(mut process: Process) -> anyhow::Result<Self> {
        let line = process.line().await?;
        let Ready { grpc, http } = serde_json::from_str(&line)
            .with_context(|| format!("a process of the bench did not get ready: {line:?}"))?;
        Ok(Self {
            process,
            grpc,
            http,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A connection to it.
    pub(super) async fn channel(&self) -> anyhow::Result<Channel> {
        Channel::from_shared(format!("http://{}", self.grpc))
            .context("the address is a URL")?
            .connect()
            .await
            .context("calling the process")
    }

    /// Asks it to end and waits for it.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.process.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process has an id")?;
        kill_process(pid, Signal::TERM).context("asking a process to end")?;
        self.process.finish().await
    }
}

/// Starts a connector without waiting until it is ready.
pub(super) fn connector(config: &Path, switches: &[&str]) -> anyhow::Result<Process> {
    let config = config.to_str().context("paths of the bench are text")?;
    let mut args = vec!["bench", "serve", "--config", config];
    args.extend(switches);
    Process::start(&args)
}
