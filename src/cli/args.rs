//! The arguments of every command.
//!
//! Owns names, defaults and help texts. Never resolves names or asks the connector anything.

mod listings;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};

pub use self::listings::{
    FilterArgs, GetArgs, InvitationsArgs, ListArgs, MembersArgs, ProjectRolesArgs, ResourceKind,
    ResourcesArgs, RoleKind, RolesArgs, State, WatchArgs, WhyArgs,
};
use super::adopt_access::AdoptAccessArgs;
use super::audit::AuditArgs;
use super::bench::BenchArgs;
use super::help::*;
use super::key::KeyArgs;
use super::ledger::{LedgerArgs, MigrateArgs};
use super::overdue::{ForgetArgs, OverdueArgs};
use super::policy::PolicyArgs;
use super::proof::{ReceiptArgs, ReceiptsArgs};
use super::review::ReviewArgs;
use super::secure::Credentials;
use super::signing::{ApprovalArgs, BreakGlassArgs, VoucherArgs};
use super::simulate::SimulateArgs;
use super::streams::Format;
use super::sweep::SweepArgs;
use super::time;
use crate::domain::ttl::Ttl;

/// Just-in-time access to Elastic Cloud: roles for a bounded time, provably gone at the end.
#[derive(Debug, Parser)]
#[command(
    name = "latchkey",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What every command that talks to the connector understands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that stand before or after any command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the connector
    #[arg(
        long,
        global = true,
        env = "LATCHKEY_SERVER", hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7443",
        value_hint = ValueHint::Url,
        help_heading = "Global options"
    )]
    pub server: String,

    /// How long to wait in all, such as 30s or 5m [default: 1m; drain and watch: no limit]
    #[arg(long, global = true, value_name = "DURATION", value_parser = time::parse_duration, help_heading = "Global options")]
    pub timeout: Option<Duration>,

    /// How to print the answer
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        help_heading = "Global options"
    )]
    pub output: Format,

    /// What proves to the connector who calls.
    #[command(flatten)]
    pub credentials: Credentials,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Commands that run in this process.
    #[command(flatten)]
    Host(HostCommand),
    /// Commands that ask a running connector.
    #[command(flatten)]
    Client(ClientCommand),
    /// Check a configuration and report everything that is wrong with it
    #[command(after_help = CHECK_EXAMPLES)]
    CheckConfig(CheckConfigArgs),
    /// Print the JSON schema of the configuration
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Check, try out and show the policies that decide what callers may do
    #[command(after_help = POLICY_EXAMPLES, disable_help_subcommand = true)]
    Policy(PolicyArgs),
    /// Approve requests by a signature of your own
    #[command(after_help = APPROVAL_EXAMPLES, disable_help_subcommand = true)]
    Approval(ApprovalArgs),
    /// Seal tokens in advance that open access in an emergency
    #[command(after_help = BREAK_GLASS_EXAMPLES, disable_help_subcommand = true)]
    BreakGlass(BreakGlassArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages to a directory
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

/// Commands that run in this process and need no connector; the composition root carries them out.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Run the connector
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Run a simulated Elastic Cloud over HTTP, to try things without an organization
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
    /// Show the whole story on this machine: simulated cloud, connector, a grant and its end
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Check what the connector needs: secret store, key, Elastic Cloud, clock, ledger
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print the audit events of the ledger as lines of JSON, also while the connector runs
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// Seal, export and verify the audit
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit(AuditArgs),
    /// Remove what is due without a running connector: the last resort
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep(SweepArgs),
    /// Bring up the schema of a PostgreSQL ledger, for a role of its own
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(MigrateArgs),
    /// Move a whole ledger to another database
    #[command(after_help = LEDGER_EXAMPLES, disable_help_subcommand = true)]
    Ledger(LedgerArgs),
    /// Measure what the connector costs on this machine, against what it could cost at best
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
}

