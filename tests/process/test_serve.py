"""The process itself: readiness, metrics, signals, draining."""

import json
import signal
import sqlite3
import time

import grpc
import pytest
import requests
from harness import ROOT, STOP_SECONDS, eventually, run


def test_the_ready_line_names_both_listeners(bench):
    ready = bench.connector.process.ready
    assert {"grpc", "http"} <= set(ready)
    for address in (ready["grpc"], ready["http"]):
        host, port = address.rsplit(":", 1)
        assert host == "127.0.0.1" and int(port) > 0


def test_a_revocation_is_measured(bench, cloud, client):
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=1)
    client.wait_for(grant, "ENDED")
    name = "latchkey_revocation_lateness_seconds"
    text = bench.connector.metrics()
    assert f"# TYPE {name} histogram" in text
    assert bench.connector.metric(f"{name}_count") == 1
    assert 0 <= bench.connector.metric(f"{name}_sum") < 2
    assert bench.connector.metric("latchkey_grants_ended_total", cause="expired") == 1
    assert person.email not in text and person.user_id not in text and grant.id not in text


def test_every_metric_has_help_and_the_name_of_the_product(bench):
    text = bench.connector.metrics()
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert families and all(name.startswith(("latchkey_", "process_")) for name in families), families
    assert {name for name in families if name.startswith("latchkey_")} <= helped


def test_sigterm_ends_it_cleanly_within_seconds_and_the_rest_is_done_after_a_restart(make_bench):
    bench = make_bench()
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=3)
    stream = bench.client.access.WatchGrants(bench.protocol.WatchGrantsRequest(), timeout=60)
    next(stream)
    began = time.monotonic()
    assert bench.connector.stop() == 0
    assert time.monotonic() - began < 10, "an open stream held it up"
    assert bench.cloud.held(person), "stopping is not draining"
    bench.start()
    bench.client.wait_for(grant, "ENDED")
    assert bench.cloud.held(person) == set()


@pytest.mark.parametrize("fault", ["hang", "delay"])
def test_sigterm_ends_it_while_the_cloud_is_silent(make_bench, fault):
    bench = make_bench(engine={"drain": "3s"})
    person = bench.cloud.person()
    action = {"type": "hang"} if fault == "hang" else {"type": "delay", "ms": 1500}
    bench.cloud.faults({"match": {"kind": "role_assignments.add"}, "action": action})
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=2, wait="ACCEPTED")
    eventually(lambda: bench.cloud.adds(person))
    assert bench.connector.stop() == 0
    bench.cloud.faults()
    bench.start()
    bench.client.wait_for(grant, "ENDED", seconds=30)
    assert bench.cloud.held(person) == set()


def test_a_second_signal_ends_it_at_once(make_bench):
    bench = make_bench()
    bench.cloud.faults(("role_assignments.add", {"type": "hang"}))
    person = bench.cloud.person()
    bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), wait="ACCEPTED")
    eventually(lambda: bench.cloud.adds(person))
    child = bench.connector.process.child
    child.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    child.wait(STOP_SECONDS)


def test_readiness_goes_before_the_listener_closes(make_bench):
    bench = make_bench(engine={"drain": "5s"})
    bench.cloud.faults({"match": {"kind": "role_assignments.add"}, "action": {"type": "delay", "ms": 2000}})
    person = bench.cloud.person()
    bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), wait="ACCEPTED")
    eventually(lambda: bench.cloud.adds(person))
    http = bench.connector.http
    assert requests.get(f"{http}/readyz", timeout=5).status_code == 200
    bench.connector.process.child.send_signal(signal.SIGTERM)

    def not_ready():
        try:
            return requests.get(f"{http}/readyz", timeout=5).status_code == 503
        except requests.ConnectionError:
            return True

    eventually(not_ready)
    assert bench.connector.process.child.wait(STOP_SECONDS) == 0


