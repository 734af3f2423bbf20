//! The processes that the bench starts of its own binary, and the filling of ledgers by hand.
//!
//! Owns the hidden subcommands. None of them is for production: that is `serve`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::stage::integration;
use crate::app::bench::{Baseline, Fill, bare_start, fill};
use crate::app::{App, Overrides};
use crate::config::Config;
use crate::domain::ids::{DeploymentId, UserId};
use crate::ports::Clock;
use crate::telemetry::logging;

/// Parts of the bench that run by themselves.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// The connector, with a switch of a baseline
    #[command(hide = true)]
    Serve(PartServe),
    /// The least that a start must do before the first removal is on the wire
    #[command(hide = true, name = "bare-start")]
    BareStart(PartConfig),
    /// A gRPC server that serves nothing
    #[command(hide = true, name = "empty-server")]
    EmptyServer,
    /// Write a new ledger of active grants
    #[command(hide = true)]
    Fill(PartFill),
}

/// Arguments of `bench serve`.
#[derive(Debug, Clone, Args)]
pub struct PartServe {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// One call for each grant
    #[arg(long)]
    pub per_grant: bool,
    /// One transaction for each write
    #[arg(long)]
    pub commit_alone: bool,
    /// Load the whole ledger first
    #[arg(long)]
    pub full_load: bool,
}

/// Arguments of `bench bare-start`.
#[derive(Debug, Clone, Args)]
pub struct PartConfig {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `bench fill`.
#[derive(Debug, Clone, Args)]
pub struct PartFill {
    /// The ledger to make
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
    /// Members
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pub members: u32,
    /// Grants of each member
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub each: u32,
    /// How many of the members are overdue
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub overdue: u32,
}

/// Runs a part to its end.
pub(super) async fn run(part: Part, clock: &dyn Clock, out: &mut dyn Write) -> anyhow::Result<()> {
    match part {
        Part::Serve(args) => Box::pin(serve(args, out)).await,
        Part::BareStart(args) => bare_start(&Config::load(&args.config)?).await,
        Part::EmptyServer => empty_server(out).await,
        Part::Fill(args) => fill_ledger(args, clock, out).await,
    }
}

async fn serve(args: PartServe, out: &mut dyn Write) -> anyhow::Result<()> {
    let PartServe {
        config,
        per_grant,
        commit_alone,
        full_load,
    } = args;
    let overrides = Overrides {
        baseline: Baseline {
            per_grant,
            commit_alone,
            full_load,
        },
        ..Overrides::default()
    };
    let config = Config::load(&config)?;
    logging::init(config.log.format, config.log.filter.as_str()).context("setting up the log")?;
    let app = App::build(config, overrides).await?;
    let (grpc, http) = app.addresses();
    ready(
        out,
        &json!({ "grpc": grpc.to_string(), "http": http.to_string() }),
    )?;
    app.run(true).await
}

async fn empty_server(out: &mut dyn Write) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("listening")?;
    let grpc = listener.local_addr().context("listening")?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    ready(out, &json!({ "grpc": grpc.to_string() }))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("listening for SIGTERM")?;
    tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            terminate.recv().await;
        })
        .await
        .context("serving")
}

fn ready(out: &mut dyn Write, line: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("saying that it is ready")
}

async fn fill_ledger(args: PartFill, clock: &dyn Clock, out: &mut dyn Write) -> anyhow::Result<()> {
    let PartFill {
        ledger,
        members,
        each,
        overdue,
    } = args;
    let now = clock.now();
    let users = (0..members)
        .map(|number| UserId::parse(format!("{number:010}")))
        .collect::<Result<_, _>>()?;
    let deployments = (0..each.max(1))
        .map(|number| DeploymentId::parse(format!("{number:032x}")))
        .collect::<Result<_, _>>()?;
    let ends = (0..members)
        .map(|number| {
            if number < overdue {
                now - TimeDelta::minutes(5)
            } else {
                now + TimeDelta::hours(10) + TimeDelta::seconds(i64::from(number))
            }
        })
        .collect();
    let whole = Fill {
        integration: integration(),
        users,
        since: Vec::new(),
        deployments,
        ends,
    };
    let grants = fill(&ledger, &whole).await?;
    writeln!(out, "{}", json!({ "grants": grants })).context("printing")
}
