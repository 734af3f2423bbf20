"""Bad input: each gets a clear refusal, and nothing is granted by accident."""

import uuid
from datetime import timedelta

import grpc
import pytest
from google.protobuf import duration_pb2
from harness import now

from .protocol import refusal_of

HOSTILE = {
    "path": "../../api/v1/users",
    "encoded": "%2e%2e%2fusers",
    "line break": "a\r\nX-Evil: 1",
    "null": "a\x00b",
    "star": "*",
    "comma": "a,b",
    "space": " a ",
    "upper case": "DEPLOYMENT-ADMIN",
    "right to left": "a\u202eb",
    "look-alike": "d\u0435ployment-viewer",
    "quote": '"}]}',
    "query": "a?b=c#d",
    "long": "a" * 5000,
    "escape": "\x1b[2Ja",
}


@pytest.fixture(scope="module")
def eve(bench):
    return bench.cloud.person()


@pytest.fixture(scope="module")
def deployment(bench):
    return bench.cloud.deployment("staging")


@pytest.fixture(autouse=True)
def nothing_is_granted_by_accident(bench):
    """The simulated world is the same after each test of this module, and no change was even tried."""
    world, changes = bench.cloud.organization(), bench.cloud.changes()
    yield
    assert bench.cloud.organization() == world
    assert bench.cloud.changes() == changes


def assert_clear(refusal, code, reason=None):
    """A refusal that a program and a person can act on."""
    assert refusal.code == code, refusal
    assert refusal.domain == "latchkey.dev" and refusal.reason, refusal
    if reason is not None:
        assert refusal.reason.lower() == reason, refusal
    assert len(refusal.message) > 15, refusal
    for leak in ("panicked", "src/", "thread '", "Error {", "sqlite", "reqwest", "Some("):
        assert leak not in refusal.message, refusal


def test_an_unknown_member_is_not_found(client, deployment):
    for who in ("nobody@example.com", "1234567890123456"):
        refusal = client.refused(client.grant, who, "deployment-viewer", deployment)
        assert_clear(refusal, "NOT_FOUND", "not_a_member")


def test_an_unknown_role_is_refused(client, eve, deployment):
    for role in ("deployment-owner", "superuser", "elasticsearch-viewer"):
        refusal = client.refused(client.grant, eve, role, deployment)
        assert_clear(refusal, "INVALID_ARGUMENT")
        assert any("role" in each or "target" in each for each in refusal.fields), refusal


def test_an_unknown_target_is_not_found(client, eve):
    pb = client.pb
    missing = [pb.deployment("0" * 32), pb.project("security", "0" * 32)]
    for target in missing:
        role = "viewer"
        refusal = client.refused(client.grant, eve, role, target)
        assert_clear(refusal, "NOT_FOUND", "resource_unknown")


def test_a_project_of_another_type_is_not_found(client, cloud, eve):
    target = client.pb.project("observability", cloud.project("corporate-siem"))
    assert_clear(client.refused(client.grant, eve, "observability-viewer", target), "NOT_FOUND")


def test_another_integration_is_not_found(client, eve, deployment):
    refusal = client.refused(client.grant, eve, "viewer", deployment, integration="other")
    assert_clear(refusal, "NOT_FOUND", "integration_unknown")


@pytest.mark.parametrize("seconds", [None, 0, -1, -(10**9), 10**11, 315_576_000_000])
def test_durations_that_make_no_sense_are_refused(client, eve, deployment, seconds):
    refusal = client.refused(client.grant, eve, "viewer", deployment, seconds=seconds)
    assert_clear(refusal, "INVALID_ARGUMENT")
    assert any("duration" in each for each in refusal.fields), refusal


def test_a_fraction_of_a_second_is_refused(client, eve, deployment):
    for nanos in (1, 500_000_000, -1):
        spec = client.pb.spec(eve, "viewer", deployment, seconds=None)
        spec.duration.CopyFrom(duration_pb2.Duration(seconds=1 if nanos > 0 else 0, nanos=nanos))
        assert_clear(client.refused(client.create, spec), "INVALID_ARGUMENT")


def test_a_duration_beyond_policy_is_denied(client, eve, deployment):
    refusal = client.refused(client.grant, eve, "viewer", deployment, seconds=13 * 3600)
    assert_clear(refusal, "PERMISSION_DENIED", "duration_too_long")


def test_the_strongest_and_the_widest_are_denied_by_default(client, eve):
    pb = client.pb
    refusal = client.refused(client.grant, eve, "organization-admin", pb.organization())
    assert_clear(refusal, "PERMISSION_DENIED", "organization_roles_disabled")
    refusal = client.refused(client.grant, eve, "deployment-viewer", pb.all_deployments())
    assert_clear(refusal, "PERMISSION_DENIED", "all_targets_disabled")