/// Commands that ask a running connector.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Give a member a role for a bounded time
    #[command(after_help = GRANT_EXAMPLES)]
    Grant(GrantArgs),
    /// Show what a grant would do, and do nothing
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(SpecArgs),
    /// List grants
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one grant
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Follow grants as they change
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Move the end of an active grant later
    #[command(after_help = EXTEND_EXAMPLES)]
    Extend(ExtendArgs),
    /// End one grant now
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeArgs),
    /// End every grant of a member, on a target, or of an integration
    #[command(after_help = REVOKE_ALL_EXAMPLES)]
    RevokeAll(RevokeAllArgs),
    /// Refuse new grants, revoke everything, wait until nothing is left
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Show why the connector is in hold and what it withholds, or end it
    #[command(after_help = HOLD_EXAMPLES, disable_help_subcommand = true)]
    Hold(HoldArgs),
    /// Show the receipt of a grant that ended: what was given, removed and seen, and how sure that is
    #[command(after_help = RECEIPT_EXAMPLES)]
    Receipt(ReceiptArgs),
    /// List receipts
    #[command(after_help = RECEIPTS_EXAMPLES)]
    Receipts(ReceiptsArgs),
    /// List access that should be gone and is not
    #[command(after_help = OVERDUE_EXAMPLES)]
    Overdue(OverdueArgs),
    /// Give up removing one overdue assignment; needs a second person
    #[command(after_help = FORGET_EXAMPLES)]
    Forget(ForgetArgs),
    /// List and close the reviews that emergency grants owe
    #[command(after_help = REVIEW_EXAMPLES, disable_help_subcommand = true)]
    Review(ReviewArgs),
    /// Declare access that a grant gave standing, so that it stays; with --from: rebuild a lost ledger
    #[command(after_help = ADOPT_EXAMPLES)]
    Adopt(AdoptAccessArgs),
    /// Show the key, or replace it by a new one
    #[command(after_help = KEY_EXAMPLES, disable_help_subcommand = true)]
    Key(KeyArgs),
    /// Explain why a member holds each role now
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyArgs),
    /// Show where Elastic Cloud differs from the ledger
    #[command(after_help = DRIFT_EXAMPLES)]
    Drift(DriftArgs),
    /// List the members of the organization
    #[command(after_help = MEMBERS_EXAMPLES)]
    Members(MembersArgs),
    /// List the roles that can be granted
    #[command(after_help = ROLES_EXAMPLES)]
    Roles(RolesArgs),
    /// List deployments and projects
    #[command(after_help = RESOURCES_EXAMPLES)]
    Resources(ResourcesArgs),
    /// List the configured integrations and how each does
    #[command(after_help = INTEGRATIONS_EXAMPLES)]
    Integrations,
    /// Show what may be granted and for how long
    #[command(after_help = LIMITS_EXAMPLES)]
    Limits,
    /// List open invitations to the organization
    #[command(after_help = INVITATIONS_EXAMPLES)]
    Invitations(InvitationsArgs),
    /// List the roles that are defined inside a project
    #[command(after_help = PROJECT_ROLES_EXAMPLES)]
    ProjectRoles(ProjectRolesArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Configuration file
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Run the story once and leave, instead of staying up for trying things
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `check-config`.
#[derive(Debug, Clone, Args)]
pub struct CheckConfigArgs {
    /// Configuration file
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Configuration file
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Arguments of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Configuration file
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Only events after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub after: u64,
}

/// Arguments of `hold`.
#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    /// Integration, when several are configured
    #[arg(long, global = true, value_name = "NAME")]
    pub integration: Option<String>,
    /// What to do instead of showing it.
    #[command(subcommand)]
    pub command: Option<HoldCommand>,
}

/// What can be done about a hold.
#[derive(Debug, Clone, Subcommand)]
pub enum HoldCommand {
    /// End the hold: take the ledger at its word from now on
    Release(ReleaseArgs),
}

/// Arguments of `hold release`.
#[derive(Debug, Clone, Args)]
pub struct ReleaseArgs {
    /// Why it is safe, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who decides, for the audit
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub requester: String,
}

/// Who asks: shared by the commands that change something without asking for access.
#[derive(Debug, Clone, Args)]
pub struct RequesterArgs {
    /// Who asks, for the audit
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub requester: String,
}

