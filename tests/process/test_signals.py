"""Signals in bad moments: asked to stop in a storm, stopped and continued, hung up, killed at random.

Rows F42, F45 and F53 of docs/faults.md.
"""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
from grpc_client.protocol import time_of
from harness import STOP_SECONDS, eventually, instant, never, now, run

pytestmark = pytest.mark.beside

ADD, REMOVE, MEMBERS = "role_assignments.add", "role_assignments.remove", "members.list"
STORM = 40


def storm(bench, size, seconds):
    """So many members whose grants end at about the same time."""
    cloud, client = bench.cloud, bench.client
    staging = cloud.deployment("staging")
    people = [cloud.person() for _ in range(size)]
    with ThreadPoolExecutor(8) as pool:
        grants = list(
            pool.map(lambda who: client.grant(who, "viewer", staging, seconds=seconds, wait="ACCEPTED"), people)
        )
    return people, grants


def test_sigterm_in_a_storm_finishes_what_was_begun_and_the_next_start_does_the_rest(make_bench):
    bench = make_bench(engine={"drain": "10s"})
    cloud = bench.cloud
    people, grants = storm(bench, STORM, seconds=4)
    for grant in grants:
        bench.client.wait_for(grant, "ACTIVE", seconds=30)
    cloud.faults((REMOVE, {"type": "delay", "ms": 400}))
    eventually(lambda: len(cloud.removes()) >= 5, seconds=20)
    child = bench.connector.process.child
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    # Nothing new is taken from here on.
    late = cloud.person()
    with pytest.raises(grpc.RpcError) as refused:
        while time.monotonic() - began < STOP_SECONDS:
            bench.client.grant(late, "viewer", cloud.deployment("staging"), seconds=60, wait="ACCEPTED", timeout=5)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), refused.value
    assert child.wait(STOP_SECONDS) == 0
    assert time.monotonic() - began < 10 + 2, "longer than the drain limit"
    assert "Draining took too long" not in bench.connector.log
    # Every removal that was begun was waited for.
    begun = cloud.removes()
    assert all(call.get("status") == 200 for call in begun), [call for call in begun if call.get("status") != 200]
    cloud.faults()
    bench.start()
    for grant in [*grants, *bench.client.access.ListGrants(bench.protocol.ListGrantsRequest(page_size=100), timeout=10).grants]:
        if bench.client.state(grant) == "ACTIVE" and grant.id not in {each.id for each in grants}:
            bench.client.revoke(grant)
        bench.client.wait_for(grant, "ENDED", seconds=40)
    for person in [*people, late]:
        assert cloud.held(person) == set()
    twice = [person for person in people if len(cloud.removes(person)) > 1]
    assert not twice, "removed again what was seen to be gone"


def test_sigterm_the_moment_it_is_ready_is_obeyed(make_bench):
    bench = make_bench(start=False)
    for _ in range(5):
        bench.connector.start()
        assert bench.connector.stop() == 0


def test_sighup_changes_nothing(make_bench):
    bench = make_bench()
    bench.connector.process.child.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP was taken" in bench.connector.log)
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    bench.client.wait_for(grant, "ENDED")
    assert bench.connector.stop() == 0


def test_an_integration_with_open_grants_cannot_be_left_out(make_bench):
    bench = make_bench()
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=3600)
    assert bench.connector.stop() == 0
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    bench.connector.configure({**config, "integrations": [{**integration, "name": "another"}]})
    done = run(bench.binary, "serve", "--config", bench.connector.config_file, seconds=20)
    assert done.returncode == 1 and "elastic" in done.stderr and "drain" in done.stderr, done.stderr
    assert not done.stdout.strip() and bench.cloud.held(person)
    bench.connector.configure(config)
    bench.start()
    bench.client.revoke(grant)
    bench.client.wait_for(grant, "ENDED")


def paused(bench, seconds):
    """The process stands still for so long, as a frozen machine does."""
    os.kill(bench.connector.process.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(bench.connector.process.pid, signal.SIGCONT)
    return now()


def test_a_pause_over_the_end_costs_the_pause_and_is_no_stall(make_bench):
    """Longer than the grants, the time-outs of every call, and the limit for standing still."""
    bench = make_bench(engine={"stall_limit": "3s"})
    cloud, client = bench.cloud, bench.client
    people, grants = storm(bench, 5, seconds=2)
    for grant in grants:
        client.wait_for(grant, "ACTIVE")
    on = paused(bench, 6)
    for person, grant in zip(people, grants):
        ended = client.wait_for(grant, "ENDED", seconds=15)
        assert time_of(ended.ended_at) < on + timedelta(seconds=10)
        assert cloud.held(person) == set()
    never(lambda: bench.connector.process.child.poll() is not None, seconds=2)
    assert "ending the process" not in bench.connector.log


def test_what_was_decided_before_a_pause_is_not_sent_after_its_time(make_bench):
    """The grant's hard end passes while the process stands still between its read and its POST."""
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    cloud.control("DELETE", "calls")
    cloud.faults({"match": {"kind": MEMBERS}, "action": {"type": "delay", "ms": 1500}, "after": 1})
    grant = client.grant(
        person,
        "viewer",
        cloud.deployment("staging"),
        seconds=3,
        not_after=now() + timedelta(seconds=3),
        wait="ACCEPTED",
    )
    eventually(lambda: len(cloud.calls(kind=MEMBERS)) >= 2, seconds=10)
    on = paused(bench, 5)
    client.wait_for(grant, "ENDED", seconds=20)
    assert [call for call in cloud.adds(person) if instant(call["at"]) > on] == [], "sent after its end"
    assert cloud.held(person) == set()


@pytest.mark.parametrize("kind", [ADD, REMOVE])
def test_a_pause_while_an_answer_is_on_its_way_ends_in_a_read_not_in_a_guess(make_bench, kind):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    cloud.faults((kind, {"type": "delay", "ms": 1000}))
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2, wait="ACCEPTED")
    eventually(lambda: cloud.calls(person, kind), seconds=15)
    cloud.faults()
    paused(bench, 5)
    client.wait_for(grant, "ENDED", seconds=20)
    assert cloud.held(person) == set()
    assert len([call for call in cloud.adds(person) if call.get("status") == 200]) <= 1


def test_killed_at_random_in_a_storm_nothing_is_left(make_bench):
    """Five deaths while twenty grants begin and end; callers repeat themselves."""
    bench = make_bench()
    cloud = bench.cloud
    staging = cloud.deployment("staging")
    chance = random.Random(45)
    people = [cloud.person() for _ in range(20)]
    answered, stop = {}, threading.Event()

    def ask(number):
        spec = bench.protocol.spec(people[number], "viewer", staging, seconds=chance.choice((1, 2, 3)))
        while not stop.is_set():
            try:
                made = bench.client.create(spec, f"storm-{number}", wait="ACCEPTED", timeout=3).grant
                answered.setdefault(number, made.id)
                assert answered[number] == made.id, "one request, two grants"
                return
            except (grpc.RpcError, ValueError, TypeError):
                # Away, or the client was closed under this call.
                time.sleep(0.1)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(len(people))]
        try:
            for _ in range(5):
                time.sleep(chance.uniform(0.1, 1.0))
                bench.kill()
                bench.start(until_ready=False)
            for each in asking:
                each.result(timeout=60)
        finally:
            stop.set()
    assert len(answered) == len(people)
    for number, person in enumerate(people):
        bench.client.wait_for(answered[number], "ENDED", seconds=40)
        assert cloud.held(person) == set()
    rows = bench.connector.rows("SELECT id FROM grants")
    assert {row["id"] for row in rows} == set(answered.values())
