//! `latchkey simulate`: a simulated Elastic Cloud until a signal ends it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::sim::{Options, Settings, SimClock, Simulator, World};

/// Arguments of `latchkey simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Loopback address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// YAML or JSON file with the world to simulate; a sample organization if absent
    #[arg(long, value_name = "FILE", conflicts_with = "members")]
    pub world: Option<PathBuf>,
    /// Makes ids, orders and faults repeat
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// A setting of the simulated service, such as `remove_not_held=not_found`
    #[arg(long = "setting", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Simulate an organization with this many members
    #[arg(long, value_name = "N")]
    pub members: Option<usize>,
    /// How many deployments the organization of --members has
    #[arg(long, value_name = "N", default_value_t = 20, requires = "members")]
    pub deployments: usize,
}

/// Serves until SIGINT or SIGTERM. Writes one line of JSON when ready.
///
/// # Errors
/// When the world or a setting is wrong, the address is not free or not loopback, or the line
/// cannot be written.
pub async fn run(args: SimulateArgs, out: &mut dyn std::io::Write) -> anyhow::Result<()> {
    let world = match (&args.world, args.members) {
        (Some(path), _) => World::from_file(path)?,
        (None, Some(members)) => World::large(args.seed, members, args.deployments),
        (None, None) => World::sample(args.seed),
    };
    let mut settings = Settings::default();
    for pair in &args.settings {
        settings.set_pair(pair)?;
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("listen for SIGTERM")?;
    let running = Simulator::start(Options {
        listen: args.listen,
        world,
        settings,
        seed: args.seed,
        clock: SimClock::default(),
    })
    .await?;
    writeln!(out, "{}", running.ready_line()).context("write the ready line")?;
    out.flush().context("write the ready line")?;
    tokio::select! {
        signal = tokio::signal::ctrl_c() => signal.context("listen for SIGINT")?,
        _ = terminate.recv() => {}
    }
    running.shutdown().await;
    Ok(())
}
