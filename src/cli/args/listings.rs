//! The arguments of the commands that only look: at grants, at why a member holds a role, at the directory.
//!
//! Owns their names, defaults and help texts. Never takes an argument that changes anything.

use clap::Args;

/// Which grants: shared by `list` and `watch`.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only in this state; may be repeated
    #[arg(long = "state", value_enum, value_name = "STATE")]
    pub states: Vec<State>,
    /// Only of this member
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<String>,
    /// Only on this target
    #[arg(long = "on", value_name = "TARGET")]
    pub target: Option<String>,
    /// Only of this integration
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// States of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    /// Accepted for later.
    Scheduled,
    /// Waiting for an invited person to join.
    #[value(name = "awaiting-member", alias = "awaiting_member")]
    AwaitingMember,
    /// Access is being given.
    Activating,
    /// Access was verified.
    Active,
    /// Access is being taken away.
    Revoking,
    /// Over.
    Ended,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Which grants.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Also those that have ended
    #[arg(short, long, conflicts_with = "states")]
    pub all: bool,
    /// At most this many, newest first
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// Arguments of `get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// Grant id, or the beginning of one
    pub grant: String,
}

/// Arguments of `watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Which grants.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print what stands now and stop
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// E-mail address, display name or user id
    pub member: String,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// Arguments of `members`.
#[derive(Debug, Clone, Args)]
pub struct MembersArgs {
    /// Only those whose address, name or id contains this text
    pub containing: Option<String>,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// Arguments of `roles`.
#[derive(Debug, Clone, Args)]
pub struct RolesArgs {
    /// Only roles of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    pub kind: Option<RoleKind>,
}

/// Where a role can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleKind {
    /// The organization.
    Organization,
    /// Hosted deployments.
    Deployment,
    /// Elasticsearch projects.
    Elasticsearch,
    /// Observability projects.
    Observability,
    /// Security projects.
    Security,
}

/// Arguments of `resources`.
#[derive(Debug, Clone, Args)]
pub struct ResourcesArgs {
    /// Only those whose name, alias or id contains this text
    pub containing: Option<String>,
    /// Only resources of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    pub kind: Option<ResourceKind>,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// Arguments of `invitations`.
#[derive(Debug, Clone, Args)]
pub struct InvitationsArgs {
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// Arguments of `project-roles`.
#[derive(Debug, Clone, Args)]
pub struct ProjectRolesArgs {
    /// Project, written like --on of grant: security/soc
    pub project: String,
    /// Integration, when several are configured
    #[arg(long, value_name = "NAME")]
    pub integration: Option<String>,
}

/// Kinds of resource that have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum ResourceKind {
    /// Hosted deployments.
    Deployment,
    /// Elasticsearch projects.
    Elasticsearch,
    /// Observability projects.
    Observability,
    /// Security projects.
    Security,
}
