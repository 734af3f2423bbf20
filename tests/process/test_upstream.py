"""Elastic Cloud down, slow, throttling, redirecting, lying: clear errors, no accident, nothing forgotten."""

import uuid
from datetime import timedelta

import grpc
import pytest
from grpc_client.protocol import refusal_of, time_of
from harness import eventually, instant, never, now

ADD, REMOVE, MEMBERS = "role_assignments.add", "role_assignments.remove", "members.list"
GIB = 1 << 30

TROUBLE = {
    "down": {"type": "fail", "status": 503},
    "gateway page": {"type": "fail", "status": 502, "html": True},
    "internal error": {"type": "fail", "status": 500, "code": "root.internal"},
    "throttling": {"type": "throttle", "retry_after": "1"},
    "throttling for a year": {"type": "throttle", "retry_after": "31536000"},
    "throttling with nonsense": {"type": "throttle", "retry_after": "soon"},
    "closing": {"type": "drop_before_apply"},
    "silent": {"type": "hang"},
    "redirecting": {"type": "redirect", "location": "http://127.0.0.1:9/"},
    "redirecting for good": {"type": "redirect", "location": "/api/v1/organizations", "status": 308},
    "html with 200": {"type": "garbage_html"},
    "half an answer": {"type": "truncate"},
    "broken json": {"type": "malformed"},
    "a gigabyte": {"type": "huge", "bytes": GIB},
    "a compressed bomb": {"type": "gzip_bomb", "bytes": 32 << 20},
}


@pytest.fixture
def bench(make_bench):
    """A pair of its own for every test, since a connector remembers how its cloud behaved."""
    made = make_bench(start=False)
    config = dict(made.connector.config)
    # Short patience with reads, so that silence is met within a test.
    upstream = {"read_attempt": "700ms", "read_budget": "2s", "members_budget": "5s", "idle_timeout": "1s"}
    config["integrations"] = [{**config["integrations"][0], "upstream": upstream}]
    made.connector.configure(config)
    return made.start()


@pytest.fixture
def cloud(bench):
    return bench.cloud


@pytest.fixture
def client(bench):
    return bench.client


@pytest.fixture
def deployment(bench):
    return bench.cloud.deployment("staging")


def memory_mib(bench):
    """Most memory that the connector ever used."""
    for line in open(f"/proc/{bench.connector.process.pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("name", TROUBLE)
def test_reads_in_trouble_refuse_an_address_clearly_and_nothing_is_granted(
    bench, cloud, client, deployment, name
):
    """An address has to be looked up before anything can be accepted."""
    person = cloud.person()
    world, changes = cloud.organization(), cloud.changes()
    cloud.faults({"match": {"method": "GET"}, "action": TROUBLE[name]})
    before = now()
    refusal = client.refused(client.grant, person.email, "viewer", deployment, timeout=30)
    assert refusal.code == "UNAVAILABLE", refusal
    assert refusal.reason and "Elastic Cloud" in refusal.message, refusal
    assert now() - before < timedelta(seconds=25)
    for leak in ("<html", "reqwest", "hyper", "127.0.0.1", "/api/v1"):
        assert leak not in refusal.message, refusal
    assert cloud.organization() == world and cloud.changes() == changes
    assert client.serving() == "SERVING", "trouble of the cloud is no reason to restart the connector"
    assert memory_mib(bench) < 300


# One of each kind: refused, unanswered, cut off, answered with nonsense. (A pause of a year is cut to a minute, in
# which nothing is sent: too long for a test that waits for the end.)
PASSING = [
    "down",
    "throttling",
    "closing",
    "silent",
    "redirecting",
    "html with 200",
    "half an answer",
    "broken json",
    "a compressed bomb",
]


@pytest.mark.parametrize("name", PASSING)
def test_a_grant_in_trouble_is_given_or_ended_and_its_end_is_never_forgotten(bench, cloud, client, deployment, name):
    """Every call fails in one way for a while, first of giving and then of taking away."""
    person = cloud.person()
    action = TROUBLE[name]
    user = {"user": person.user_id}
    cloud.faults({"match": {"kind": ADD, **user}, "action": action, "times": 1})
    grant = client.grant(person, "deployment-editor", deployment, seconds=1, wait="ACCEPTED")
    eventually(lambda: cloud.adds(person))
    cloud.faults({"match": {"kind": REMOVE, **user}, "action": action, "times": 1})
    ended = client.wait_for(grant, "ENDED", seconds=40)
    assert cloud.held(person) == set(), ended
    landed = [call for call in cloud.adds(person) if call.get("status") == 200 and not call.get("fault")]
    assert len(landed) <= 1
    assert memory_mib(bench) < 300


def test_a_cloud_that_says_yes_and_does_nothing_is_found_out(cloud, client, deployment):
    person = cloud.person()
    user = {"user": person.user_id}
    cloud.faults({"match": {"kind": ADD, **user}, "action": {"type": "lie"}, "times": 1})
    grant = client.grant(person, "viewer", deployment, seconds=2, wait="ACCEPTED")
    never(lambda: client.state(grant) == "ACTIVE" and not cloud.held(person) and not cloud.adds(person)[1:], 0.5)
    cloud.faults({"match": {"kind": REMOVE, **user}, "action": {"type": "lie"}, "times": 1})
    ended = client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(person) == set()
    if ended.HasField("activated_at"):
        assert len(cloud.removes(person)) >= 2, "the first DELETE was a lie"


def test_a_cloud_that_is_down_at_the_end_is_asked_until_it_is_back(bench, cloud, client, deployment):
    person = cloud.person()
    grant = client.grant(person, "viewer", deployment, seconds=1)
    cloud.faults({"action": {"type": "fail", "status": 503}})
    revoking = client.wait_for(grant, "REVOKING")
    eventually(lambda: client.get(grant).attempts >= 2, seconds=15)
    failing = client.get(grant)
    assert failing.last_error.code and failing.last_error.message
    assert client.reason_word(revoking) == "EXPIRED"
    assert client.serving() == "SERVING"
    cloud.faults()
    client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(person) == set()


def test_a_removal_that_is_refused_for_one_deployment_does_not_hold_up_the_others(make_bench):
    """A deployment that was shut down makes every change that names it fail, for good."""
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    poison, fine = cloud.deployment("staging"), cloud.deployment("production-search")
    grant = client.grant(person, "viewer", poison, fine, seconds=2)
    cloud.control("POST", f"deployments/{poison}/hide")
    eventually(lambda: cloud.held(person) == {f"deployment/deployment-viewer/{poison}"}, seconds=30)
    stuck = client.get(grant)
    assert client.state_word(stuck) == "REVOKING" and stuck.last_error.code, stuck
    # Someone else's grant on this key goes on as usual.
    other = cloud.person()
    quick = client.grant(other, "viewer", fine, seconds=1)
    client.wait_for(quick, "ENDED")
    answer = client.explain(person)
    assert any(each.kind == client.pb.ACCESS_KIND_CLOSING for each in answer.access), answer


def test_a_throttled_removal_waits_and_then_happens(cloud, client, deployment):
    person = cloud.person()
    grant = client.grant(person, "viewer", deployment, seconds=1)
    cloud.faults({"match": {"kind": REMOVE}, "action": {"type": "throttle", "retry_after": "2"}, "times": 2})
    client.wait_for(grant, "ENDED", seconds=40)
    assert cloud.held(person) == set()
    throttled = [call for call in cloud.removes(person) if call.get("status") == 429]
    assert throttled


def test_an_old_post_that_lands_after_the_delete_is_taken_away_again(make_bench):
    """The call was cut off and applied much later, when its grant was over."""
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    late = {"type": "apply_late", "ms": 6000, "answer": "drop"}
    cloud.faults({"match": {"kind": ADD}, "action": late, "times": 1})
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=1, wait="ACCEPTED")
    client.wait_for(grant, "ENDED", seconds=30)
    eventually(lambda: any(call.get("late") for call in cloud.calls()), seconds=15)
    # The second look, owed because an outcome was unknown.
    eventually(lambda: not cloud.held(person), seconds=30)


