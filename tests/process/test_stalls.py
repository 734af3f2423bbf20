"""Things that neither fail nor go on: a runtime that no longer turns, connections that say nothing, names that do not
resolve. Each ends by a limit of its own.

Rows F27, F28 and F58 of docs/faults.md.
"""

import signal
import time

import grpc
import pytest
from harness import STOP_SECONDS, eventually, never, now

pytestmark = pytest.mark.beside


def test_a_stalled_runtime_is_named_and_ends_and_the_next_start_revokes(make_bench, weather):
    bench = make_bench(start=False, engine={"stall_limit": "3s"})
    bench.start(env=weather.env)
    cloud = bench.cloud
    person = cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    # No timer and no socket wakes anybody from here on.
    weather.set(stalled=1)
    began = time.monotonic()
    code = bench.connector.process.child.wait(STOP_SECONDS)
    assert code == -signal.SIGABRT, f"it ended with {code}"
    assert time.monotonic() - began < 10
    said = [line for line in bench.connector.log.splitlines() if "runtime_stalled" in line]
    assert any("revocations are late" in line for line in said), bench.connector.log[-2000:]
    assert "ending the process" in said[-1]
    assert cloud.held(person), "its end fell into the stall"
    weather.set(stalled=0)
    back = now()
    bench.start()
    eventually(lambda: not cloud.held(person), seconds=10)
    ended = bench.client.wait_for(grant, "ENDED", seconds=10)
    assert (now() - back).total_seconds() < 15, ended


def test_a_runtime_that_stalls_before_it_ever_turned_is_named_too(make_bench, weather):
    """The key is not there yet, so no organization's loop has begun."""
    bench = make_bench(start=False, engine={"stall_limit": "3s"})
    bench.connector.key_file.unlink()
    bench.start(env=weather.env, until_ready=False)
    weather.set(stalled=1)
    assert bench.connector.process.child.wait(STOP_SECONDS) == -signal.SIGABRT
    assert "runtime_stalled" in bench.connector.log


def test_a_drain_longer_than_the_stall_limit_is_no_stall(make_bench):
    bench = make_bench(engine={"stall_limit": "3s", "drain": "20s"})
    cloud = bench.cloud
    person = cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=1)
    cloud.faults(("role_assignments.remove", {"type": "delay", "ms": 1000}), ("members.list", {"type": "delay", "ms": 6000}))
    eventually(lambda: cloud.removes(person), seconds=15)
    assert bench.connector.stop() == 0
    assert "runtime_stalled" not in bench.connector.log
    cloud.faults()
    bench.start()
    bench.client.wait_for(grant, "ENDED", seconds=20)


def impatient(bench):
    """Short patience with what Elastic Cloud says, so that silence is met within a test."""
    config = dict(bench.connector.config)
    upstream = {"read_attempt": "700ms", "read_budget": "2s", "members_budget": "5s", "mutation_budget": "1s"}
    upstream |= {"connect_timeout": "500ms", "idle_timeout": "1s"}
    config["integrations"] = [{**config["integrations"][0], "upstream": upstream}]
    bench.connector.configure(config)
    return bench


def test_connections_that_died_without_a_word_delay_a_removal_by_seconds(make_bench, weather):
    """Half-open: what is sent vanishes, nothing comes back, and no reset tells."""
    bench = impatient(make_bench(start=False))
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person, other = cloud.person(), cloud.person()
    staging = cloud.deployment("staging")
    grant = client.grant(person, "viewer", staging, seconds=2)
    weather.cut_connections()
    began = time.monotonic()
    eventually(lambda: not cloud.held(person), seconds=25)
    # Each connection that was kept costs the lifetime of one request, and pauses lie between.
    assert time.monotonic() - began < 2 + 15
    client.wait_for(grant, "ENDED", seconds=20)
    # And for giving: cut once more in the middle of a life.
    weather.cut_connections()
    spec = client.pb.spec(other, "viewer", staging, seconds=1)

    def asked():
        try:
            return client.create(spec, "after-the-cut", wait="ACCEPTED").grant
        except grpc.RpcError as error:
            # What has to be looked up first may meet a dead connection.
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return None

    second = eventually(asked, seconds=30)
    client.wait_for(second, "ENDED", seconds=30)
    assert cloud.held(other) == set()
    assert client.serving() == "SERVING"


def test_a_name_that_does_not_resolve_delays_a_removal_until_it_does(make_bench, weather):
    bench = impatient(make_bench(start=False))
    config = dict(bench.connector.config)
    by_name = bench.cloud.base_url.replace("127.0.0.1", "localhost")
    config["integrations"] = [{**config["integrations"][0], "base_url": by_name}]
    bench.connector.configure(config)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    weather.set(unresolved=1)
    weather.cut_connections()
    revoking = client.wait_for(grant, "REVOKING", seconds=15)
    eventually(lambda: client.get(grant).attempts >= 2, seconds=20)
    assert client.get(grant).last_error.code, revoking
    assert cloud.held(person)
    weather.set(unresolved=0)
    eventually(lambda: not cloud.held(person), seconds=20)
    client.wait_for(grant, "ENDED", seconds=20)


@pytest.mark.parametrize("status", [404, 400])
def test_a_removal_that_is_called_unknown_is_not_taken_for_done(make_bench, status):
    """F20: only a read that shows it gone ends a grant."""
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=1)
    refused = {"match": {"kind": "role_assignments.remove"}, "action": {"type": "fail", "status": status}, "times": 1}
    cloud.faults(refused)
    eventually(lambda: cloud.removes(person), seconds=10)
    never(lambda: client.state(grant) == "ENDED" and cloud.held(person), seconds=1)
    client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(person) == set()
    assert [call["status"] for call in cloud.removes(person)] == [status, 200]
