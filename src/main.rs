//! The `latchkey` binary.

use clap::{Parser, Subcommand};
use latchkey::cli::simulate::{self, SimulateArgs};

#[derive(Parser)]
#[command(name = "latchkey", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate an Elastic Cloud on this machine
    Simulate(SimulateArgs),
    /// Demo
    Demo { #[arg(long)] once: bool },
    /// Bench
    Bench,
    /// Serve
    Serve { #[arg(long)] config: std::path::PathBuf },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo { once } => { rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); latchkey::telemetry::logging::init(latchkey::telemetry::LogFormat::Text, "info").ok(); latchkey::cli::demo::run(once, &mut std::io::stdout()).await }
        Command::Bench => { rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); latchkey::cli::bench::run(latchkey::cli::bench::Plan { rounds: 3, round: std::time::Duration::from_secs(2) }, &mut std::io::stdout()).await }
        Command::Serve { config } => { rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); latchkey::telemetry::logging::init(latchkey::telemetry::LogFormat::Text, "debug").ok(); let c = latchkey::config::Config::load(&config)?; let app = latchkey::app::App::build(c, latchkey::app::Overrides::default()).await?; println!("{:?}", app.addresses()); app.run(true).await }
        Command::Simulate(args) => simulate::run(args, &mut std::io::stdout()).await,
    }
}
