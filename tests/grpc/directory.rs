//! The directory and the connector itself.

use latchkey::api::pb;
use latchkey::domain::ids::{Email, InvitationToken};
use latchkey::ports::provider::{ObservedInvitation, ReadError};
use tonic::{Code, Response, Status};

use super::support::*;

/// The page that was answered.
#[track_caller]
fn listed<T>(answer: Result<Response<T>, Status>) -> T {
    answer.expect("listed").into_inner()
}

#[tokio::test]
async fn members_come_in_pages_in_order_of_user_id() {
    let bed = Bed::start().await;
    let mut request = pb::ListMembersRequest {
        page_size: 3,
        ..Default::default()
    };
    let first = listed(bed.directory().list_members(request.clone()).await);
    let ids = |page: &pb::ListMembersResponse| -> Vec<String> {
        page.members
            .iter()
            .map(|member| member.user_id.clone())
            .collect()
    };
    assert_eq!(ids(&first), ["1", "2", "3"]);
    assert_eq!((first.total_size, first.is_complete), (4, true));
    request.page_token = first.next_page_token;
    let second = listed(bed.directory().list_members(request).await);
    assert_eq!(ids(&second), ["9"]);
    assert_eq!(second.next_page_token, "");
    let one = pb::ListMembersRequest {
        member: email("bob@example.com"),
        ..Default::default()
    };
    let one = listed(bed.directory().list_members(one).await);
    assert_eq!(ids(&one), ["2"]);
}

#[tokio::test]
async fn deployments_and_projects_come_in_pages_that_span_types() {
    let bed = Bed::start().await;
    let mut request = pb::ListDeploymentsRequest {
        page_size: 2,
        ..Default::default()
    };
    let page = listed(bed.directory().list_deployments(request.clone()).await);
    assert_eq!(page.deployments.len(), 2);
    request.page_token = page.next_page_token;
    let page = listed(bed.directory().list_deployments(request).await);
    assert_eq!(page.deployments[0].deployment_id, "c");
    assert_eq!(page.next_page_token, "");

    let mut request = pb::ListProjectsRequest {
        page_size: 1,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = listed(bed.directory().list_projects(request.clone()).await);
        seen.extend(page.projects.into_iter().map(|project| project.project_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, ["e1", "e2", "s1"]);
    let zero = pb::ListProjectsRequest {
        project_type: Some(0),
        ..Default::default()
    };
    let status = bed
        .directory()
        .list_projects(zero)
        .await
        .expect_err("unspecified");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_invitations_token_is_never_shown() {
    let bed = Bed::start().await;
    bed.provider.script(|org| {
        org.invitations.push(ObservedInvitation {
            token: InvitationToken::parse("canary-token").expect("valid"),
            email: Email::parse("new@example.com").expect("valid"),
            created_at: at(START),
            expires_at: at("2026-01-04T00:00:00Z"),
            expired: false,
        });
    });
    let page = listed(
        bed.directory()
            .list_invitations(pb::ListInvitationsRequest::default())
            .await,
    );
    assert_eq!(page.invitations[0].email, "new@example.com");
    assert!(!format!("{page:?}").contains("canary-token"));
}

#[tokio::test]
async fn roles_say_whether_policy_lets_them_be_granted() {
    let bed = Bed::start().await;
    let mut request = pb::ListRolesRequest {
        page_size: 10,
        ..Default::default()
    };
    let mut roles = Vec::new();
    loop {
        let page = listed(bed.directory().list_roles(request.clone()).await);
        roles.extend(page.roles);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(roles.len(), latchkey::domain::catalogue::ROLES.len());
    let grantable = |id: &str| {
        roles
            .iter()
            .find(|role| role.role_id == id)
            .map(|role| role.is_grantable)
    };
    assert_eq!(grantable("organization-admin"), Some(false));
    assert_eq!(grantable("deployment-admin"), Some(true));
}

#[tokio::test]
async fn an_organization_that_does_not_answer_is_told_in_its_place() {
    let bed = Bed::start().await;
    let list = pb::ListOrganizationsRequest::default;
    let page = listed(bed.directory().list_organizations(list()).await);
    assert_eq!(page.organizations[0].organization_id, "42");
    bed.provider.script(|org| {
        org.down = Some(ReadError::Unavailable {
            code: "timeout".to_owned(),
        });
    });
    let page = listed(bed.directory().list_organizations(list()).await);
    assert_eq!(page.organizations[0].error_code, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn project_roles_come_in_order_of_name() {
    let bed = Bed::start().await;
    let mut request = pb::ListProjectRolesRequest {
        project: Some(pb::ProjectTarget {
            project_type: pb::ProjectType::Security.into(),
            project_id: "s1".to_owned(),
        }),
        page_size: 1,
        ..Default::default()
    };
    let first = listed(bed.directory().list_project_roles(request.clone()).await);
    assert_eq!(first.roles[0].name, "a");
    request.page_token = first.next_page_token;
    let second = listed(bed.directory().list_project_roles(request).await);
    assert_eq!(
        (
            second.roles[0].name.as_str(),
            second.next_page_token.as_str()
        ),
        ("b", "")
    );
}

#[tokio::test]
async fn integrations_show_health_and_configured_words_and_limits_show_policy() {
    let bed = Bed::start().await;
    let list = pb::ListIntegrationsRequest::default;
    let page = listed(bed.connector().list_integrations(list()).await);
    let integration = &page.integrations[0];
    assert_eq!(integration.health(), pb::IntegrationHealth::Unknown);
    assert_eq!(integration.custom_access_details, "Open the console.");
    assert_eq!(integration.owners, ["platform@example.com"]);
    bed.provider
        .script(|org| org.key.expires_at = Some(at("2025-12-31T00:00:00Z")));
    let page = listed(bed.connector().list_integrations(list()).await);
    assert_eq!(page.integrations[0].health(), pb::IntegrationHealth::Down);
    assert_eq!(page.integrations[0].health_code, "key_expired");

    let limits = bed
        .connector()
        .get_limits(pb::GetLimitsRequest {})
        .await
        .expect("told")
        .into_inner();
    assert_eq!(limits.max_duration, seconds(12 * 3600));
    assert_eq!(
        (limits.max_targets, limits.organization_roles_allowed),
        (100, false)
    );
    let version = bed
        .connector()
        .get_version(pb::GetVersionRequest {})
        .await
        .expect("told")
        .into_inner();
    assert_eq!(version.api_versions, ["latchkey.v1"]);
}