def test_an_end_before_the_beginning_is_refused(client, eve, deployment):
    hour = timedelta(hours=1)
    for times in ({"not_after": now() - hour}, {"starts_at": now() + hour, "not_after": now() + hour / 2}):
        refusal = client.refused(client.grant, eve, "viewer", deployment, **times)
        assert refusal.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), refusal
        assert refusal.reason and refusal.message


def test_a_start_far_away_is_denied(client, eve, deployment):
    refusal = client.refused(client.grant, eve, "viewer", deployment, starts_at=now() + timedelta(days=400))
    assert_clear(refusal, "PERMISSION_DENIED", "start_too_late")


# What is well formed in a field although it looks hostile: any printable text is a request id, and custom roles
# may have capitals.
WELL_FORMED = {
    "request_id": {"path", "encoded", "star", "comma", "upper case", "quote", "query"},
    "stack role": {"upper case"},
}
FIELDS = ["request_id", "integration", "user_id", "email", "role", "deployment", "stack role"]
CLOSED = [(field, name) for field in FIELDS for name in HOSTILE if name not in WELL_FORMED.get(field, ())]


@pytest.mark.parametrize("field,name", CLOSED)
def test_hostile_text_in_a_closed_field_is_refused(client, eve, deployment, field, name):
    text = HOSTILE[name]
    pb = client.pb
    spec = pb.spec(eve, "deployment-viewer", deployment)
    request_id = f"hostile-{uuid.uuid4()}"
    if field == "request_id":
        request_id = text
    elif field == "integration":
        spec.integration = text
    elif field == "user_id":
        spec.beneficiary.CopyFrom(pb.Principal(user_id=text))
    elif field == "email":
        spec.beneficiary.CopyFrom(pb.Principal(email=f"{text}@example.com"))
    elif field == "role":
        spec.role = text
    elif field == "deployment":
        spec.targets[0].deployment.deployment_id = text
    else:
        spec.application_roles.CopyFrom(pb.ApplicationRoles(names=[text]))
    refusal = client.refused(client.create, spec, request_id)
    assert refusal.code in ("INVALID_ARGUMENT", "NOT_FOUND"), refusal
    assert refusal.reason
    # What a caller sent comes back escaped or not at all: nothing that moves a cursor or breaks a line.
    assert not set(refusal.message) & set("\x00\x1b\r\n\u202e"), refusal
    assert len(refusal.message) < 1000


@pytest.mark.parametrize("field,most", [("requester", 256), ("justification", 1024)])
def test_free_text_is_bounded(client, eve, deployment, field, most):
    refusal = client.refused(client.grant, eve, "viewer", deployment, **{field: "x" * (most + 1)})
    assert_clear(refusal, "INVALID_ARGUMENT")
    assert any(field in each for each in refusal.fields), refusal


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "long"])
def test_hostile_free_text_is_carried_as_data_or_refused(client, bench, eve, deployment, name):
    """A scheduled grant holds the words; the log shows none of their control characters."""
    starts = now() + timedelta(hours=1)
    try:
        grant = client.grant(eve, "viewer", deployment, starts_at=starts, justification=HOSTILE[name])
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        return
    assert client.get(grant).justification == HOSTILE[name]
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    assert "\x1b[2J" not in bench.connector.log and "\u202e" not in bench.connector.log


def test_missing_parts_are_named(client, eve, deployment):
    pb = client.pb
    good = pb.spec(eve, "viewer", deployment)
    requests = {
        "request_id": pb.CreateGrantRequest(spec=good, wait=pb.GRANT_WAIT_ACCEPTED),
        "spec": pb.CreateGrantRequest(request_id="r", wait=pb.GRANT_WAIT_ACCEPTED),
        "wait": pb.CreateGrantRequest(request_id="r", spec=good),
    }
    for absent in ("beneficiary", "role", "targets"):
        spec = pb.GrantSpec()
        spec.CopyFrom(good)
        spec.ClearField(absent)
        requests[absent] = pb.CreateGrantRequest(request_id="r", spec=spec, wait=pb.GRANT_WAIT_ACCEPTED)
    for absent, request in requests.items():
        refusal = client.refused(client.access.CreateGrant, request, timeout=10)
        assert_clear(refusal, "INVALID_ARGUMENT")
        assert any(absent in each for each in refusal.fields), (absent, refusal)


def test_empty_choices_and_unknown_numbers_are_refused(client, eve, deployment):
    pb = client.pb
    empty_target = pb.spec(eve, "viewer", pb.Target())
    empty_principal = pb.spec(eve, "viewer", deployment)
    empty_principal.beneficiary.CopyFrom(pb.Principal())
    no_type = pb.spec(eve, "viewer", pb.Target(project=pb.ProjectTarget(project_id="a" * 32)))
    unknown_type = pb.spec(eve, "viewer", pb.Target(project=pb.ProjectTarget(project_type=99, project_id="a" * 32)))
    for spec in (empty_target, empty_principal, no_type, unknown_type):
        assert_clear(client.refused(client.create, spec), "INVALID_ARGUMENT")
    request = pb.CreateGrantRequest(request_id="r", spec=pb.spec(eve, "viewer", deployment), wait=77)
    assert_clear(client.refused(client.access.CreateGrant, request, timeout=10), "INVALID_ARGUMENT")


