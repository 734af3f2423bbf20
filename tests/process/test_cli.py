"""The command line against a real pair of processes."""

import json
import re
import subprocess

import pytest
import yaml
from grpc_client.protocol import time_of
from harness import eventually, now, run

EXIT = {"refused": 3, "not found": 4, "conflict": 5, "unavailable": 6, "timed out": 7}


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def document(done):
    return json.loads(ok(done).stdout)


def test_the_story_of_a_grant_on_the_command_line(bench, cloud):
    person = cloud.person()
    plan = document(
        bench.cli("plan", person.email, "viewer", "--on", "deployment/staging", "--for", "45m", "--output", "json")
    )
    assert [call["method"] for call in plan["calls"]] == ["POST"] and cloud.held(person) == set()

    ask = ["grant", person.email, "viewer", "--on", "staging", "--for", "45m", "--reason", "INC-1"]
    grant = document(bench.cli(*ask, "--request-id", "cli-1", "--output", "json"))
    grant = grant.get("grant", grant)
    assert grant["state"] == "active" and grant["reason"] == "INC-1"
    assert cloud.held(person) == {f"deployment/deployment-viewer/{cloud.deployment('staging')}"}

    again = document(bench.cli(*ask, "--request-id", "cli-1", "--output", "json"))
    assert again.get("grant", again)["id"] == grant["id"]
    other = bench.cli("grant", person.email, "editor", "--on", "staging", "--for", "45m", "--request-id", "cli-1")
    assert other.returncode == EXIT["conflict"], other.stderr

    shown = document(bench.cli("get", grant["id"], "--output", "json"))
    assert shown.get("grant", shown)["id"] == grant["id"]
    assert yaml.safe_load(ok(bench.cli("get", grant["id"], "--output", "yaml")).stdout)

    longer = document(bench.cli("extend", grant["id"], "--by", "30m", "--output", "json"))
    assert longer.get("grant", longer)["expires_at"] > grant["expires_at"]

    listed = ok(bench.cli("list", "--member", person.email, "--output", "json")).stdout
    assert grant["id"] in listed
    why = ok(bench.cli("why", person.email)).stdout
    assert "deployment-viewer" in why
    watched = ok(bench.cli("watch", "--once", "--member", person.email, "--output", "json")).stdout
    assert any(json.loads(line) for line in watched.splitlines() if grant["id"] in line)

    ok(bench.cli("revoke", grant["id"], "--reason", "done"))
    assert cloud.held(person) == set()
    over = document(bench.cli("get", grant["id"], "--output", "json"))
    assert over.get("grant", over)["state"] == "ended"


def test_tables_are_for_people(bench, cloud):
    person = cloud.person()
    done = ok(bench.cli("grant", person.email, "viewer", "--on", "staging", "--for", "2m"))
    assert "\x1b[" not in done.stdout, "colour without a terminal"
    table = ok(bench.cli("list", "--member", person.email)).stdout
    assert person.email in table and "active" in table
    ok(bench.cli("revoke-all", "--member", person.email, "--yes"))
    eventually(lambda: cloud.held(person) == set())


def test_names_of_things_are_listed(bench):
    assert "staging" in ok(bench.cli("resources")).stdout
    assert "ada.fischer@example.com" in ok(bench.cli("members", "ada")).stdout
    assert "deployment-viewer" in ok(bench.cli("roles")).stdout


def test_a_member_can_be_named_by_display_name(bench, cloud):
    done = ok(bench.cli("plan", "Hana Suzuki", "viewer", "--on", "staging", "--for", "1m", "--output", "json"))
    assert cloud.member("hana.suzuki@example.com")["user_id"] in done.stdout


def test_revoke_waits_until_access_was_seen_gone(bench, cloud):
    person = cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=3600)
    ok(bench.cli("revoke", grant.id))
    assert bench.client.state(grant) == "ENDED"


