//! `latchkey demo`: the whole story on this machine, in half a minute.
//!
//! Owns the story: a simulated Elastic Cloud, a connector on free loopback ports, one engineer, one grant, its end,
//! and the proof. Never talks to a real Elastic Cloud, and never says "gone" unless the simulator says so.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::timeout;

use crate::api::pb;
use crate::api::pb::access_service_client::AccessServiceClient;
use crate::app::{App, Overrides};
use crate::config::Config;
use crate::sim::{Member, Options, Running, Simulator, World};

/// Who gets access in the story.
const ENGINEER: &str = "chiara.rossi@example.com";
/// The role that the story gives.
const ROLE: &str = "deployment-admin";
/// How long access lasts, in seconds.
const SECONDS: i64 = 4;
/// How long any step of the story may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Roles of a member as "role on target" lines, taken from the simulator itself.
type Held = Vec<String>;

/// Plays the story; with `once` it ends after the proof, else it stays up until a signal.
///
/// # Errors
/// When anything differed from what the story promises, or a port, file or directory could not be had.
pub async fn run(once: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("latchkey-demo-")
        .tempdir()
        .context("making a directory")?;
    let simulator = Simulator::start(Options::new(World::sample(1)))
        .await
        .context("starting the simulator")?;
    let config_path = write_config(directory.path(), &simulator)?;
    let config = Config::load(&config_path).context("reading the demo's own configuration")?;
    let app = App::build(config, Overrides::default())
        .await
        .context("starting the connector")?;
    let (grpc, http) = app.addresses();

    writeln!(
        out,
        "A simulated Elastic Cloud listens on {}",
        simulator.base_url()
    )?;
    writeln!(
        out,
        "The connector listens on {grpc} (gRPC) and {http} (health and metrics)\n"
    )?;

    let stop = app.shutdown();
    let mut connector = std::pin::pin!(app.run(!once));
    let story = timeout(PATIENCE, tell(&simulator, grpc, out));
    tokio::select! {
        ended = &mut connector => {
            ended.context("running the connector")?;
            bail!("the connector stopped before the story was over");
        }
        told = story => told.context("the story took too long")??,
    }
    if once {
        stop.drain();
        connector.await.context("stopping the connector")?;
    } else {
        explore(&simulator, &config_path, grpc, http, out)?;
        connector.await.context("running the connector")?;
    }
    simulator.shutdown().await;
    Ok(())
}