/// What is asked for: shared by `grant` and `plan`.
#[derive(Debug, Clone, Args)]
pub struct SpecArgs {
    /// Who gets access: e-mail address, display name or user id
    pub member: String,
    /// Role: canonical (deployment-viewer) or short (viewer) where --on makes it clear
    pub role: String,
    /// What it is held on; repeat for several of one kind
    #[arg(long = "on", value_name = "TARGET", long_help = ON_HELP)]
    pub targets: Vec<String>,
    /// How long, counted from verified access: 45m, 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = time::parse_ttl, allow_hyphen_values = true)]
    pub duration: Ttl,
    /// Why: a ticket, an incident
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Not before: 14:00, +10m, "2026-11-21 14:00" (local) or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub starts: Option<String>,
    /// Hard end that always wins, written like --starts
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// Invite the person to the organization when they are not a member yet (needs an address)
    #[arg(long)]
    pub invite: bool,
    /// Stack roles instead of the default ones, separated by commas; "" for no sign-in to the stack
    #[arg(long, value_name = "ROLE,…")]
    pub as_roles: Option<String>,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Who asks, for the audit, when that is not the member
    #[arg(
        long,
        value_name = "WHO",
        env = "LATCHKEY_REQUESTER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub requester: String,
}

/// Arguments of `grant`.
#[derive(Debug, Clone, Args)]
pub struct GrantArgs {
    /// What is asked for.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Return when the grant is accepted, without waiting for access
    #[arg(long)]
    pub no_wait: bool,
    /// Key of this request; repeating it with the same request gives the same grant [default: a new one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// What vouches for it.
    #[command(flatten)]
    pub vouchers: VoucherArgs,
}

/// Arguments of `extend`.
#[derive(Debug, Clone, Args)]
pub struct ExtendArgs {
    /// Grant id, or the beginning of one
    pub grant: String,
    /// By how long beyond its present end: 30m
    #[arg(long = "by", value_name = "DURATION", value_parser = time::parse_ttl, allow_hyphen_values = true)]
    pub duration: Ttl,
    /// Why
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
    /// Key of this request [default: a new one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// File with an approval of this very extension, so its --request-id too; may be repeated
    #[arg(long = "approval", value_name = "FILE", value_hint = ValueHint::FilePath, requires = "request_id")]
    pub approvals: Vec<PathBuf>,
}

/// Arguments of `revoke`.
#[derive(Debug, Clone, Args)]
pub struct RevokeArgs {
    /// Grant id, or the beginning of one
    #[arg(required_unless_present = "request_id", conflicts_with = "request_id")]
    pub grant: Option<String>,
    /// Instead of an id: the request id that the grant was, or will be, asked for with
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Why
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
    /// Return when the decision is durable, without waiting until access is gone
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `revoke-all`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").args(["member", "target", "integration"]).required(true).multiple(true))]
pub struct RevokeAllArgs {
    /// Everything of this member: off-boarding
    #[arg(long, value_name = "MEMBER", conflicts_with = "target")]
    pub member: Option<String>,
    /// Everything that names exactly this target
    #[arg(long = "on", id = "target", value_name = "TARGET")]
    pub target: Option<String>,
    /// Everything of this integration (the kill switch); with --member or --on: where to look
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Why
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "revoke-all from the command line"
    )]
    pub reason: String,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
    /// Key of this request; repeat it to go on after an interruption [default: a new one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// With --on: refuse when it would reach more members than this [default: the connector's limit]
    #[arg(long, value_name = "N", requires = "target", conflicts_with = "member", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_members: Option<u32>,
    /// Yes, end all of them
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Only this integration [default: all]
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Why
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "drain from the command line"
    )]
    pub reason: String,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
    /// Yes, revoke everything
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `drift`.
#[derive(Debug, Clone, Args)]
pub struct DriftArgs {
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
    /// Let the repairs go on that wait because too many members lost roles at once
    #[arg(long, requires = "reason")]
    pub confirm: bool,
    /// Why, with --confirm
    #[arg(long, value_name = "TEXT", requires = "confirm")]
    pub reason: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write one page for each command here, instead of printing the main page
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}