def test_it_starts_without_the_cloud_and_heals(make_bench):
    bench = make_bench(start=False)
    bench.cloud.faults({"action": {"type": "fail", "status": 503}})
    bench.start(until_ready=False)
    assert requests.get(f"{bench.connector.http}/healthz", timeout=5).status_code == 200
    bench.cloud.faults()
    person = bench.cloud.person()

    def granted():
        try:
            return bench.client.grant(person.email, "viewer", bench.cloud.deployment("staging"), seconds=1)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return None

    grant = eventually(granted, seconds=40, every=0.5)
    bench.client.wait_for(grant, "ENDED")


def test_logs_are_json_lines_when_asked_and_name_no_secret(make_bench):
    bench = make_bench(log={"format": "json", "filter": "trace"})
    person = bench.cloud.person()
    grant = bench.client.grant(
        person, "viewer", bench.cloud.deployment("staging"), seconds=1, justification="the words of the reason"
    )
    bench.client.wait_for(grant, "ENDED")
    assert bench.connector.stop() == 0
    lines = [line for line in bench.connector.log.splitlines() if line.strip()]
    assert lines
    for line in lines:
        json.loads(line)
    assert bench.cloud.api_key not in bench.connector.log
    assert "the words of the reason" not in bench.connector.log


def test_drain_leaves_nothing_behind_and_exits_0(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [cloud.deployment("staging")]}]}
    people = [cloud.person(held) for _ in range(3)]
    standing = [cloud.held(person) for person in people]
    for person in people:
        client.grant(person, "editor", cloud.deployment("staging"), seconds=3600)
    refused = bench.cli("drain")
    assert refused.returncode not in (0, 1), "it drained without being told --yes"
    done = bench.cli("drain", "--yes", "--reason", "uninstalling", "--timeout", "90s", seconds=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [cloud.held(person) for person in people] == standing
    rows = bench.connector.rows("SELECT SUM(owned) AS owned FROM members")
    assert not rows[0]["owned"]
    refusal = client.refused(client.grant, people[0], "editor", cloud.deployment("staging"))
    assert refusal.code == "UNAVAILABLE" and "drain" in refusal.message
    again = bench.cli("drain", "--yes", seconds=30)
    assert again.returncode == 0


def test_drain_does_not_say_done_while_something_is_left(make_bench):
    bench = make_bench()
    person = bench.cloud.person()
    bench.client.grant(person, "editor", bench.cloud.deployment("staging"), seconds=3600)
    bench.cloud.faults(("role_assignments.remove", {"type": "fail", "status": 503}))
    done = bench.cli("drain", "--yes", "--timeout", "3s", seconds=30)
    assert done.returncode == 7, done.stdout + done.stderr
    assert bench.cloud.held(person)


def test_a_start_that_its_law_refuses_leaves_the_ledger_as_it_was(make_connector, simulator, latchkey_bin, tmp_path):
    law = tmp_path / "law.cedar"
    connector = make_connector(simulator, law={"files": [str(law)]})

    def is_refused():
        law.write_text("permit (")
        done = run(latchkey_bin, "serve", "--config", connector.config_file)
        return done.returncode == 1 and "law.cedar" in done.stderr

    assert is_refused()
    assert not list(connector.folder.glob("ledger.db*"))

    law.write_text((ROOT / "src/law/default.cedar").read_text())
    connector.start().stop()
    with sqlite3.connect(connector.ledger_file) as ledger:
        # As the release before left it.
        ledger.executescript(
            "DROP TABLE used_tokens; DROP TABLE reviews; DELETE FROM _sqlx_migrations WHERE version = 15"
        )
    ledger.close()
    before = connector.ledger_file.read_bytes()
    assert is_refused()
    assert connector.ledger_file.read_bytes() == before

    law.write_text((ROOT / "src/law/default.cedar").read_text())
    connector.start()
    assert connector.rows("SELECT version FROM _sqlx_migrations WHERE version = 15")


def test_serve_without_arguments_says_what_it_needs(latchkey_bin):
    done = run(latchkey_bin, "serve")
    assert done.returncode == 2 and "--config" in done.stderr
