"""Grants of one member that overlap: access stays without a gap until the last one ends, and no longer."""

import threading
import time
from datetime import timedelta

import pytest
from grpc_client.protocol import time_of
from harness import eventually, instant, now


class Gaps:
    """Looks at what a person holds all the time and remembers when a pair was not there."""

    def __init__(self, cloud, person, pair):
        self.cloud, self.person, self.pair = cloud, person, pair
        self.missing = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._stop.is_set():
            before = now()
            if self.pair not in self.cloud.held(self.person):
                self.missing.append(before)
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def until(self, end):
        return [at for at in self.missing if at < end]


def removals_of(cloud, person, pair):
    return [instant(call["at"]) for call in cloud.removes(person) if pair in call["pairs"]]


@pytest.fixture(scope="module")
def deployment(bench):
    return bench.cloud.deployment("production-logging")


@pytest.fixture(scope="module")
def viewer(deployment):
    return f"deployment/deployment-viewer/{deployment}"


def test_the_same_role_twice_stays_until_the_later_end(cloud, client, deployment, viewer):
    person = cloud.person()
    short = client.grant(person, "deployment-viewer", deployment, seconds=2)
    with Gaps(cloud, person, viewer) as gaps:
        long = client.grant(person, "deployment-viewer", deployment, seconds=4)
        last = time_of(long.expires_at)
        client.wait_for(short, "ENDED")
        assert viewer in cloud.held(person), "the end of the first grant took the access of the second"
        assert client.state(long) == "ACTIVE"
        client.wait_for(long, "ENDED")
    assert gaps.until(last) == []
    [removed] = removals_of(cloud, person, viewer)
    assert last <= removed < last + timedelta(seconds=2)
    assert len(cloud.adds(person)) == 1, "the second grant added what was there"
    assert cloud.held(person) == set()


def test_the_earlier_grant_may_be_the_longer_one(cloud, client, deployment, viewer):
    person = cloud.person()
    long = client.grant(person, "deployment-viewer", deployment, seconds=4)
    short = client.grant(person, "deployment-viewer", deployment, seconds=1)
    last = time_of(long.expires_at)
    client.wait_for(short, "ENDED")
    assert viewer in cloud.held(person)
    client.wait_for(long, "ENDED")
    assert all(at >= last for at in removals_of(cloud, person, viewer))
    assert cloud.held(person) == set()


def test_revoking_one_of_two_early_keeps_the_other(cloud, client, deployment, viewer):
    person = cloud.person()
    first, second = (client.grant(person, "viewer", deployment, seconds=3600) for _ in range(2))
    client.revoke(first)
    client.wait_for(first, "ENDED")
    assert viewer in cloud.held(person) and cloud.removes(person) == []
    client.revoke(second)
    client.wait_for(second, "ENDED")
    assert cloud.held(person) == set()


def test_grants_that_meet_in_one_second_leave_no_gap(cloud, client, deployment, viewer):
    """Each next grant is accepted in the last moments of the one before."""
    person = cloud.person()
    current = client.grant(person, "deployment-viewer", deployment, seconds=2)
    with Gaps(cloud, person, viewer) as gaps:
        for lead in (0.6, 0.3, 0.15):
            end = time_of(current.expires_at)
            eventually(lambda end=end, lead=lead: (end - now()).total_seconds() <= lead, every=0.01)
            following = client.grant(person, "deployment-viewer", deployment, seconds=2, wait="ACCEPTED")
            accepted = time_of(following.created_at)
            early = [at for at in removals_of(cloud, person, viewer) if at < accepted]
            assert early == [], "the test came too late to be one"
            current = client.wait_for(following, "ACTIVE")
        last = time_of(current.expires_at)
        client.wait_for(current, "ENDED")
    assert gaps.until(last) == []
    assert all(at >= last for at in removals_of(cloud, person, viewer))
    assert cloud.held(person) == set()


def test_different_roles_in_one_second_end_each_at_its_own_time(cloud, client, deployment):
    person = cloud.person()
    roles = {"deployment-viewer": 1, "deployment-editor": 2, "deployment-admin": 3}
    grants = {
        role: client.grant(person, role, deployment, seconds=seconds, wait="ACCEPTED")
        for role, seconds in roles.items()
    }
    ends = {role: client.wait_for(grant, "ENDED") for role, grant in grants.items()}
    assert cloud.held(person) == set()
    for role, ended in ends.items():
        end = time_of(ended.activated_at) + timedelta(seconds=roles[role])
        removed = removals_of(cloud, person, f"deployment/{role}/{deployment}")
        assert len(removed) == 1 and end <= removed[0] < end + timedelta(seconds=2), (role, removed, end)


def test_standing_roles_of_the_same_member_are_untouched(cloud, client, deployment):
    other, project = cloud.deployment("staging"), cloud.project("corporate-siem")
    held = {
        "organization": [{"role_id": "billing-admin"}],
        "deployment": [
            {"role_id": "deployment-viewer", "deployment_ids": [other]},
            {"role_id": "deployment-editor", "deployment_ids": [deployment]},
        ],
        "project": {"security": [{"role_id": "security-viewer", "all": True}]},
    }
    person = cloud.person(held)
    standing = cloud.held(person)
    grants = [
        client.grant(person, "deployment-viewer", deployment, seconds=1),
        client.grant(person, "deployment-admin", deployment, seconds=1),
        client.grant(person, "security-editor", client.pb.project("security", project), seconds=2),
    ]
    for grant in grants:
        client.wait_for(grant, "ENDED")
    assert cloud.held(person) == standing
    sent = {pair for call in cloud.removes(person) for pair in call["pairs"]}
    assert sent & standing == set()


def test_a_role_that_was_standing_before_is_neither_added_nor_removed(cloud, client, deployment, viewer):
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [deployment]}]}
    person = cloud.person(held)
    grant = client.grant(person, "deployment-viewer", deployment, seconds=1)
    assert [each.holding for each in grant.assignments] == [client.pb.HOLDING_STANDING]
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "EXPIRED"
    assert cloud.held(person) == {viewer}
    assert cloud.adds(person) == [] and cloud.removes(person) == []


def test_standing_access_to_all_covers_one(cloud, client, deployment):
    held = {"deployment": [{"role_id": "deployment-viewer", "all": True}]}
    person = cloud.person(held)
    grant = client.grant(person, "deployment-viewer", deployment, seconds=1)
    client.wait_for(grant, "ENDED")
    assert cloud.held(person) == {"deployment/deployment-viewer/*"}
    assert cloud.adds(person) == [] and cloud.removes(person) == []


def test_part_standing_part_granted(cloud, client, deployment, viewer):
    other = cloud.deployment("staging")
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [deployment]}]}
    person = cloud.person(held)
    grant = client.grant(person, "deployment-viewer", deployment, other, seconds=1)
    assert len(cloud.held(person)) == 2
    client.wait_for(grant, "ENDED")
    assert cloud.held(person) == {viewer}
    [call] = cloud.removes(person)
    assert call["pairs"] == [f"deployment/deployment-viewer/{other}"]
