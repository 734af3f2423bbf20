"""Elastic's Python client manages roles in simulated projects."""

import pytest
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError

ROLE = {
    "cluster": ["monitor"],
    "indices": [{"names": ["logs-*"], "privileges": ["read", "view_index_metadata"]}],
    "applications": [
        {
            "application": "kibana-.kibana",
            "privileges": ["feature_discover.read"],
            "resources": ["*"],
        }
    ],
    "metadata": {"grant": "g-1"},
}


def test_roles_are_managed_in_every_project(simulator):
    for project in simulator.ready["projects"]:
        with Elasticsearch(
            project["elasticsearch_url"], api_key=project["elasticsearch_key"]
        ) as client:
            assert client.ping()
            assert client.info()["version"]["build_flavor"] == "serverless"
            roles = client.security
            made = roles.put_role(name="reader", refresh="wait_for", **ROLE)
            assert made["role"]["created"] is True
            assert roles.put_role(name="reader", **ROLE)["role"]["created"] is False
            roles.put_role(name="writer", cluster=["all"])
            assert set(roles.get_role(name="reader,writer")) == {"reader", "writer"}
            assert {"reader", "writer"} <= set(roles.get_role())
            assert roles.get_role(name="reader")["reader"]["metadata"] == {"grant": "g-1"}
            assert roles.delete_role(name="reader")["found"] is True
            with pytest.raises(NotFoundError) as gone:
                roles.delete_role(name="reader")
            assert gone.value.body == {"found": False}
            with pytest.raises(NotFoundError) as absent:
                roles.get_role(name="reader")
            assert absent.value.body == {}
            with pytest.raises(BadRequestError) as wrong:
                roles.put_role(name="x", cluster=["everything"])
            assert wrong.value.error == "action_request_validation_exception"


def test_a_cloud_key_with_stack_roles_works_there(simulator):
    project = simulator.ready["projects"][0]
    organization = simulator.organization_id
    held = {
        "project": {
            project["type"]: [
                {
                    "role_id": f"{project['type']}-admin",
                    "organization_id": organization,
                    "project_ids": [project["id"]],
                    "application_roles": ["admin"],
                }
            ]
        }
    }
    key = simulator.control("POST", "keys", {"role_assignments": held})["key"]
    with Elasticsearch(project["elasticsearch_url"], api_key=key) as client:
        assert client.security.get_role() == {}
