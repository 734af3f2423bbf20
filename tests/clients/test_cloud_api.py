"""Every simulated call of the Elastic Cloud API, through a client built from Elastic's description.

Requests and answers are validated by bravado against the description.
"""

import copy

import pytest
from bravado.client import SwaggerClient
from bravado.exception import HTTPError
from bravado.requests_client import RequestsClient
from conftest import description, note_not_run
from jsonschema.exceptions import ValidationError

# What bravado needs to know about a description that it cannot know by itself.
CONFIG = {
    "validate_requests": True,
    "validate_responses": True,
    "validate_swagger_spec": False,
    "use_models": False,
    "also_return_response": True,
    "formats": [],
}
# The expected kinds, counted by the simulator: each must have been driven.
KINDS = {
    "account.get", "account.put", "account.patch",
    "deployments.list", "deployments.search", "deployments.get",
    "organizations.list", "organizations.get", "organizations.update",
    "members.list", "members.remove",
    "invitations.list", "invitations.create", "invitations.cancel", "invitations.get",
    "invitations.accept",
    "role_assignments.add", "role_assignments.remove",
    "keys.create", "keys.list", "keys.get", "keys.delete", "keys.delete_many",
}  # fmt: skip


def no_nulls(value):
    if isinstance(value, dict):
        return all(no_nulls(item) for item in value.values())
    if isinstance(value, list):
        return all(no_nulls(item) for item in value)
    return value is not None


class Client:
    """Calls operations by their id, as a key or as a person of the simulator."""

    def __init__(self, simulator, spec):
        self.simulator = simulator
        self.headers = {"Authorization": f"ApiKey {simulator.api_key}"}
        spec = copy.deepcopy(spec)
        spec["schemes"] = ["http"]
        spec["host"] = simulator.base_url.removeprefix("http://")
        client = SwaggerClient.from_spec(spec, http_client=RequestsClient(), config=CONFIG)
        self.operations = {
            operation_id: getattr(getattr(client, resource), operation_id)
            for resource in dir(client)
            for operation_id in dir(getattr(client, resource))
        }

    def call(self, operation_id, headers=None, **arguments):
        options = {"headers": {**self.headers, **(headers or {})}}
        operation = self.operations[operation_id.replace("-", "_")]
        answer = operation(_request_options=options, **arguments).response(timeout=10)
        raw = answer.incoming_response
        assert no_nulls(raw.json()), raw.text
        assert raw.headers["X-Elastic-Api-Key-Expiration"]
        for name in ("limit", "remaining", "interval"):
            assert raw.headers[f"x-ratelimit-{name}"]
        # Without what bravado fills in for fields that are absent.
        return raw.json()

    def refused(self, status, code, operation_id, **arguments):
        with pytest.raises(HTTPError) as caught:
            self.call(operation_id, **arguments)
        error = caught.value
        assert error.status_code == status, error
        # bravado has validated the body of documented refusals against the description.
        assert error.swagger_result["errors"][0]["code"] == code
        assert error.response.headers["x-cloud-error-codes"] == code
        assert no_nulls(error.response.json())


@pytest.fixture
def client(simulator):
    spec = description("elastic-cloud-api.json")
    return Client(simulator, spec) if spec else None


def absent(client, what):
    if client is None:
        note_not_run(what)
    return client is None


def test_every_call_succeeds_and_conforms(client, simulator):
    if absent(client, "every call of the Elastic Cloud API"):
        return
    world = simulator.organization()
    org = world["id"]
    user = next(m for m in world["members"] if "role_assignments" not in m)["user_id"]
    call = client.call

    assert call("get-current-account")["id"] == org
    assert call("update-current-account", body={"trust": {"trust_all": False}})
    patched = call("patch-current-account", body='{"trust": {"trust_all": true}}')
    assert patched["trust"]["trust_all"] is True

    listed = call("list-deployments")["deployments"]
    query = {"query": {"match_all": {}}, "size": 2}
    found = call("search-deployments", body=query)
    assert (len(listed), found["return_count"], found["match_count"]) == (4, 2, 4)
    deployment = call("get-deployment", deployment_id=listed[0]["id"], show_metadata=True)["id"]
    simulator.control("POST", f"deployments/{deployment}/hide")
    assert call("get-deployment", deployment_id=deployment)["metadata"]["hidden"] is True
    simulator.control("POST", f"deployments/{deployment}/show")

    assert call("list-organizations")["organizations"][0]["id"] == org
    assert call("get-organization", organization_id=org)["name"]
    body = {"name": "Renamed", "billing_contacts": ["b@example.com"]}
    assert call("update-organization", organization_id=org, body=body)["name"] == "Renamed"

    project = next(p for p in world["projects"] if p["type"] == "security")["id"]
    assignments = {
        "organization": [{"role_id": "billing-admin", "organization_id": org}],
        "deployment": [
            {"role_id": "deployment-viewer", "organization_id": org, "deployment_ids": [deployment]},
            {"role_id": "deployment-admin", "organization_id": org, "all": True},
        ],
        "project": {
            "security": [
                {
                    "role_id": "security-viewer",
                    "organization_id": org,
                    "project_ids": [project],
                    "application_roles": ["case-reader"],
                }
            ]
        },
    }
    assert call("add-role-assignments", user_id=user, body=assignments) == {}
    members = call("list-organization-members", organization_id=org)["members"]
    held = next(m for m in members if m["user_id"] == user)["role_assignments"]
    assert held["project"] == assignments["project"] and len(held["deployment"]) == 2
    assert call("remove-role-assignments", user_id=user, body=assignments) == {}

    invite = {"emails": ["a@example.com", "b@example.com"], "expires_in": "7d"}
    made = call(
        "create-organization-invitations",
        organization_id=org,
        body={**invite, "role_assignments": assignments},
    )["invitations"]
    assert len(call("list-organization-invitations", organization_id=org)["invitations"]) == 2
    token = made[0]["token"]
    assert call("get-organization-invitation", invitation_token=token)["email"] == "a@example.com"
    person = {"X-Sim-User": simulator.world()["people"][0]["user_id"]}
    assert call("accept-organization-invitation", headers=person, invitation_token=token) == {}
    cancelled = made[1]["token"]
    assert (
        call("delete-organization-invitations", organization_id=org, invitation_tokens=cancelled)
        == {}
    )
    users = ",".join([person["X-Sim-User"], user])
    removed = call(
        "delete-organization-memberships", organization_id=org, user_ids=users, force=True
    )
    assert removed == {}
    assert len(call("list-organization-members", organization_id=org)["members"]) == 8

    new = {"description": "x", "expiration": "1d", "role_assignments": assignments}
    keys = [call("create-api-key", body=new)["id"] for _ in range(3)]
    assert len(call("get-api-keys")["keys"]) == 4
    assert call("get-api-key", api_key_id=keys[0])["id"] == keys[0]
    assert call("delete-api-key", api_key_id=keys[0]) == {}
    assert call("delete-api-keys", body={"keys": keys[1:]}) == {}

    assert simulator.kinds() == KINDS
    assert len(client.operations) == len(KINDS), "the description has a call that is not driven"


