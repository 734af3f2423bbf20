//! Listings between the wire and the domain: invitations, deployments, projects.
//!
//! Owns which entries are of use and what of them is kept. What cannot be named in a call is left out.

use super::answer::parse_instant;
use super::wire::{self, Text};
use crate::domain::assignment::ProjectType;
use crate::domain::ids::{DeploymentId, Email, InvitationToken, OrganizationId, ProjectId};
use crate::ports::provider::{Deployment, ObservedInvitation, Project};

/// An invitation that can still be accepted or has expired; what cannot be read or is of no use is left out.
pub(super) fn open_invitation(
    invitation: wire::Invitation,
    organization: &OrganizationId,
) -> Option<ObservedInvitation> {
    let wire::Invitation {
        token,
        email,
        created_at,
        expires_at,
        accepted_at,
        expired,
        organization: invited_to,
    } = invitation;
    let elsewhere = invited_to
        .as_ref()
        .and_then(|invited_to| invited_to.id.as_str())
        .is_some_and(|id| id != organization.as_str());
    if elsewhere || accepted_at != Text::Absent {
        return None;
    }
    Some(ObservedInvitation {
        token: InvitationToken::parse(token.into_string()?).ok()?,
        email: Email::parse(email.into_string()?).ok()?,
        created_at: parse_instant(created_at.as_str()?)?,
        expires_at: parse_instant(expires_at.as_str()?)?,
        expired: expired.unwrap_or(false),
    })
}

/// A deployment that can be named in an assignment; one that is shut down is left out.
pub(super) fn deployment(shown: wire::Deployment) -> Option<(DeploymentId, Deployment)> {
    let wire::Deployment {
        id,
        name,
        alias,
        resources,
        metadata,
    } = shown;
    let (tags, hidden) = metadata.map_or((Vec::new(), None), |metadata| {
        let wire::DeploymentMetadata { tags, hidden } = metadata;
        (tags, hidden)
    });
    if hidden == Some(true) {
        return None;
    }
    let id = DeploymentId::parse(id.into_string()?).ok()?;
    let region = resources
        .and_then(|wire::Resources { elasticsearch }| elasticsearch.into_iter().next())
        .and_then(|wire::Resource { region }| region.into_string())
        .unwrap_or_default();
    let mut tags: Vec<_> = tags
        .into_iter()
        .filter_map(|wire::Tag { key, value }| {
            Some((key.into_string()?, value.into_string().unwrap_or_default()))
        })
        .collect();
    tags.sort();
    let deployment = Deployment {
        id: id.clone(),
        name: name.into_string().unwrap_or_default(),
        alias: alias.into_string().filter(|alias| !alias.is_empty()),
        tags,
        region,
    };
    Some((id, deployment))
}

/// A project that can be named in an assignment.
pub(super) fn project(shown: wire::Project, project_type: ProjectType) -> Option<Project> {
    let wire::Project {
        id,
        name,
        alias,
        region_id,
        metadata,
    } = shown;
    let tags = metadata
        .and_then(|wire::ProjectMetadata { tags }| tags)
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.into_string().unwrap_or_default()))
        .collect();
    Some(Project {
        id: ProjectId::parse(id.into_string()?).ok()?,
        name: name.into_string().unwrap_or_default(),
        project_type,
        alias: alias.into_string().unwrap_or_default(),
        region: region_id.into_string().unwrap_or_default(),
        tags,
    })
}