def test_targets_of_two_scopes_and_too_many_are_refused(client, cloud, eve, deployment):
    pb = client.pb
    mixed = pb.spec(eve, "viewer", deployment, pb.project("security", cloud.project("corporate-siem")))
    many = pb.spec(eve, "viewer", *[f"{number:032}" for number in range(101)])
    for spec in (mixed, many):
        assert_clear(client.refused(client.create, spec), "INVALID_ARGUMENT")


def test_a_message_beyond_the_limit_is_refused(client, eve, deployment):
    spec = client.pb.spec(eve, "viewer", deployment, justification="x" * (300 * 1024))
    refusal = client.refused(client.create, spec)
    assert refusal.code in ("OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"), refusal
    assert client.serving() == "SERVING"


def test_bytes_that_are_no_message_are_refused(client):
    for payload in (b"\xff\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"):
        call = client.channel.unary_unary("/latchkey.v1.AccessService/CreateGrant")
        with pytest.raises(grpc.RpcError) as error:
            call(payload, timeout=10)
        assert error.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(grpc.RpcError) as error:
        client.channel.unary_unary("/latchkey.v1.AccessService/DropAllTables")(b"", timeout=10)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert client.serving() == "SERVING"


def test_pages_and_tokens_that_make_no_sense_are_refused(client):
    pb = client.pb
    calls = [
        (client.access.ListGrants, pb.ListGrantsRequest(page_size=-1)),
        (client.access.ListGrants, pb.ListGrantsRequest(page_token="made up")),
        (client.access.ListGrants, pb.ListGrantsRequest(page_token="x" * 5000)),
        (client.directory.ListMembers, pb.ListMembersRequest(page_size=-1)),
        (client.directory.ListMembers, pb.ListMembersRequest(page_token="AAAA")),
        (client.directory.ListRoles, pb.ListRolesRequest(page_token="%00")),
        (client.access.ListGrants, pb.ListGrantsRequest(filter=pb.GrantFilter(states=[0]))),
        (client.access.ListGrants, pb.ListGrantsRequest(filter=pb.GrantFilter(states=[99]))),
    ]
    for call, request in calls:
        assert_clear(client.refused(call, request, timeout=10), "INVALID_ARGUMENT")
    stream = client.access.WatchGrants(pb.WatchGrantsRequest(resume_token="made up"), timeout=10)
    assert_clear(client.refused(lambda: next(stream)), "INVALID_ARGUMENT")


def test_grants_that_do_not_exist_are_not_found(client):
    unknown = "0199f7a0-1b2c-7000-8000-000000000000"
    for call in (client.get, client.revoke):
        assert_clear(client.refused(call, unknown), "NOT_FOUND", "grant_unknown")
    assert_clear(client.refused(client.extend, unknown, 60), "NOT_FOUND")
    for text in ("", "x", "../etc", "a" * 10_000):
        refusal = client.refused(client.get, text)
        assert refusal.code in ("INVALID_ARGUMENT", "NOT_FOUND") and len(refusal.message) < 1000


def test_a_bulk_revocation_needs_a_selector_and_a_reason(client):
    pb = client.pb
    for request in (
        pb.RevokeAccessRequest(request_id="r1", reason="x"),
        pb.RevokeAccessRequest(request_id="r2", everything=False, reason="x"),
        pb.RevokeAccessRequest(request_id="r3", everything=True),
        pb.RevokeAccessRequest(everything=True, reason="x"),
    ):
        assert_clear(client.refused(client.access.RevokeAccess, request, timeout=10), "INVALID_ARGUMENT")


def test_the_connectors_own_identity_is_refused(client, cloud, deployment):
    owner = cloud.member("olga.owner@example.com")
    refusal = client.refused(client.grant, owner["user_id"], "viewer", deployment)
    # The key was made by the owner: granting to it would change the connector's own identity.
    assert refusal.code in ("FAILED_PRECONDITION", "PERMISSION_DENIED"), refusal


def test_two_members_with_one_address_are_refused(make_bench):
    bench = make_bench()
    first = bench.cloud.person()
    bench.cloud.person(email=first.email.upper())
    refusal = bench.client.refused(bench.client.grant, first.email, "viewer", bench.cloud.deployment("staging"))
    assert refusal.code == "FAILED_PRECONDITION" and refusal.reason.lower() == "member_ambiguous", refusal
    assert "user id" in refusal.message
    assert bench.cloud.adds() == []


def test_a_refusal_is_refusal_of_the_right_type():
    """`refusal_of` reads errors without details too."""

    class Bare(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.INTERNAL

        def details(self):
            return "plain"

        def trailing_metadata(self):
            return ()

    assert refusal_of(Bare()).code == "INTERNAL"