@pytest.mark.parametrize(
    "arguments,code,words",
    [
        (["grant", "nobody@example.com", "viewer", "--on", "staging", "--for", "1m"], "not found", "member"),
        (["grant", "ada.fischer@example.com", "viewer", "--on", "deployment/nothing", "--for", "1m"], "not found", ""),
        (["grant", "ada.fischer@example.com", "king", "--on", "staging", "--for", "1m"], None, "role"),
        (["grant", "ada.fischer@example.com", "viewer", "--on", "staging", "--for", "13h"], "refused", "12"),
        (["grant", "ada.fischer@example.com", "organization-admin", "--for", "1m"], "refused", "organization"),
        (["get", "0199f7a0-1b2c-7000-8000-000000000000"], "not found", ""),
        (["revoke", "0199f7a0-1b2c-7000-8000-000000000000"], "not found", ""),
    ],
)
def test_failures_have_fixed_codes_and_say_what_to_do(bench, arguments, code, words):
    done = bench.cli(*arguments)
    if code is None:
        assert done.returncode in (EXIT["refused"], EXIT["not found"]), done.stderr
    else:
        assert done.returncode == EXIT[code], done.stderr
    assert words in done.stderr and done.stderr.strip()
    assert done.stdout == "" and "panicked" not in done.stderr


@pytest.mark.parametrize("length", ["0s", "-1m", "forever", "", "1", "1y", "99999999999999999999h"])
def test_durations_that_make_no_sense_are_usage_errors(bench, length):
    done = bench.cli("grant", "ada.fischer@example.com", "viewer", "--on", "staging", f"--for={length}")
    assert done.returncode == 2 and "--for" in done.stderr, done.stderr


def test_nobody_at_the_address_is_said_at_once(latchkey_bin):
    began = now()
    done = run(latchkey_bin, "list", "--server", "http://127.0.0.1:9")
    assert done.returncode == EXIT["unavailable"] and "127.0.0.1:9" in done.stderr
    assert (now() - began).total_seconds() < 15


def test_a_limit_on_waiting_does_not_lose_the_grant(make_bench):
    bench = make_bench()
    person = bench.cloud.person()
    bench.cloud.faults(("role_assignments.add", {"type": "delay", "ms": 4000}))
    done = bench.cli(
        "grant", person.email, "viewer", "--on", "staging", "--for", "1m", "--request-id", "slow", "--timeout", "2s"
    )
    assert done.returncode == EXIT["timed out"], done.stdout + done.stderr
    bench.cloud.faults()
    spec = bench.protocol.GrantFilter(beneficiary=bench.protocol.principal(person))
    ask = bench.protocol.ListGrantsRequest(filter=spec)
    [grant] = bench.client.access.ListGrants(ask, timeout=10).grants
    bench.client.wait_for(grant, "ACTIVE", seconds=30)


def test_words_of_others_cannot_move_the_cursor(bench, cloud):
    person = cloud.person()
    starts = time_of(bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=60).created_at)
    assert starts
    cloud.control("PUT", "members/7777777777777777", {"email": "x@example.com", "name": "\x1b[2Jgone\r\nroot"})
    shown = ok(bench.cli("members")).stdout
    assert "\x1b" not in shown and "\r" not in shown


def test_help_names_every_command(latchkey_bin):
    done = ok(run(latchkey_bin, "--help"))
    for command in ("serve", "simulate", "demo", "check-config", "doctor", "grant", "revoke", "drain", "why"):
        assert re.search(rf"^\s+{command}\b", done.stdout, re.M), command
    assert re.fullmatch(r"latchkey \d+\.\d+\.\d+\S*\n", ok(run(latchkey_bin, "--version")).stdout)


def test_a_closed_pipe_is_no_failure(bench):
    ask = f"'{bench.binary}' members --server http://{bench.connector.grpc} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", ask], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and "panicked" not in done.stderr


def test_the_demo_shows_roles_before_during_and_after(latchkey_bin):
    done = ok(run(latchkey_bin, "demo", "--once", seconds=90))
    shown = (done.stdout + done.stderr).lower()
    places = [shown.find(word) for word in ("before", "during", "after")]
    assert -1 not in places and places == sorted(places), shown
    assert "deployment-" in shown or "viewer" in shown
