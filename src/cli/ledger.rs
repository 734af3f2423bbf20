//! Commands about the ledger itself: its schema, and moving it.
//!
//! Owns their arguments and words. Never opens a ledger: that is `app`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{Failure, Streams, configuration, host};
use crate::app;

/// Arguments of `migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Configuration file
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Arguments of `ledger`.
#[derive(Debug, Clone, Args)]
pub struct LedgerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LedgerCommand,
}

/// What can be done with a whole ledger.
#[derive(Debug, Clone, Subcommand)]
pub enum LedgerCommand {
    /// Copy a ledger to an empty one, from SQLite to PostgreSQL or back
    Copy(CopyArgs),
}

/// Arguments of `ledger copy`.
#[derive(Debug, Clone, Args)]
pub struct CopyArgs {
    /// Configuration whose ledger is copied
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// Configuration whose ledger is written; it must be empty
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
}

/// Brings up the schema and says what was done.
pub(super) async fn migrate(args: &MigrateArgs, streams: &mut Streams) -> Result<(), Failure> {
    let config = configuration::load(&args.config, streams)?;
    host::quiet();
    let applied = app::migrate(&config).await.map_err(host::failed)?;
    if applied.is_empty() {
        writeln!(streams.out, "The schema is up to date")?;
    }
    for version in applied {
        writeln!(streams.out, "Applied migration {version}")?;
    }
    Ok(())
}

/// Copies and says how much.
pub(super) async fn ledger(args: &LedgerArgs, streams: &mut Streams) -> Result<(), Failure> {
    let LedgerCommand::Copy(CopyArgs { from, to }) = &args.command;
    let from = configuration::load(from, streams)?;
    let to = configuration::load(to, streams)?;
    host::quiet();
    let copied = app::copy_ledger(&from, &to).await.map_err(host::failed)?;
    for (table, rows) in copied {
        writeln!(streams.out, "{rows:>10} {table}")?;
    }
    Ok(())
}
