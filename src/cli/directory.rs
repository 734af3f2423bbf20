//! Members, roles, deployments and projects: reading all pages, and the commands that list them.
//!
//! Owns look-ups against the connector's directory. Never decides what a name means: see [`super::resolve`].

use clap::ValueEnum as _;

use super::args::{MembersArgs, ResourceKind, ResourcesArgs, RoleKind, RolesArgs};
use super::connect::Connector;
use super::exit::Failure;
use super::resolve::{self, Resource};
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{time, view};
use crate::api::pb;

/// Rows asked for at once.
const PAGE: i32 = 500;

/// Every member of an organization, and whether the list was complete.
pub(super) async fn members(
    connector: &Connector,
    integration: Option<&str>,
) -> Result<(Vec<pb::Member>, bool), Failure> {
    let (mut members, mut is_complete, mut page_token) = (Vec::new(), true, String::new());
    loop {
        let request = pb::ListMembersRequest {
            integration: integration.unwrap_or_default().to_owned(),
            page_size: PAGE,
            page_token,
            member: None,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_members(request).await }
            })
            .await?;
        members.extend(page.members);
        is_complete &= page.is_complete;
        if page.next_page_token.is_empty() {
            return Ok((members, is_complete));
        }
        page_token = page.next_page_token;
    }
}

/// Every deployment and project of these kinds.
pub(super) async fn resources(
    connector: &Connector,
    integration: Option<&str>,
    kinds: &[ResourceKind],
) -> Result<Vec<Resource>, Failure> {
    let mut found = Vec::new();
    for kind in kinds {
        match resolve::project_type(*kind) {
            None => deployments(connector, integration, &mut found).await?,
            Some(of) => projects(connector, integration, *kind, of, &mut found).await?,
        }
    }
    Ok(found)
}

fn tags(tags: Vec<pb::Tag>) -> Vec<(String, String)> {
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

async fn deployments(
    connector: &Connector,
    integration: Option<&str>,
    found: &mut Vec<Resource>,
) -> Result<(), Failure> {
    let mut page_token = String::new();
    loop {
        let request = pb::ListDeploymentsRequest {
            integration: integration.unwrap_or_default().to_owned(),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_deployments(request).await }
            })
            .await?;
        found.extend(page.deployments.into_iter().map(|one| Resource {
            kind: ResourceKind::Deployment,
            id: one.deployment_id,
            name: one.name,
            alias: one.alias,
            region: one.region,
            tags: tags(one.tags),
        }));
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

async fn projects(
    connector: &Connector,
    integration: Option<&str>,
    kind: ResourceKind,
    project_type: pb::ProjectType,
    found: &mut Vec<Resource>,
) -> Result<(), Failure> {
    let mut page_token = String::new();
    loop {
        let request = pb::ListProjectsRequest {
            integration: integration.unwrap_or_default().to_owned(),
            project_type: Some(project_type.into()),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_projects(request).await }
            })
            .await?;
        found.extend(page.projects.into_iter().map(|one| Resource {
            kind,
            id: one.project_id,
            name: one.name,
            alias: one.alias,
            region: one.region,
            tags: tags(one.tags),
        }));
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

/// Whom a person means. An address goes to the connector as it is, so that people who are not members yet can be
/// named; anything else is looked up.
pub(super) async fn principal(
    connector: &Connector,
    integration: Option<&str>,
    written: &str,
) -> Result<pb::Principal, Failure> {
    use pb::principal::Kind;
    if written.trim().is_empty() {
        return Err(Failure::usage(
            "the member is empty",
            "give an e-mail address, a display name or a user id",
        ));
    }
    let kind = if written.contains('@') {
        let email = crate::domain::ids::Email::parse(written)
            .map_err(|error| Failure::usage(error.to_string(), ""))?;
        Kind::Email(email.to_string())
    } else {
        let (members, _) = members(connector, integration).await?;
        let candidates: Vec<_> = members.iter().map(resolve::member).collect();
        let index = resolve::pick("member", "latchkey members", written, &candidates)?;
        Kind::UserId(members[index].user_id.clone())
    };
    Ok(pb::Principal { kind: Some(kind) })
}

/// Whom a grant is for. A display name becomes the address behind it where that is nobody else's, so that the grant
/// says who holds it wherever it is shown, and the user id otherwise.
pub(super) async fn beneficiary(
    connector: &Connector,
    integration: Option<&str>,
    written: &str,
) -> Result<pb::Principal, Failure> {
    use pb::principal::Kind;
    if written.contains('@') || written.trim().is_empty() {
        return principal(connector, integration, written).await;
    }
    let (members, _) = members(connector, integration).await?;
    let candidates: Vec<_> = members.iter().map(resolve::member).collect();
    let member = &members[resolve::pick("member", "latchkey members", written, &candidates)?];
    let same_address = |other: &&pb::Member| other.email.eq_ignore_ascii_case(&member.email);
    let is_named = member.user_id != written && !member.email.is_empty();
    let kind = if is_named && members.iter().filter(same_address).count() == 1 {
        Kind::Email(member.email.clone())
    } else {
        Kind::UserId(member.user_id.clone())
    };
    Ok(pb::Principal { kind: Some(kind) })
}

/// What these targets mean, with the resources that had to be listed.
pub(super) async fn targets(
    connector: &Connector,
    integration: Option<&str>,
    written: &[String],
) -> Result<(Vec<resolve::Target>, view::Names), Failure> {
    let parsed = written
        .iter()
        .map(|one| resolve::WrittenTarget::parse(one))
        .collect::<Result<Vec<_>, _>>()?;
    let mut kinds: Vec<ResourceKind> = parsed
        .iter()
        .flat_map(resolve::WrittenTarget::kinds_to_list)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let known = resources(connector, integration, &kinds).await?;
    let targets = parsed
        .iter()
        .map(|one| one.resolve(&known))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((targets, view::Names::of(&known)))
}

/// Names for the targets in an answer; ids where the directory gives none, because a name is never worth a failure.
pub(super) async fn names<'a>(
    connector: &Connector,
    integration: Option<&str>,
    shown: impl Iterator<Item = &'a str>,
) -> view::Names {
    let mut kinds: Vec<ResourceKind> = shown
        .filter(|target| !target.ends_with("/all"))
        .filter_map(|target| ResourceKind::from_str(target.split_once('/')?.0, false).ok())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let known = resources(connector, integration, &kinds).await;
    view::Names::of(&known.unwrap_or_default())
}

