//! What the connector is set up with: integrations, limits, invitations, roles inside of projects.
//!
//! Owns these listings, as tables and as documents. Never changes anything.

use serde::Serialize;

use super::args::{InvitationsArgs, ProjectRolesArgs};
use super::connect::Connector;
use super::directory;
use super::exit::Failure;
use super::resolve::Target;
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{text, time, view};
use crate::api::pb;
use crate::domain::Timestamp;

/// Rows asked for at once.
const PAGE: i32 = 500;

/// One integration as a document.
#[derive(Debug, Clone, Serialize)]
struct Integration {
    name: String,
    kind: String,
    base_url: String,
    /// `ok`, `degraded`, `down` or `unknown`.
    health: String,
    health_code: Option<String>,
    last_success_at: Option<Timestamp>,
    is_draining: bool,
    key: Option<Key>,
    custom_access_details: Option<String>,
    owners: Vec<String>,
    resource_owner: Option<String>,
}

/// What is known of a key.
#[derive(Debug, Clone, Serialize)]
struct Key {
    is_loaded: bool,
    fingerprint: Option<String>,
    expires_at: Option<Timestamp>,
    sees_owners: Option<bool>,
    skew_ms: Option<i64>,
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<pb::Integration> for Integration {
    fn from(wire: pb::Integration) -> Self {
        let health = match wire.health() {
            pb::IntegrationHealth::Ok => "ok",
            pb::IntegrationHealth::Degraded => "degraded",
            pb::IntegrationHealth::Down => "down",
            pb::IntegrationHealth::Unknown | pb::IntegrationHealth::Unspecified => "unknown",
        };
        let pb::Integration {
            name,
            kind,
            base_url,
            health: _,
            health_code,
            last_success_at,
            key,
            custom_access_details,
            owners,
            resource_owner,
            is_draining,
        } = wire;
        Self {
            name,
            kind,
            base_url,
            health: health.to_owned(),
            health_code: present(health_code),
            last_success_at: view::instant(last_success_at.as_ref()),
            is_draining,
            key: key.map(|key| Key {
                is_loaded: key.is_loaded,
                fingerprint: present(key.fingerprint),
                expires_at: view::instant(key.expires_at.as_ref()),
                sees_owners: key.sees_owners,
                skew_ms: key.skew_ms,
            }),
            custom_access_details: present(custom_access_details),
            owners,
            resource_owner: present(resource_owner),
        }
    }
}

/// `latchkey integrations`
pub(super) async fn integrations(
    connector: &Connector,
    format: Format,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (mut found, mut page_token) = (Vec::<Integration>::new(), String::new());
    loop {
        let request = pb::ListIntegrationsRequest {
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.connector();
                async move { client.list_integrations(request).await }
            })
            .await?;
        found.extend(page.integrations.into_iter().map(Integration::from));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if format != Format::Table {
        return streams.document(format, &found);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let when = |at: Option<Timestamp>, none: &str| {
        at.map_or_else(|| none.to_owned(), |at| time::clock_time(at, now, zone))
    };
    let mut table = Table::new(&[
        "INTEGRATION",
        "HEALTH",
        "LAST ANSWER",
        "KEY",
        "KEY EXPIRES",
        "OWNERS",
    ]);
    for one in &found {
        let (paint, mut health) = match one.health.as_str() {
            "ok" => (Paint::Green, one.health.clone()),
            "down" => (Paint::Red, one.health.clone()),
            _ => (Paint::Yellow, one.health.clone()),
        };
        if let Some(code) = &one.health_code {
            health.push_str(&format!(" ({code})"));
        }
        if one.is_draining {
            health.push_str(", draining");
        }
        let (fingerprint, expires_at) = one.key.as_ref().map_or((None, None), |key| {
            (key.fingerprint.as_deref(), key.expires_at)
        });
        table.row(
            paint,
            [
                one.name.clone(),
                health,
                when(one.last_success_at, "none yet"),
                fingerprint.unwrap_or("none").to_owned(),
                when(expires_at, "unknown or never"),
                one.owners.join(" "),
            ],
        );
    }
    table.print(streams, "no integration is configured")
}

/// Limits as a document.
#[derive(Debug, Clone, Serialize)]
struct Limits {
    max_duration_seconds: i64,
    max_total_seconds: i64,
    max_start_delay_seconds: i64,
    invitation_ttl_seconds: i64,
    organization_roles_allowed: bool,
    all_targets_allowed: bool,
    invitations_allowed: bool,
    allowed_roles: Vec<String>,
    max_targets: u32,
    max_message_bytes: u32,
    max_deadline_seconds: i64,
}

/// `latchkey limits`
pub(super) async fn limits(
    connector: &Connector,
    format: Format,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let answer = connector
        .call(pb::GetLimitsRequest {}, |request| {
            let mut client = connector.connector();
            async move { client.get_limits(request).await }
        })
        .await?;
    let seconds = |length: Option<prost_types::Duration>| length.map_or(0, |length| length.seconds);
    let limits = Limits {
        max_duration_seconds: seconds(answer.max_duration),
        max_total_seconds: seconds(answer.max_total),
        max_start_delay_seconds: seconds(answer.max_start_delay),
        invitation_ttl_seconds: seconds(answer.invitation_ttl),
        organization_roles_allowed: answer.organization_roles_allowed,
        all_targets_allowed: answer.all_targets_allowed,
        invitations_allowed: answer.invitations_allowed,
        allowed_roles: answer.allowed_roles,
        max_targets: answer.max_targets,
        max_message_bytes: answer.max_message_bytes,
        max_deadline_seconds: seconds(answer.max_deadline),
    };
    if format != Format::Table {
        return streams.document(format, &limits);
    }
    let length = |seconds: i64| time::length(seconds.unsigned_abs());
    let allowed = |allowed: bool| if allowed { "allowed" } else { "refused" }.to_owned();
    let roles = if limits.allowed_roles.is_empty() {
        "every role that the lines below allow".to_owned()
    } else {
        limits.allowed_roles.join(" ")
    };
    let lines = [
        (
            "Duration",
            format!("at most {}", length(limits.max_duration_seconds)),
        ),
        (
            "Extended",
            format!("at most {} in all", length(limits.max_total_seconds)),
        ),
        (
            "Start",
            format!("at most {} ahead", length(limits.max_start_delay_seconds)),
        ),
        ("Roles", roles),
        (
            "Organization",
            format!(
                "its roles are {}",
                allowed(limits.organization_roles_allowed)
            ),
        ),
        (
            "All",
            format!(
                "roles on everything of a kind are {}",
                allowed(limits.all_targets_allowed)
            ),
        ),
        (
            "Invitations",
            format!(
                "{}; open for {}",
                allowed(limits.invitations_allowed),
                length(limits.invitation_ttl_seconds)
            ),
        ),
        (
            "Targets",
            format!("at most {} in one grant", limits.max_targets),
        ),
        (
            "Calls",
            format!(
                "messages of at most {} bytes, answered within {}",
                limits.max_message_bytes,
                length(limits.max_deadline_seconds)
            ),
        ),
    ];
    for (label, value) in lines {
        let label = streams.paint(Paint::Bold, &format!("{label:<13}"));
        streams.line(&format!("{label} {}", text::safe(&value)))?;
    }
    Ok(())
}

/// One invitation as a document.
#[derive(Debug, Clone, Serialize)]
struct Invitation {
    email: String,
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    is_expired: bool,
}

/// `latchkey invitations`
pub(super) async fn invitations(
    connector: &Connector,
    format: Format,
    args: &InvitationsArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (mut found, mut page_token) = (Vec::<Invitation>::new(), String::new());
    loop {
        let request = pb::ListInvitationsRequest {
            integration: args.integration.clone().unwrap_or_default(),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_invitations(request).await }
            })
            .await?;
        found.extend(page.invitations.into_iter().map(|one| Invitation {
            created_at: view::instant(one.created_at.as_ref()),
            expires_at: view::instant(one.expires_at.as_ref()),
            email: one.email,
            is_expired: one.is_expired,
        }));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if format != Format::Table {
        return streams.document(format, &found);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let when =
        |at: Option<Timestamp>| at.map_or_else(String::new, |at| time::clock_time(at, now, zone));
    let mut table = Table::new(&["ADDRESS", "SENT", "EXPIRES"]);
    for one in &found {
        let (paint, expires) = if one.is_expired {
            (Paint::Dim, format!("{} (expired)", when(one.expires_at)))
        } else {
            (Paint::Plain, when(one.expires_at))
        };
        table.row(paint, [one.email.clone(), when(one.created_at), expires]);
    }
    table.print(streams, "no invitation is open")
}

/// One role of a project as a document.
#[derive(Debug, Clone, Serialize)]
struct ProjectRole {
    name: String,
    description: Option<String>,
}

/// `latchkey project-roles`
pub(super) async fn project_roles(
    connector: &Connector,
    format: Format,
    args: &ProjectRolesArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let integration = args.integration.as_deref();
    let written = [args.project.clone()];
    let (targets, _) = directory::targets(connector, integration, &written).await?;
    let project = match targets
        .first()
        .map(Target::to_pb)
        .and_then(|target| target.kind)
    {
        Some(pb::target::Kind::Project(project)) => project,
        Some(
            pb::target::Kind::Organization(_)
            | pb::target::Kind::Deployment(_)
            | pb::target::Kind::AllDeployments(_)
            | pb::target::Kind::AllProjects(_),
        )
        | None => {
            return Err(Failure::usage(
                format!("{:?} is not one project", args.project),
                "write elasticsearch/NAME, observability/NAME or security/NAME; `latchkey resources` shows them",
            ));
        }
    };
    let (mut found, mut page_token) = (Vec::<ProjectRole>::new(), String::new());
    loop {
        let request = pb::ListProjectRolesRequest {
            integration: integration.unwrap_or_default().to_owned(),
            project: Some(project.clone()),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_project_roles(request).await }
            })
            .await?;
        found.extend(page.roles.into_iter().map(|one| ProjectRole {
            name: one.name,
            description: present(one.description),
        }));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if format != Format::Table {
        return streams.document(format, &found);
    }
    let mut table = Table::new(&["ROLE", "FOR"]);
    for one in &found {
        table.row(
            Paint::Plain,
            [&one.name, one.description.as_deref().unwrap_or_default()],
        );
    }
    table.print(streams, "no role is defined inside this project")
}
