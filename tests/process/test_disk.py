"""The disk under the ledger: full, slow, or failing to sync. Grants stop with words, revocations go on, nothing is
believed that may not have reached the disk.

Rows F12 and F50 of docs/faults.md, for the ledger in SQLite.
"""

import uuid

import grpc
import requests
import pytest
from grpc_client.protocol import refusal_of, time_of
from harness import eventually, never, now

pytestmark = pytest.mark.beside


def readiness(bench):
    answer = requests.get(f"{bench.connector.http}/readyz", timeout=10)
    return answer.status_code, answer.json()["waiting_for"]


def test_a_full_disk_refuses_grants_in_words_and_still_takes_access_away(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    staging = cloud.deployment("staging")
    # One whose removal needs nothing but its due time, and one with standing access of the same role beside it.
    alone = cloud.person()
    neighbour = {"role_id": "deployment-viewer", "deployment_ids": [cloud.deployment("production-search")]}
    beside = cloud.person({"deployment": [neighbour]})
    standing = cloud.held(beside)
    grants = [client.grant(who, "viewer", staging, seconds=3) for who in (alone, beside)]
    weather.fill_disk()

    refusal = client.refused(client.grant, cloud.person(), "viewer", staging, seconds=60)
    assert refusal.code == "RESOURCE_EXHAUSTED" and refusal.reason == "LEDGER_FULL", refusal
    assert "full" in refusal.message and "room" in refusal.message, refusal
    assert refusal.retry_seconds
    refusal = client.refused(client.revoke, grants[0])
    assert refusal.code == "RESOURCE_EXHAUSTED", refusal
    eventually(lambda: readiness(bench)[0] == 503, seconds=15)
    assert "ledger_full" in readiness(bench)[1]["ledger"]
    assert requests.get(f"{bench.connector.http}/healthz", timeout=10).status_code == 200

    # Its time comes while nothing can be written.
    eventually(lambda: not cloud.held(alone), seconds=15)
    assert "removed due access without a record" in bench.connector.log
    assert standing <= cloud.held(beside)
    assert client.serving() != "NOT_FOUND"

    weather.free_disk()
    for grant in grants:
        client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(alone) == set() and cloud.held(beside) == standing
    eventually(lambda: readiness(bench)[0] == 200, seconds=15)
    client.grant(cloud.person(), "viewer", staging, seconds=1)


def test_a_disk_that_was_full_and_a_crash_together_lose_nothing(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    weather.fill_disk()
    bench.kill()
    # It cannot even start: in words, and with what to do.
    refused = None
    try:
        bench.connector.start(weather.env)
    except AssertionError as error:
        refused = str(error)
    assert refused and "ledger" in refused and "full" in refused, refused
    assert cloud.held(person)
    weather.free_disk()
    bench.start()
    bench.client.wait_for(grant, "ENDED", seconds=20)
    assert cloud.held(person) == set()


def test_a_failed_sync_is_not_believed_the_second_time(make_bench, weather):
    """After one the connection is given up, and the log is written into the file anew before anything is promised."""
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person, staging = cloud.person(), cloud.deployment("staging")
    request_id = f"sync-{uuid.uuid4()}"
    spec = client.pb.spec(person, "viewer", staging, seconds=3)
    weather.fail_syncs(times=1)

    def answered():
        try:
            return client.create(spec, request_id).grant
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            assert refusal.code in ("UNAVAILABLE", "ABORTED"), refusal
            return None

    grant = eventually(answered, seconds=20)
    eventually(lambda: "A commit of the ledger failed; opening it anew" in bench.connector.log)
    assert "Opened the ledger anew" in bench.connector.log
    assert weather.sync_times == 0
    # What was answered is there after a crash, once.
    bench.kill()
    bench.start()
    [row] = bench.connector.rows("SELECT id, request_id FROM grants")
    assert (row["id"], row["request_id"]) == (grant.id, request_id)
    bench.client.wait_for(grant, "ENDED", seconds=20)
    assert cloud.held(person) == set()
    assert len([call for call in cloud.adds(person) if call.get("status") == 200]) == 1


def test_a_disk_that_does_not_sync_any_more_grants_nothing_and_is_named(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person, other = cloud.person(), cloud.person()
    staging = cloud.deployment("staging")
    grant = client.grant(person, "viewer", staging, seconds=3)
    weather.fail_syncs()
    refusal = client.refused(client.grant, other, "viewer", staging, seconds=60)
    assert refusal.code in ("UNAVAILABLE", "ABORTED") and refusal.reason.startswith(("LEDGER_", "CONTENDED")), refusal
    eventually(lambda: readiness(bench)[0] == 503, seconds=15)
    assert "ledger" in readiness(bench)[1]["ledger"]
    # Due access is taken away all the same.
    eventually(lambda: not cloud.held(person), seconds=20)
    assert cloud.held(other) == set() and not cloud.adds(other)
    weather.set(sync_times=0)
    client.wait_for(grant, "ENDED", seconds=30)
    eventually(lambda: readiness(bench)[0] == 200, seconds=15)


def test_a_slow_disk_makes_everything_late_by_its_own_time_only(make_bench, weather):
    bench = make_bench(start=False)
    bench.start(env=weather.env)
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    weather.set(sync_ms=300)
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    end = time_of(grant.expires_at)
    never(lambda: not cloud.held(person) and now() < end, seconds=1)
    eventually(lambda: not cloud.held(person), seconds=10)
    ended = client.wait_for(grant, "ENDED", seconds=20)
    assert (time_of(ended.ended_at) - end).total_seconds() < 8
