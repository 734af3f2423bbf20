//! Commands that run in this process: the connector itself, its demo, its bench, its doctor.
//!
//! Owns the step from arguments to the composition root, and the ready line of `serve`. Never wires adapters: that
//! is `app`.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::args::{DoctorArgs, Global, HostCommand, ServeArgs};
use super::doctor::DoctorFormat;
use super::streams::Format;
use super::{
    Exit, Failure, Streams, adopt, audit, bench, configuration, demo, doctor, ledger, simulate,
    sweep,
};
use crate::app::{self, App, Overrides};
use crate::telemetry::{LogFormat, logging};

/// Carries out a command.
///
/// # Errors
/// [`Failure`] with what went wrong and what to do.
pub(super) async fn run(
    command: HostCommand,
    global: &Global,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let format = global.output;
    match command {
        HostCommand::Serve(args) => Box::pin(serve(&args, streams)).await,
        HostCommand::Simulate(args) => simulate::run(args, &mut *streams.out).await.map_err(failed),
        HostCommand::Demo(args) => {
            quiet();
            Box::pin(demo::run(args.once, &mut *streams.out))
                .await
                .map_err(failed)
        }
        HostCommand::Bench(args) => {
            // A part that serves logs as its configuration says.
            if !args.serves() {
                quiet();
            }
            return Box::pin(bench::run(args, format, streams))
                .await
                .map_err(failed);
        }
        HostCommand::Events(args) => {
            quiet();
            return adopt::events(&args, streams).await;
        }
        HostCommand::Audit(args) => {
            quiet();
            return audit::audit(&args, format, streams).await;
        }
        HostCommand::Migrate(args) => ledger::migrate(&args, streams).await,
        HostCommand::Ledger(args) => ledger::ledger(&args, streams).await,
        HostCommand::Doctor(args) => return examine(&args, format, streams).await,
        HostCommand::Sweep(args) => {
            let config = configuration::load(&args.config, streams)?;
            quiet();
            let patience = global.timeout.unwrap_or(sweep::PATIENCE);
            return sweep::sweep(&config, &args, patience, format, streams).await;
        }
    }
    .map(|()| Exit::Done)
}

async fn serve(args: &ServeArgs, streams: &mut Streams) -> Result<(), Failure> {
    let config = configuration::load(&args.config, streams)?;
    logging::init(config.log.format, config.log.filter.as_str())
        .map_err(|error| failed(error.into()))?;
    let mut app = App::build(config, Overrides::default())
        .await
        .map_err(failed)?;
    app.catch_signals().map_err(failed)?;
    let (grpc, http) = app.addresses();
    tracing::info!(%grpc, %http, "Listening");
    // One line for scripts: with port 0 in the configuration this is how they learn the ports.
    let ready = json!({ "grpc": grpc.to_string(), "http": http.to_string() });
    // Nobody has to read it.
    drop(writeln!(streams.out, "{ready}").and_then(|()| streams.out.flush()));
    app.run(true).await.map_err(failed)
}

async fn examine(
    args: &DoctorArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    quiet();
    let clock = Arc::clone(&streams.clock);
    let probes = app::probes(&config, &clock).await.map_err(failed)?;
    let format = match format {
        Format::Table => DoctorFormat::Table,
        Format::Json | Format::Yaml => DoctorFormat::Json,
    };
    let code = doctor::run(&config, &probes, clock.as_ref(), format, &mut *streams.out).await?;
    Ok(if code == 0 { Exit::Done } else { Exit::Failed })
}

/// Commands that tell a story of their own log only what is wrong.
pub(super) fn quiet() {
    // A log that cannot be set up is no reason not to tell the story.
    drop(logging::init(LogFormat::Text, "warn"));
}

pub(super) fn failed(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{error:#}"), "")
}