def test_documented_refusals_conform(client, simulator):
    if absent(client, "documented refusals of the Elastic Cloud API"):
        return
    org, refused = simulator.organization_id, client.refused
    user = simulator.organization()["members"][0]["user_id"]
    refused(404, "organization.not_found", "get-organization", organization_id="1")
    refused(404, "organization.not_found", "list-organization-members", organization_id="1")
    refused(404, "organization.not_found", "list-organization-invitations", organization_id="1")
    refused(
        400, "organization.invalid_name",
        "update-organization", organization_id=org, body={"name": "x"},
    )  # fmt: skip
    refused(
        404, "organization.membership_not_found",
        "delete-organization-memberships", organization_id=org, user_ids="1",
    )  # fmt: skip
    refused(
        400, "organization.invitation_invalid_email",
        "create-organization-invitations", organization_id=org, body={"emails": ["x"]},
    )  # fmt: skip
    refused(
        404, "organization.invitation_not_found",
        "delete-organization-invitations", organization_id=org, invitation_tokens="x",
    )  # fmt: skip
    for operation in ("get-organization-invitation", "accept-organization-invitation"):
        code = "organization.invitation_not_found"
        person = {"X-Sim-User": simulator.world()["people"][0]["user_id"]}
        refused(404, code, operation, headers=person, invitation_token="x")
    viewer = {
        "deployment": [
            {"role_id": "deployment-viewer", "organization_id": org, "deployment_ids": ["0" * 32]}
        ]
    }
    for operation in ("add-role-assignments", "remove-role-assignments"):
        code = "role_assignments.invalid_target_user_id"
        refused(400, code, operation, user_id="1", body=viewer)
        code = "role_assignments.unauthorized_role_assignments"
        refused(403, code, operation, user_id=user, body=viewer)
    refused(404, "deployments.deployment_not_found", "get-deployment", deployment_id="x")
    refused(404, "api_keys.key_not_found", "get-api-key", api_key_id="x")
    refused(404, "api_keys.key_not_found", "delete-api-key", api_key_id="x")
    wrong = {"description": "x", "expiration": "soon"}
    refused(400, "api_keys.invalid_input", "create-api-key", body=wrong)


def test_every_setting_keeps_answers_conforming(client, simulator):
    if absent(client, "the Elastic Cloud API under other settings"):
        return
    org = simulator.organization_id
    user = simulator.organization()["members"][1]["user_id"]
    for setting in (
        {"collapse_entries": False},
        {"show_all_false": True},
        {"empty_role_assignments": "object"},
        {"short_role_ids": "store"},
        {"expired_invitations": "hidden"},
        {"key_scope": "creator"},
        {"expiration_header": "http_date"},
        {"rate_interval_format": "seconds"},
    ):
        simulator.control("PATCH", "settings", setting)
        body = {"deployment": [{"role_id": "deployment-editor", "organization_id": org, "all": True}]}
        assert client.call("add-role-assignments", user_id=user, body=body) == {}
        assert client.call("list-organization-members", organization_id=org)["members"]
        assert client.call("remove-role-assignments", user_id=user, body=body) == {}
        assert client.call("get-api-keys")["keys"]


def test_a_violation_is_noticed(client, simulator):
    if absent(client, "that a violation of the Elastic Cloud API would be noticed"):
        return
    merge = {"members": [{"organization_id": "1", "user_id": 3}]}
    rule = {"match": {"kind": "members.list"}, "action": {"type": "rewrite", "merge": merge}}
    simulator.control("PUT", "faults", {"rules": [rule]})
    with pytest.raises(ValidationError):
        client.call("list-organization-members", organization_id=simulator.organization_id)
