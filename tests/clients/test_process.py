"""`latchkey simulate` as a process."""

import subprocess

import requests
from conftest import Simulator


def test_the_ready_line_is_one_line_and_complete(simulator):
    assert set(simulator.ready) == {"base_url", "organization_id", "api_key", "projects"}
    for project in simulator.ready["projects"]:
        assert project["elasticsearch_url"].startswith(simulator.base_url)
        assert project["elasticsearch_key"]


def test_a_world_file_in_yaml_is_simulated(start, tmp_path):
    world = tmp_path / "world.yaml"
    world.write_text(
        """
organizations:
  - id: "100"
    name: Small
    members:
      - { user_id: "1", email: owner@example.com, member_since: 2026-01-01T00:00:00Z,
          role_assignments: { organization: [ { role_id: organization-admin, organization_id: "100" } ] } }
    api_keys:
      - { id: k, key: essu_small, description: x, creation_date: 2026-01-01T00:00:00Z, user_id: "1",
          role_assignments: { organization: [ { role_id: organization-admin, organization_id: "100" } ] } }
"""
    )
    simulator = start("--world", str(world), "--setting", "rate_headers=absent")
    assert simulator.api_key == "essu_small"
    answer = requests.get(
        f"{simulator.base_url}/api/v1/organizations/100/members",
        headers={"Authorization": "ApiKey essu_small"},
        timeout=10,
    )
    assert [member["user_id"] for member in answer.json()["members"]] == ["1"]
    assert "x-ratelimit-limit" not in answer.headers


def test_one_seed_makes_one_world(start):
    first, second, third = start("--seed", "5"), start("--seed", "5"), start("--seed", "6")
    assert first.world() == second.world() != third.world()


def test_a_large_world_is_listed(start):
    simulator = start("--members", "2000", "--deployments", "30")
    assert len(simulator.organization()["members"]) == 2000


def test_a_wrong_setting_ends_it(simulator):
    binary = simulator.process.args[0]
    wrong = subprocess.run(
        [binary, "simulate", "--setting", "add_held=maybe"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert wrong.returncode != 0 and "add_held" in wrong.stderr and not wrong.stdout


def test_it_ends_on_a_signal_while_a_call_hangs():
    simulator = Simulator()
    simulator.control("PUT", "faults", {"rules": [{"action": {"type": "hang"}}]})
    try:
        requests.get(f"{simulator.base_url}/api/v1/organizations", timeout=0.5)
    except requests.Timeout:
        pass
    simulator.stop()