def test_stale_reads_do_not_end_a_grant_early_or_bring_it_back(make_bench):
    bench = make_bench(engine={"read_staleness": "2s"})
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    cloud.control("PATCH", "settings", {"stale_ms": 1500})
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=3)
    assert client.state_word(grant) == "ACTIVE"
    ended = client.wait_for(grant, "ENDED", seconds=30)
    assert client.reason_word(ended) == "EXPIRED"
    assert cloud.held(person) == set()
    [removal] = cloud.removes(person)
    assert instant(removal["at"]) >= time_of(ended.activated_at) + timedelta(seconds=3)
    assert len(cloud.adds(person)) == 1


def test_accepted_while_the_cloud_is_down_is_given_when_it_is_back(cloud, client, deployment):
    """A user id needs no look-up: the grant is durable, and either given once or refused clearly."""
    person = cloud.person()
    cloud.faults({"action": {"type": "fail", "status": 503}})
    request_id = f"down-{uuid.uuid4()}"
    spec = client.pb.spec(person, "viewer", deployment, seconds=60)
    try:
        grant = client.create(spec, request_id, wait="ACCEPTED", timeout=15).grant
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert refusal.code == "UNAVAILABLE" and refusal.reason, refusal
        cloud.faults()
        grant = client.create(spec, request_id).grant
    cloud.faults()
    client.wait_for(grant, "ACTIVE", seconds=30)
    landed = [call for call in cloud.adds(person) if call.get("status") == 200]
    assert len(landed) == 1
    client.revoke(grant)
    client.wait_for(grant, "ENDED")


def test_a_cloud_of_another_organization_gets_no_grant(make_bench):
    """The configuration pins an organization; the key sees another one."""
    bench = make_bench(start=False)
    config = dict(bench.connector.config)
    config["integrations"] = [{**config["integrations"][0], "organization_id": "999999999999"}]
    bench.connector.configure(config)
    try:
        bench.start(until_ready=False)
    except AssertionError as refused:
        assert "organization" in str(refused)
        return
    person = bench.cloud.person()
    refusal = bench.client.refused(
        bench.client.grant, person.email, "viewer", bench.cloud.deployment("staging"), timeout=30
    )
    assert refusal.code in ("UNAVAILABLE", "FAILED_PRECONDITION", "NOT_FOUND"), refusal
    assert bench.cloud.changes() == {}


@pytest.mark.parametrize("action", [{"type": "hang"}, {"type": "fail", "status": 503}], ids=["silent", "down"])
@pytest.mark.parametrize("neighbour", [False, True], ids=["alone", "with a standing neighbour"])
def test_a_list_of_members_in_trouble_does_not_keep_access_alive(cloud, client, deployment, action, neighbour):
    """Where the member has standing access a read comes first: once it has failed, the removal goes without it."""
    other = cloud.deployment("production-search")
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [other]}]}
    person = cloud.person(held if neighbour else None)
    standing = cloud.held(person)
    grant = client.grant(person, "viewer", deployment, seconds=1)
    cloud.faults((MEMBERS, action))
    eventually(lambda: cloud.held(person) == standing, seconds=15)
    assert client.state(grant) == "REVOKING", "gone is not proven yet"
    cloud.faults()
    client.wait_for(grant, "ENDED", seconds=30)
    assert len(cloud.removes(person)) <= 2
