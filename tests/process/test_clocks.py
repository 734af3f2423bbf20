"""Wrong clocks: wall time decides, waits are short, and whatever the clock did, no access is left.

The wall clock of the connector moves; the simulator's and boot time stay right. Rows F39 and F41 of docs/faults.md.
"""

import random

import pytest
from grpc_client.protocol import time_of
from harness import eventually, instant, never, now

pytestmark = pytest.mark.beside

HOURS = 3600


def test_a_clock_that_jumps_forward_ends_what_is_over_by_it_within_a_poll(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [cloud.deployment("production-search")]}]}
    person = cloud.person(held)
    standing = cloud.held(person)
    grant = client.grant(person, "editor", cloud.deployment("staging"), seconds=1 * HOURS)
    weather.move_wall_clock(2 * HOURS)
    eventually(lambda: cloud.held(person) == standing, seconds=20)
    client.wait_for(grant, "ENDED", seconds=30)
    # The next answer of Elastic Cloud tells by how much the two disagree.
    eventually(lambda: abs(bench.connector.metric("latchkey_upstream_clock_skew_seconds") + 2 * HOURS) < 60, seconds=15)


def test_a_clock_that_jumps_back_takes_nothing_early_and_ends_when_it_is_right_again(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=4)
    end = time_of(grant.expires_at)
    weather.move_wall_clock(-2 * HOURS)
    never(lambda: not cloud.held(person) and now() < end, seconds=2)
    weather.move_wall_clock(0)
    client.wait_for(grant, "ENDED", seconds=20)
    assert cloud.held(person) == set()
    for removal in cloud.removes(person):
        assert instant(removal["at"]) >= end, "removed early"


def test_a_start_with_a_clock_that_is_behind_heals_with_the_clock(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud = bench.cloud
    person = cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    bench.kill()
    weather.move_wall_clock(-2 * HOURS)
    bench.start(env=weather.env)
    assert bench.client.get(grant).id == grant.id
    weather.move_wall_clock(0)
    eventually(lambda: not cloud.held(person), seconds=15)
    bench.client.wait_for(grant, "ENDED", seconds=20)


def test_a_start_with_a_clock_that_is_ahead_ends_what_is_over_by_it(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud = bench.cloud
    person = cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=1 * HOURS)
    bench.kill()
    weather.move_wall_clock(2 * HOURS)
    bench.start(env=weather.env)
    bench.client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(person) == set()


def test_a_clock_that_jumps_about_leaves_no_access(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    jumps = random.Random(39)
    people = [cloud.person() for _ in range(6)]
    grants = [
        client.grant(person, "viewer", cloud.deployment("staging"), seconds=jumps.choice((2, 4, 6)))
        for person in people
    ]
    for _ in range(8):
        weather.move_wall_clock(jumps.uniform(-3, 3) * HOURS)
        for grant in grants:
            assert client.state(grant) in ("ACTIVE", "REVOKING", "ENDED")
        never(lambda: bench.connector.process.child.poll() is not None, seconds=0.4)
    weather.move_wall_clock(0)
    for person, grant in zip(people, grants):
        client.wait_for(grant, "ENDED", seconds=30)
        assert cloud.held(person) == set()
    assert client.serving() == "SERVING"
