"""kill -9 of the connector at any moment of a grant: access is gone on time, one effect, and the audit shows why.

Every moment is a state of the world that is waited for, not a number of milliseconds; faults of the simulator hold
the moment open. The scenarios run beside each other, each with its own simulator, connector and ledger.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import pytest
from grpc_client.protocol import time_of
from harness import Bench, eventually, instant, now, run

SECONDS = 3
ADD, REMOVE, MEMBERS = "role_assignments.add", "role_assignments.remove", "members.list"


@dataclass
class Scene:
    """One grant, up to the moment of the crash."""

    bench: Bench
    person: object
    standing: set
    pair: str
    request_id: str
    grant_id: str = ""
    restarts: int = 1

    @property
    def cloud(self):
        return self.bench.cloud

    def accept(self, seconds=SECONDS):
        deployment = self.pair.rsplit("/", 1)[1]
        grant = self.bench.client.grant(
            self.person,
            "deployment-admin",
            deployment,
            seconds=seconds,
            request_id=self.request_id,
            wait="ACCEPTED",
        )
        self.grant_id = grant.id

    def activate(self):
        self.accept()
        return self.bench.client.wait_for(self.grant_id, "ACTIVE")

    def holds(self):
        return self.pair in self.cloud.held(self.person)

    def added(self):
        return self.cloud.adds(self.person)

    def removed(self):
        return self.cloud.removes(self.person)


# --- the moments: each returns when the connector is to be killed ---


def after_accept(scene):
    # Accepting reads once; the read of the pass is the next.
    scene.cloud.faults({"match": {"kind": MEMBERS}, "action": {"type": "delay", "ms": 3000}, "after": 1})
    scene.accept()


def while_reading_before_the_post(scene):
    scene.cloud.control("DELETE", "calls")
    scene.cloud.faults({"match": {"kind": MEMBERS}, "action": {"type": "hang"}, "after": 1})
    scene.accept()
    eventually(lambda: len(scene.cloud.calls(kind=MEMBERS)) == 2)


def when_the_post_arrived(scene):
    scene.cloud.faults((ADD, {"type": "delay", "ms": 1500}))
    scene.accept()
    eventually(scene.added)


def when_the_post_was_applied_and_not_answered(scene):
    scene.cloud.faults((ADD, {"type": "apply_late", "ms": 0, "answer": "hang"}))
    scene.accept()
    eventually(scene.holds)


def when_the_answer_to_the_post_was_lost(scene):
    scene.cloud.faults({"match": {"kind": ADD}, "action": {"type": "drop_after_apply"}, "times": 1})
    scene.accept()
    eventually(scene.holds)


def when_the_post_was_answered_and_not_verified(scene):
    scene.cloud.faults({"match": {"kind": MEMBERS}, "action": {"type": "delay", "ms": 2500}, "after": 2})
    scene.accept()
    eventually(lambda: any(call.get("status") == 200 for call in scene.added()), seconds=15)


def when_active(scene):
    scene.activate()


def just_before_the_end(scene):
    end = time_of(scene.activate().expires_at)
    eventually(lambda: end - now() < timedelta(milliseconds=250), every=0.01)


def at_the_end(scene):
    end = time_of(scene.activate().expires_at)
    eventually(lambda: now() >= end, every=0.005)


def dead_over_the_end(scene):
    end = time_of(scene.activate().expires_at)
    scene.bench.kill()
    eventually(lambda: now() > end + timedelta(milliseconds=500))
    assert scene.holds()


def when_the_delete_arrived(scene):
    scene.cloud.faults((REMOVE, {"type": "delay", "ms": 1500}))
    scene.accept()
    eventually(scene.removed, seconds=15)


def when_the_delete_was_applied_and_not_answered(scene):
    scene.cloud.faults((REMOVE, {"type": "apply_late", "ms": 0, "answer": "hang"}))
    scene.activate()
    eventually(lambda: not scene.holds(), seconds=15)


def when_the_answer_to_the_delete_was_lost(scene):
    scene.cloud.faults({"match": {"kind": REMOVE}, "action": {"type": "drop_after_apply"}, "times": 1})
    scene.activate()
    eventually(lambda: not scene.holds(), seconds=15)


def when_the_delete_was_refused(scene):
    scene.cloud.faults((REMOVE, {"type": "fail", "status": 503}))
    scene.activate()
    eventually(scene.removed, seconds=15)


def when_the_delete_was_answered_and_not_seen(scene):
    scene.activate()
    # The read before the removal passes, the one that would prove it does not.
    scene.cloud.faults({"match": {"kind": MEMBERS}, "action": {"type": "hang"}, "after": 1})
    eventually(lambda: any(call.get("status") == 200 for call in scene.removed()), seconds=15)


def after_an_early_revocation(scene):
    scene.cloud.faults((REMOVE, {"type": "delay", "ms": 1500}))
    scene.accept(seconds=3600)
    scene.bench.client.wait_for(scene.grant_id, "ACTIVE")
    scene.bench.client.revoke(scene.grant_id)


def again_and_again(scene):
    when_the_post_arrived(scene)
    scene.bench.kill()
    scene.bench.start()
    scene.cloud.faults((MEMBERS, {"type": "delay", "ms": 300}))
    eventually(lambda: scene.bench.client.state(scene.grant_id) in ("ACTIVE", "REVOKING"), seconds=20)
    scene.bench.kill()
    scene.cloud.faults((REMOVE, {"type": "delay", "ms": 1000}))
    scene.bench.start()
    eventually(scene.removed, seconds=20)
    scene.restarts = 3


MOMENTS = [
    after_accept,
    while_reading_before_the_post,
    when_the_post_arrived,
    when_the_post_was_applied_and_not_answered,
    when_the_answer_to_the_post_was_lost,
    when_the_post_was_answered_and_not_verified,
    when_active,
    just_before_the_end,
    at_the_end,
    dead_over_the_end,
    when_the_delete_arrived,
    when_the_delete_was_applied_and_not_answered,
    when_the_answer_to_the_delete_was_lost,
    when_the_delete_was_refused,
    when_the_delete_was_answered_and_not_seen,
    after_an_early_revocation,
    again_and_again,
]
# Beside each other: enough to wait together, few enough for two cores.
AT_ONCE = 6


def play(moment, binary, folder, protocol):
    """Plays one scenario to its end; raises what does not hold."""
    bench = Bench(binary, folder, protocol)
    try:
        cloud = bench.cloud
        first, second = cloud.deployment("staging"), cloud.deployment("production-search")
        held = {"deployment": [{"role_id": "deployment-admin", "deployment_ids": [second]}]}
        person = cloud.person(held)
        pair = f"deployment/deployment-admin/{first}"
        scene = Scene(bench, person, cloud.held(person), pair, f"crash-{uuid.uuid4()}")
        moment(scene)
        bench.kill()
        cloud.faults()
        restarted = now()
        bench.start()
        check(scene, restarted)
        assert bench.connector.stop() == 0
    finally:
        bench.close()


def check(scene, restarted):
    bench, cloud, client = scene.bench, scene.cloud, scene.bench.client

    # The caller, which knows nothing of crashes, repeats its call and finds its one grant.
    ended = client.wait_for(scene.grant_id, "ENDED", seconds=30)
    assert ended.request_id == scene.request_id
    listed = client.access.ListGrants(client.pb.ListGrantsRequest(), timeout=10).grants
    assert [grant.id for grant in listed] == [scene.grant_id]

    # Gone, on time, and nothing else with it.
    assert cloud.held(scene.person) == scene.standing
    reason = client.reason_word(ended)
    assert reason == ("EXPIRED" if ended.duration.seconds == SECONDS else "REVOKED"), ended
    if ended.HasField("activated_at") and reason == "EXPIRED":
        due = max(time_of(ended.activated_at) + timedelta(seconds=SECONDS), restarted)
        assert time_of(ended.ended_at) < due + timedelta(seconds=10), "removed late"

    # One effect: one pair, added at most once more when the first call left no trace, never after its removal.
    adds, removes = scene.added(), scene.removed()
    for call in adds + removes:
        assert call["pairs"] == [scene.pair], call
    whole = [call for call in adds if call.get("status") == 200 and not call.get("fault")]
    assert len(whole) <= 1, f"added twice: {adds}"
    assert adds[-1]["seq"] < removes[0]["seq"], "added again after the end"

    # The audit: an intent before every call, an outcome or an observation after it, and each start of the process.
    events = bench.connector.events(scene.person)
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "grant_accepted"
    intents = [event for event in events if event["kind"] == "call_intended"]
    assert len([each for each in intents if each["write"].lower() == "add"]) >= len(adds) > 0
    assert len([each for each in intents if each["write"].lower() == "remove"]) >= len(removes) > 0
    for intent in intents:
        later = [event for event in events if event["sequence"] > intent["sequence"]]
        assert any(event["kind"] in ("call_ended", "observed") for event in later), f"nothing after {intent}"
    assert any(event["kind"] == "grant_changed" and event["to"] == "ended" for event in events)
    starts = bench.connector.rows("SELECT body FROM events WHERE kind = 'lifecycle'")
    assert len([row for row in starts if "started" in row["body"]]) == scene.restarts + 1


@pytest.fixture(scope="module")
def plays(latchkey_bin, tmp_path_factory, protocol):
    """All scenarios, begun together."""
    folder = tmp_path_factory.mktemp("crash")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            moment.__name__: pool.submit(play, moment, latchkey_bin, folder / moment.__name__, protocol)
            for moment in MOMENTS
        }


@pytest.mark.parametrize("moment", [moment.__name__ for moment in MOMENTS])
def test_a_crash_costs_no_removal(plays, moment):
    plays[moment].result(timeout=150)


def test_the_ledger_is_refused_to_a_second_process(make_bench):
    bench = make_bench()
    second = run(bench.binary, "serve", "--config", bench.connector.config_file, seconds=20)
    assert second.returncode not in (0, -9)
    said = second.stderr.lower()
    assert "ledger" in said and ("in use" in said or "another" in said or "already" in said), second.stderr
    assert not second.stdout.strip()
    assert bench.client.serving() == "SERVING"
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    bench.client.wait_for(grant, "ENDED")


def test_time_is_kept_while_the_cloud_is_away_and_the_connector_crashes(make_bench):
    """The cloud is down at the end, the connector is killed meanwhile; when both are back, access goes."""
    bench = make_bench()
    cloud, person = bench.cloud, bench.cloud.person()
    grant = bench.client.grant(person, "viewer", cloud.deployment("staging"), seconds=1)
    cloud.faults({"action": {"type": "fail", "status": 503}})
    bench.client.wait_for(grant, "REVOKING")
    bench.kill()
    bench.start(until_ready=False)
    assert bench.client.state(grant) == "REVOKING"
    assert cloud.held(person)
    cloud.faults()
    back = now()
    bench.client.wait_for(grant, "ENDED", seconds=30)
    assert cloud.held(person) == set()
    done = [call for call in cloud.removes(person) if call.get("status") == 200]
    assert instant(done[0]["at"]) < back + timedelta(seconds=20)
