//! The engineer's command line.
//!
//! Owns arguments, names, waiting and words: it is a client of the gRPC surface and of nothing else. Commands that run
//! in this process are handed to the composition root. It never touches an adapter, and prints only through
//! [`streams::Streams`].

pub mod adopt;
mod adopt_access;
pub mod args;
pub mod audit;
pub mod bench;
mod bulk;
mod configuration;
mod connect;
pub mod demo;
mod directory;
pub mod doctor;
mod drift;
pub mod exit;
mod explain;
mod explain_view;
mod follow;
mod grants;
mod help;
mod hold;
mod host;
mod inventory;
mod key;
mod ledger;
mod overdue;
mod policy;
mod progress;
mod proof;
mod proof_text;
mod proof_view;
mod receipt;
mod resolve;
mod review;
pub mod secure;
mod shell;
mod signing;
pub mod simulate;
mod stranger;
pub mod streams;
mod sweep;
mod table;
pub mod text;
pub mod time;
mod view;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _};

pub use adopt_access::AdoptAccessArgs;
pub use args::{Cli, ClientCommand, Command, Global, HostCommand};
pub use exit::{Exit, Failure};
pub use key::{KeyArgs, KeyCommand, RotateArgs};
pub use ledger::{LedgerArgs, MigrateArgs};
pub use overdue::{ForgetArgs, OverdueArgs};
pub use policy::{CasesArgs, ExplainArgs, PolicyArgs, PolicyCommand, ShowArgs, Which};
pub use proof::{ReceiptArgs, ReceiptsArgs};
pub use review::{ReviewArgs, ReviewCloseArgs, ReviewCommand, ReviewListArgs};
pub use secure::Credentials;
pub use signing::{
    ApprovalArgs, ApprovalCommand, BreakGlassArgs, BreakGlassCommand, DigestArgs, InspectArgs,
    IssueArgs, KeygenArgs, SignArgs, VoucherArgs,
};
pub use streams::Streams;
pub use sweep::SweepArgs;

use connect::{Connector, Limit};
use help::{EXAMPLES, EXIT_CODES};

/// The groups of `latchkey --help`.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Access",
        &[
            "grant",
            "extend",
            "revoke",
            "revoke-all",
            "plan",
            "list",
            "get",
            "watch",
            "why",
            "drift",
            "receipt",
            "receipts",
            "approval",
            "break-glass",
        ],
    ),
    (
        "Directory",
        &[
            "members",
            "roles",
            "resources",
            "project-roles",
            "invitations",
        ],
    ),
    (
        "Running the connector",
        &[
            "serve",
            "check-config",
            "doctor",
            "integrations",
            "limits",
            "schema",
            "policy",
            "drain",
            "hold",
            "events",
            "audit",
            "overdue",
            "forget",
            "review",
            "adopt",
            "key",
            "sweep",
            "migrate",
            "ledger",
            "bench",
        ],
    ),
    (
        "Trying and installing",
        &["demo", "simulate", "completions", "man"],
    ),
];

/// The definition of the command line, with grouped help.
#[must_use]
pub fn command() -> clap::Command {
    let command = Cli::command();
    let mut groups = String::new();
    for (title, names) in GROUPS {
        groups.push_str(&format!("{title}:\n"));
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            groups.push_str(&format!("  {name:<13} {about}\n"));
        }
        groups.push('\n');
    }
    command
        .help_template(format!(
            "{{about-with-newline}}\nUsage: {{usage}}\n\n{groups}Options:\n{{options}}\n\n{EXAMPLES}\n\n{EXIT_CODES}\n"
        ))
}

/// Reads a command line.
///
/// # Errors
/// What clap has to say: also `--help` and `--version` come this way. `error.exit_code()` is 0 for these and 2 else.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// Runs a command and reports its failure.
pub async fn run(cli: Cli, streams: &mut Streams) -> Exit {
    let outcome = match cli.command {
        // Boxed: a whole connector is a large future, and every other command would carry room for one.
        Command::Host(command) => Box::pin(host::run(command, &cli.global, streams)).await,
        Command::Client(ClientCommand::Adopt(args)) if !args.ledger.from.is_empty() => {
            host::quiet();
            adopt::adopt(&args.ledger, cli.global.output, streams).await
        }
        Command::Client(command) => ask(&cli.global, &command, streams)
            .await
            .map(|()| Exit::Done),
        Command::CheckConfig(args) => configuration::check(&args, streams).map(|()| Exit::Done),
        Command::Policy(args) => policy::policy(&args, &cli.global, streams).map(|()| Exit::Done),
        Command::Approval(args) => {
            signing::approval(&args, cli.global.output, streams).map(|()| Exit::Done)
        }
        Command::BreakGlass(args) => {
            signing::break_glass(&args, cli.global.output, streams).map(|()| Exit::Done)
        }
        Command::Schema => configuration::schema(streams).map(|()| Exit::Done),
        Command::Completions(args) => shell::completions(&args, streams).map(|()| Exit::Done),
        Command::Man(args) => shell::man(&args, streams).map(|()| Exit::Done),
    };
    let flushed = streams.out.flush().map_err(Failure::from);
    match outcome.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => streams.failure(&failure),
    }
}

