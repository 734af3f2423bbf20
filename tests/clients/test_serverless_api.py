"""Every simulated call of the serverless API, validated by openapi-core against its description."""

import copy

import pytest
import requests
from conftest import description, note_not_run
from test_cloud_api import no_nulls

KINDS = {
    "projects.list", "projects.get", "projects.roles", "projects.status",
    "regions.list", "regions.get",
}  # fmt: skip


class Client:
    def __init__(self, simulator, spec):
        self.simulator = simulator
        spec = copy.deepcopy(spec)
        spec["servers"] = [{"url": simulator.base_url}]
        # Imported here, after bravado's tests were collected: openapi-core registers meta-schemas
        # with jsonschema for the whole process, and bravado then tries to fetch them.
        import openapi_core
        from openapi_core.contrib import requests as adapters
        from openapi_core.validation.response.exceptions import InvalidData

        self.paths = spec["paths"]
        self.openapi = openapi_core.OpenAPI.from_dict(spec)
        self.adapters = adapters
        self.invalid = InvalidData
        self.driven = set()

    def get(self, template, status=200, headers=None, **parts):
        url = self.simulator.base_url + template.format(**parts)
        if headers is None:
            headers = {"Authorization": f"ApiKey {self.simulator.api_key}"}
        request = requests.Request("GET", url, headers=headers).prepare()
        with requests.Session() as session:
            answer = session.send(request, timeout=10)
        assert answer.status_code == status, answer.text
        asked = self.adapters.RequestsOpenAPIRequest(request)
        if headers:
            self.openapi.validate_request(asked)
        self.openapi.validate_response(asked, self.adapters.RequestsOpenAPIResponse(answer))
        assert no_nulls(answer.json()), answer.text
        self.driven.add(template.split("?")[0])
        return answer.json()


@pytest.fixture
def client(simulator):
    spec = description("serverless-projects-api.json")
    return Client(simulator, spec) if spec else None


def test_every_call_conforms(client, simulator):
    if client is None:
        note_not_run("every call of the serverless API")
        return
    prefix = "/api/v1/serverless"
    for kind in ("elasticsearch", "observability", "security"):
        base = f"{prefix}/projects/{kind}"
        items = client.get(base)["items"]
        assert len(items) >= 2
        assert client.get(base + "?tags[env]=prod")["items"] == items
        for item in items:
            assert item["endpoints"]["elasticsearch"].startswith(simulator.base_url)
            assert client.get(base + "/{id}", id=item["id"]) == item
            assert item["id"] in client.get(base + "/{id}/roles", id=item["id"])
            assert client.get(base + "/{id}/status", id=item["id"])["phase"] == "initialized"
        for path in ("/{id}", "/{id}/roles", "/{id}/status"):
            assert client.get(base + path, status=404, id="0" * 32)["errors"][0]["code"]
        assert client.get(base, status=401, headers={})["errors"][0]["code"]
    regions = client.get(f"{prefix}/regions")
    assert client.get(prefix + "/regions/{id}", id=regions[0]["id"]) == regions[0]
    client.get(prefix + "/regions/{id}", status=404, id="nowhere")
    client.get(f"{prefix}/regions", status=401, headers={})

    assert simulator.kinds() == KINDS
    assert client.driven == set(client.paths), "the description has a call that is not driven"


def test_a_violation_is_noticed(client, simulator):
    if client is None:
        note_not_run("that a violation of the serverless API would be noticed")
        return
    rule = {"action": {"type": "rewrite", "merge": {"items": [{"id": "x"}]}}}
    simulator.control("PUT", "faults", {"rules": [rule]})
    with pytest.raises(client.invalid):
        client.get("/api/v1/serverless/projects/security")
