//! The `latchkey` binary.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use latchkey::cli::{self, Exit, Failure, Streams};
use latchkey::runtime::SystemClock;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(said) => {
            // `--help` into a closed pipe is no failure, and there is nowhere left to report one.
            said.print().ok();
            return ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2));
        }
    };
    let interrupt = CancellationToken::new();
    let mut streams = Streams::of_process(Arc::new(SystemClock), interrupt.clone());
    match start() {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                exit = cli::run(cli, &mut streams) => exit,
                () = on_ctrl_c(interrupt) => Exit::Interrupted,
            }
        }),
        Err(error) => streams.failure(&Failure::new(Exit::Failed, format!("{error:#}"), "")),
    }
    .into()
}

fn start() -> anyhow::Result<tokio::runtime::Runtime> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed before ours"))?;
    tokio::runtime::Runtime::new().context("start the runtime")
}

/// Tells the command about the first Ctrl-C, and ends the process at the second. A command that waits answers the
/// first one itself; servers have handlers of their own.
async fn on_ctrl_c(interrupt: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    interrupt.cancel();
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