async fn ask(
    global: &Global,
    command: &ClientCommand,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let limit = match command {
        ClientCommand::Drain(_) | ClientCommand::Watch(_) => Limit::Endless,
        ClientCommand::Grant(_)
        | ClientCommand::Plan(_)
        | ClientCommand::List(_)
        | ClientCommand::Get(_)
        | ClientCommand::Extend(_)
        | ClientCommand::Revoke(_)
        | ClientCommand::RevokeAll(_)
        | ClientCommand::Hold(_)
        | ClientCommand::Why(_)
        | ClientCommand::Drift(_)
        | ClientCommand::Receipt(_)
        | ClientCommand::Receipts(_)
        | ClientCommand::Overdue(_)
        | ClientCommand::Forget(_)
        | ClientCommand::Key(_)
        | ClientCommand::Review(_)
        | ClientCommand::Adopt(_)
        | ClientCommand::Members(_)
        | ClientCommand::Roles(_)
        | ClientCommand::Resources(_)
        | ClientCommand::Integrations
        | ClientCommand::Limits
        | ClientCommand::Invitations(_)
        | ClientCommand::ProjectRoles(_) => Limit::Default,
    };
    let connector = &Connector::new(global, limit, streams.interrupt.clone())?;
    let format = global.output;
    match command {
        ClientCommand::Grant(args) => grants::grant(connector, format, args, streams).await,
        ClientCommand::Plan(args) => explain::plan(connector, format, args, streams).await,
        ClientCommand::List(args) => follow::list(connector, format, args, streams).await,
        ClientCommand::Get(args) => grants::get_command(connector, format, args, streams).await,
        ClientCommand::Watch(args) => follow::watch(connector, format, args, streams).await,
        ClientCommand::Extend(args) => grants::extend(connector, format, args, streams).await,
        ClientCommand::Revoke(args) => grants::revoke(connector, format, args, streams).await,
        ClientCommand::RevokeAll(args) => bulk::revoke_all(connector, format, args, streams).await,
        ClientCommand::Drain(args) => bulk::drain(connector, format, args, streams).await,
        ClientCommand::Drift(args) => drift::drift(connector, format, args, streams).await,
        ClientCommand::Hold(args) => hold::hold(connector, format, args, streams).await,
        ClientCommand::Why(args) => explain::why(connector, format, args, streams).await,
        ClientCommand::Receipt(args) => proof::receipt(connector, format, args, streams).await,
        ClientCommand::Receipts(args) => proof::receipts(connector, format, args, streams).await,
        ClientCommand::Overdue(args) => overdue::overdue(connector, format, args, streams).await,
        ClientCommand::Forget(args) => overdue::forget(connector, format, args, streams).await,
        ClientCommand::Key(args) => key::key(connector, format, args, streams).await,
        ClientCommand::Review(args) => review::review(connector, format, args, streams).await,
        ClientCommand::Adopt(args) => {
            adopt_access::adopt_access(connector, format, args, streams).await
        }
        ClientCommand::Members(args) => {
            directory::list_members(connector, format, args, streams).await
        }
        ClientCommand::Roles(args) => directory::list_roles(connector, format, args, streams).await,
        ClientCommand::Resources(args) => {
            directory::list_resources(connector, format, args, streams).await
        }
        ClientCommand::Integrations => inventory::integrations(connector, format, streams).await,
        ClientCommand::Limits => inventory::limits(connector, format, streams).await,
        ClientCommand::Invitations(args) => {
            inventory::invitations(connector, format, args, streams).await
        }
        ClientCommand::ProjectRoles(args) => {
            inventory::project_roles(connector, format, args, streams).await
        }
    }
}

#[cfg(test)]
mod tests;