/// The demo's configuration is an ordinary one, so that `doctor` and `serve` can be tried with it.
fn write_config(directory: &Path, simulator: &Running) -> anyhow::Result<std::path::PathBuf> {
    let key = directory.join("elastic-key");
    write_private(&key, &simulator.api_key())?;
    let path = directory.join("latchkey.yaml");
    let text = format!(
        "listen:\n  grpc: 127.0.0.1:0\n  http: 127.0.0.1:0\n  reflection: true\n\
         log:\n  filter: warn\n\
         ledger:\n  path: {ledger}\n\
         integrations:\n  - name: demo\n    kind: elastic_cloud\n    organization_id: \"{organization}\"\n    \
         base_url: {base_url}\n    secret:\n      file:\n        path: {key}\n",
        ledger = directory.join("ledger.db").display(),
        organization = simulator.organization_id(),
        base_url = simulator.base_url(),
        key = key.display(),
    );
    write_private(&path, &text)?;
    Ok(path)
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

async fn tell(
    simulator: &Running,
    grpc: std::net::SocketAddr,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let world = simulator.handle().world();
    let organization = world
        .organizations
        .first()
        .context("the sample world has an organization")?;
    let member = organization
        .members
        .iter()
        .find(|member| member.email == ENGINEER)
        .context("the sample world has the engineer")?
        .clone();
    let deployment = organization
        .deployments
        .first()
        .context("the sample world has a deployment")?;
    let names: BTreeMap<String, String> = organization
        .deployments
        .iter()
        .map(|one| (one.id.clone(), one.name.clone()))
        .collect();
    let wanted = format!("{ROLE} on {}", deployment.name);

    let before = held(simulator, &member, &names);
    show(out, "before", &member, &before)?;

    writeln!(
        out,
        "  -> CreateGrant: {ROLE} on {} for {SECONDS} s, wait: ACTIVE",
        deployment.name
    )?;
    let mut client = AccessServiceClient::connect(format!("http://{grpc}"))
        .await
        .context("calling the connector")?;
    let grant = create(&mut client, &deployment.id).await?;
    ensure!(
        grant.state() == pb::GrantState::Active,
        "the grant is {:?} instead of active",
        grant.state()
    );
    let during = held(simulator, &member, &names);
    show(out, "during", &member, &during)?;

    writeln!(out, "  -> waiting for its end")?;
    let ended = wait_for_end(&mut client, &grant.id).await?;
    let after = held(simulator, &member, &names);
    show(out, "after", &member, &after)?;

    let mut expected = before.clone();
    expected.push(wanted.clone());
    expected.sort();
    ensure!(
        during == expected,
        "during the grant the member held {during:?} instead of {expected:?}"
    );
    ensure!(
        after == before,
        "after the grant the member holds {after:?} instead of {before:?}"
    );
    let cause = ended
        .end_cause
        .map(|cause| cause.reason())
        .unwrap_or_default();
    ensure!(
        cause == pb::EndReason::Expired,
        "the grant ended as {cause:?} instead of expired"
    );
    writeln!(
        out,
        "Proved: {wanted} was there during the grant and only then; everything else is as it was."
    )?;
    out.flush()?;
    Ok(())
}

async fn create(
    client: &mut AccessServiceClient<tonic::transport::Channel>,
    deployment_id: &str,
) -> anyhow::Result<pb::Grant> {
    let target = pb::target::Kind::Deployment(pb::DeploymentTarget {
        deployment_id: deployment_id.to_owned(),
    });
    let request = pb::CreateGrantRequest {
        request_id: "demo-1".to_owned(),
        spec: Some(pb::GrantSpec {
            integration: "demo".to_owned(),
            beneficiary: Some(pb::Principal {
                kind: Some(pb::principal::Kind::Email(ENGINEER.to_owned())),
            }),
            requester: "the demo".to_owned(),
            justification: "to show the whole story".to_owned(),
            role: ROLE.to_owned(),
            targets: vec![pb::Target { kind: Some(target) }],
            duration: Some(prost_types::Duration {
                seconds: SECONDS,
                nanos: 0,
            }),
            ..pb::GrantSpec::default()
        }),
        wait: pb::GrantWait::Active.into(),
        ..pb::CreateGrantRequest::default()
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(PATIENCE);
    let response = client
        .create_grant(request)
        .await
        .context("creating the grant")?;
    response
        .into_inner()
        .grant
        .context("the answer holds a grant")
}

async fn wait_for_end(
    client: &mut AccessServiceClient<tonic::transport::Channel>,
    id: &str,
) -> anyhow::Result<pb::Grant> {
    let mut watch = client
        .watch_grants(pb::WatchGrantsRequest::default())
        .await
        .context("watching grants")?
        .into_inner();
    while let Some(message) = watch.message().await.context("watching grants")? {
        if let Some(grant) = message.grant
            && grant.id == id
            && grant.state() == pb::GrantState::Ended
        {
            return Ok(grant);
        }
    }
    bail!("the watch ended before the grant did")
}

/// What the simulator itself says the member holds.
fn held(simulator: &Running, member: &Member, names: &BTreeMap<String, String>) -> Held {
    let mut lines = Vec::new();
    for entry in simulator.handle().assignments(&member.user_id).entries {
        match &entry.ids {
            Some(ids) if !ids.is_empty() => lines.extend(ids.iter().map(|id| {
                format!(
                    "{} on {}",
                    entry.role_id,
                    names.get(id).map_or(id.as_str(), |name| name)
                )
            })),
            _ if entry.all == Some(true) => lines.push(format!("{} on all", entry.role_id)),
            _ => lines.push(entry.role_id.clone()),
        }
    }
    lines.sort();
    lines
}

fn show(out: &mut dyn Write, when: &str, member: &Member, held: &Held) -> anyhow::Result<()> {
    writeln!(out, "{} holds {when} the grant:", member.name)?;
    for line in held {
        writeln!(out, "     {line}")?;
    }
    if held.is_empty() {
        writeln!(out, "     nothing")?;
    }
    out.flush()?;
    Ok(())
}

fn explore(
    simulator: &Running,
    config: &Path,
    grpc: std::net::SocketAddr,
    http: std::net::SocketAddr,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let config = config.display();
    writeln!(
        out,
        "\nEverything stays up until Ctrl-C. To try it from another terminal:\n\n  \
         export LATCHKEY_SERVER=http://{grpc}\n  \
         latchkey resources\n  \
         latchkey grant {ENGINEER} deployment-viewer --on deployment/staging --for 2m --reason demo\n  \
         latchkey list\n  \
         latchkey why {ENGINEER}\n  \
         latchkey doctor --config {config}\n  \
         curl http://{http}/metrics\n  \
         curl {base_url}/_sim/world\n\n\
         The binary is target/release/latchkey when it was built with `cargo run --release`.",
        base_url = simulator.base_url(),
    )?;
    out.flush()?;
    Ok(())
}
