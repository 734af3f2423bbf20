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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Simulate(args) => simulate::run(args, &mut std::io::stdout()).await,
    }
}
