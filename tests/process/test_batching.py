"""What grants cost upstream: calls are shared where grants meet."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from grpc_client.protocol import time_of
from harness import eventually, instant, now


def test_twenty_grants_of_one_member_cost_one_post_and_one_delete(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    organization = cloud.organization()
    deployments = [each["id"] for each in organization["deployments"]]
    roles = ["deployment-viewer", "deployment-editor", "deployment-admin"]
    targets = [(role, client.pb.deployment(each)) for each in deployments for role in roles]
    for kind in ("elasticsearch", "observability", "security"):
        ids = [each["id"] for each in organization["projects"] if each["type"] == kind]
        names = ["viewer", "admin" if kind == "elasticsearch" else "editor"]
        targets += [(role, client.pb.project(kind, each)) for each in ids for role in names]
    start = now() + timedelta(seconds=4)
    end = start + timedelta(seconds=3)
    grants = [
        client.grant(person, role, target, seconds=3600, starts_at=start, not_after=end, wait="ACCEPTED")
        for role, target in targets[:20]
    ]
    assert now() < start, "accepting took too long for this test"
    assert len({grant.id for grant in grants}) == 20
    cloud.control("DELETE", "calls")
    for grant in grants:
        client.wait_for(grant, "ACTIVE")
    assert len(cloud.held(person)) == 20
    for grant in grants:
        client.wait_for(grant, "ENDED")
    assert cloud.held(person) == set()

    by_kind = cloud.control("GET", "calls")["by_kind"]
    assert by_kind["role_assignments.add"] == 1, by_kind
    assert by_kind["role_assignments.remove"] == 1, by_kind
    # Before adding, to verify, before removing, to see it gone; a sweep may fall into it.
    assert by_kind["members.list"] <= 7, by_kind
    [add], [remove] = cloud.adds(person), cloud.removes(person)
    assert len(add["pairs"]) == len(remove["pairs"]) == 20
    assert instant(add["at"]) >= start and instant(remove["at"]) >= end


def test_fifty_members_in_one_second_share_their_reads(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    people = [cloud.person() for _ in range(50)]
    deployment = cloud.deployment("staging")
    warm = client.grant(people[0], "viewer", deployment, seconds=1)  # what is read once is read now
    client.wait_for(warm, "ENDED")
    cloud.control("DELETE", "calls")
    # A slow read is what makes sharing worth it, as with an organization of many members.
    cloud.faults(("members.list", {"type": "delay", "ms": 300}))

    def ask(person):
        return client.grant(person, "deployment-admin", deployment, seconds=3600, wait="ACCEPTED")

    with ThreadPoolExecutor(25) as pool:
        grants = list(pool.map(ask, people))
    for grant in grants:
        client.wait_for(grant, "ACTIVE", seconds=30)
    by_kind = cloud.control("GET", "calls")["by_kind"]
    assert by_kind["role_assignments.add"] == 50, by_kind
    # Fifty alone would read at least a hundred times: to accept, before adding, to verify.
    assert by_kind["members.list"] <= 15, by_kind

    cloud.control("DELETE", "calls")
    ask = client.pb.RevokeAccessRequest(request_id=str(uuid.uuid4()), everything=True, reason="test")
    assert client.access.RevokeAccess(ask, timeout=30).revoked == 50
    for grant in grants:
        client.wait_for(grant, "ENDED", seconds=30)
    by_kind = cloud.control("GET", "calls")["by_kind"]
    assert by_kind["role_assignments.remove"] == 50, by_kind
    assert by_kind["members.list"] <= 15, by_kind


def test_fifty_ends_in_one_second_are_met_on_time(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    people = [cloud.person() for _ in range(50)]
    deployment = cloud.deployment("staging")
    end = now() + timedelta(seconds=8)

    def ask(person):
        return client.grant(person, "viewer", deployment, seconds=3600, not_after=end, wait="ACCEPTED")

    with ThreadPoolExecutor(10) as pool:
        grants = list(pool.map(ask, people))
    for grant in grants:
        client.wait_for(grant, "ACTIVE")
    for grant in grants:
        ended = client.wait_for(grant, "ENDED", seconds=30)
        assert client.reason_word(ended) == "EXPIRED"
        assert time_of(ended.ended_at) >= end
    removed = [instant(call["at"]) for call in cloud.removes()]
    assert len(removed) == 50
    assert min(removed) >= end and max(removed) < end + timedelta(seconds=10)
    eventually(lambda: not any(cloud.held(person) for person in people))