/// Whether any of these contains the text, whatever the case.
fn contains<'a>(text: Option<&str>, mut fields: impl Iterator<Item = &'a str>) -> bool {
    text.is_none_or(|text| {
        let text = text.to_lowercase();
        fields.any(|field| field.to_lowercase().contains(&text))
    })
}

/// `latchkey members`
pub(super) async fn list_members(
    connector: &Connector,
    format: Format,
    args: &MembersArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (mut members, is_complete) = members(connector, args.integration.as_deref()).await?;
    members.retain(|one| {
        contains(
            args.containing.as_deref(),
            [one.email.as_str(), &one.name, &one.user_id].into_iter(),
        )
    });
    let members: Vec<view::Member> = members.iter().map(view::Member::from).collect();
    if !is_complete {
        streams
            .warning("the connector's key sees a filtered list of members; there may be more")?;
    }
    if format != Format::Table {
        return streams.document(format, &members);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let mut table = Table::new(&["MEMBER", "NAME", "USER ID", "ROLES", "SINCE"]);
    for one in &members {
        let since = one
            .member_since
            .map(|at| time::clock_time(at, now, zone))
            .unwrap_or_default();
        table.row(
            Paint::Plain,
            [
                one.email.as_deref().unwrap_or_default(),
                one.name.as_deref().unwrap_or_default(),
                &one.user_id,
                &one.assignments.len().to_string(),
                &since,
            ],
        );
    }
    table.print(streams, "no member matches")
}

/// `latchkey roles`
pub(super) async fn list_roles(
    connector: &Connector,
    format: Format,
    args: &RolesArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let scope = args.kind.map(|kind| match kind {
        RoleKind::Organization => pb::RoleScope::Organization,
        RoleKind::Deployment => pb::RoleScope::Deployment,
        RoleKind::Elasticsearch => pb::RoleScope::ElasticsearchProject,
        RoleKind::Observability => pb::RoleScope::ObservabilityProject,
        RoleKind::Security => pb::RoleScope::SecurityProject,
    });
    let (mut roles, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListRolesRequest {
            scope: scope.map(i32::from),
            page_size: PAGE,
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.directory();
                async move { client.list_roles(request).await }
            })
            .await?;
        roles.extend(page.roles.iter().map(view::Role::from));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if format != Format::Table {
        return streams.document(format, &roles);
    }
    let mut table = Table::new(&["ROLE", "SHORT", "HELD ON", "IN THE STACK", "ALLOWS"]);
    for role in &roles {
        let (paint, allows) = if role.is_grantable {
            (Paint::Plain, role.summary.clone())
        } else {
            (Paint::Dim, format!("{} (refused by policy)", role.summary))
        };
        table.row(
            paint,
            [
                role.id.as_str(),
                &role.short_form,
                &role.kind,
                role.stack_role.as_deref().unwrap_or_default(),
                &allows,
            ],
        );
    }
    table.print(streams, "no role matches")
}

/// `latchkey resources`
pub(super) async fn list_resources(
    connector: &Connector,
    format: Format,
    args: &ResourcesArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let kinds = args.kind.map_or_else(
        || ResourceKind::value_variants().to_vec(),
        |kind| vec![kind],
    );
    let mut found = resources(connector, args.integration.as_deref(), &kinds).await?;
    found.retain(|one| {
        contains(
            args.containing.as_deref(),
            [one.name.as_str(), &one.alias, &one.id].into_iter(),
        )
    });
    if format != Format::Table {
        let found: Vec<view::Resource> = found.iter().map(view::Resource::from).collect();
        return streams.document(format, &found);
    }
    let names = view::Names::of(&found);
    let mut table = Table::new(&["TARGET", "ID", "ALIAS", "REGION", "TAGS"]);
    for one in &found {
        let target = format!("{}/{}", resolve::kind_name(one.kind), one.id);
        let tags: Vec<String> = one
            .tags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row(
            Paint::Plain,
            [
                names.show(&target),
                one.id.clone(),
                one.alias.clone(),
                one.region.clone(),
                tags.join(" "),
            ],
        );
    }
    table.print(streams, "no deployment or project matches")
}
