"""Health, reflection, directory and connector facts, as another implementation sees them."""

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness import eventually


def test_health_is_serving_as_a_whole_and_for_each_service(client):
    services = ["", "latchkey.v1.AccessService", "latchkey.v1.DirectoryService", "latchkey.v1.ConnectorService"]
    for service in services:
        assert eventually(lambda service=service: client.serving(service) == "SERVING"), service
    with pytest.raises(grpc.RpcError) as error:
        client.health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(client):
    stream = client.health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    stream.cancel()


def test_the_health_listener_answers_probes_and_offers_nothing_else(bench):
    http = bench.connector.http
    assert requests.get(f"{http}/healthz", timeout=10).status_code == 200
    ready = requests.get(f"{http}/readyz", timeout=10)
    assert ready.status_code == 200 and ready.json()
    assert requests.get(f"{http}/metrics", timeout=10).headers["content-type"].startswith("text/plain")
    assert requests.get(f"{http}/admin", timeout=10).status_code == 404
    assert requests.post(f"{http}/metrics", data="x", timeout=10).status_code == 405


def test_reflection_is_off_by_default(client):
    database = ProtoReflectionDescriptorDatabase(client.channel)
    with pytest.raises(grpc.RpcError) as error:
        database.get_services()
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_describes_the_whole_surface_when_enabled(make_bench):
    bench = make_bench(listen={"reflection": True})
    services = ProtoReflectionDescriptorDatabase(bench.client.channel).get_services()
    for service in ("AccessService", "DirectoryService", "ConnectorService", "AuditService", "OperationsService"):
        assert f"latchkey.v1.{service}" in services


def test_version_and_limits_are_told(client):
    pb = client.pb
    version = client.connector.GetVersion(pb.GetVersionRequest(), timeout=10)
    assert version.version.count(".") == 2 and "latchkey.v1" in version.api_versions
    limits = client.connector.GetLimits(pb.GetLimitsRequest(), timeout=10)
    assert limits.max_duration.seconds == 12 * 3600
    assert limits.max_targets == 100 and limits.max_message_bytes == 256 * 1024
    assert not limits.organization_roles_allowed and not limits.all_targets_allowed
    assert limits.invitations_allowed


def test_the_integration_is_healthy_and_its_key_is_named_by_fingerprint_only(bench, client):
    pb = client.pb
    client.directory.ListMembers(pb.ListMembersRequest(), timeout=10)
    [found] = client.connector.ListIntegrations(pb.ListIntegrationsRequest(), timeout=10).integrations
    assert (found.name, found.base_url.rstrip("/")) == ("elastic", bench.cloud.base_url)
    assert found.health == pb.INTEGRATION_HEALTH_OK, found
    assert found.key.is_loaded and found.key.sees_owners and len(found.key.fingerprint) == 8
    assert found.key.HasField("expires_at")
    assert bench.cloud.api_key not in str(found)


def test_the_directory_shows_the_organization(cloud, client):
    pb = client.pb
    organization = cloud.organization()
    [shown] = client.directory.ListOrganizations(pb.ListOrganizationsRequest(), timeout=10).organizations
    assert (shown.organization_id, shown.name) == (organization["id"], organization["name"])

    token, members = "", []
    for _ in range(20):
        page = client.directory.ListMembers(pb.ListMembersRequest(page_size=4, page_token=token), timeout=10)
        members += page.members
        token = page.next_page_token
        if not token:
            break
    assert [each.user_id for each in members] == sorted(each["user_id"] for each in organization["members"])
    assert page.total_size == len(members) and page.is_complete
    dmitri = next(each for each in members if each.email.startswith("dmitri"))
    assert [each.role for each in dmitri.assignments] == ["elasticsearch-viewer"]

    deployments = client.directory.ListDeployments(pb.ListDeploymentsRequest(), timeout=10).deployments
    assert {each.deployment_id for each in deployments} == {each["id"] for each in organization["deployments"]}
    assert {tag.key for each in deployments for tag in each.tags} == {"owner"}
    projects = client.directory.ListProjects(pb.ListProjectsRequest(), timeout=10).projects
    assert {each.project_id for each in projects} == {each["id"] for each in organization["projects"]}

    siem = pb.ProjectTarget(project_type=pb.PROJECT_TYPE_SECURITY, project_id=cloud.project("corporate-siem"))
    roles = client.directory.ListProjectRoles(pb.ListProjectRolesRequest(project=siem), timeout=10).roles
    assert [each.name for each in roles] == ["case-reader"]


def test_the_catalogue_of_roles_says_which_can_be_granted(client):
    pb = client.pb
    found = {each.role_id: each for each in client.directory.ListRoles(pb.ListRolesRequest(), timeout=10).roles}
    assert found["deployment-viewer"].is_grantable and found["deployment-viewer"].short_form == "viewer"
    assert not found["organization-admin"].is_grantable
    assert found["security-t1-analyst"].scope == pb.ROLE_SCOPE_SECURITY_PROJECT


def test_an_invitation_is_shown_without_its_token(make_bench):
    bench = make_bench()
    pb = bench.protocol
    spec = pb.spec("new.person@example.org", "viewer", bench.cloud.deployment("staging"), invite=True)
    grant = bench.client.create(spec, wait="ACCEPTED").grant
    bench.client.wait_for(grant, "AWAITING_MEMBER")
    [invitation] = eventually(lambda: bench.cloud.organization().get("invitations"))
    page = eventually(
        lambda: bench.client.directory.ListInvitations(pb.ListInvitationsRequest(), timeout=10).invitations
    )
    assert [each.email for each in page] == ["new.person@example.org"]
    assert invitation["token"] not in str(page)
    assert invitation["token"] not in bench.connector.log
