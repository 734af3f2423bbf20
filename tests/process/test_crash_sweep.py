"""The crash sweep: the connector is killed at every point of a grant's life in turn, and nothing is left behind.

A *point* lies before and after each fsync, at the first write and amid the writes of each commit, and around every
connect, request and answer (`shim/shim.c`). A first run counts the points of one whole life; then each life dies at
one of them, is started again on the same ledger with no fault, and goes on to its end. The lives run beside each
other, each with a simulator, a ledger and people of its own.

Rows F1 to F5 of docs/faults.md.
"""

import queue
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from harness import Connector, Process, Simulator, instant

from .faults import Shim

# Lives at a time: enough to wait together, few enough for two cores.
LANES = 8
# A life that takes longer than this hangs.
PATIENCE = 60

NEVER = "0 0 0 1 1 *"
SETTINGS = {
    "engine": {"read_staleness": "100ms", "unknown_look_after": "1s", "floor_poll": "1s", "drain": "5s"},
    # Sweeps by the clock would put their points at random places.
    "sweeps": {
        name: NEVER
        for name in ("directory", "drift", "key_expiry", "overdue", "reminders", "retention", "second_looks", "secret_refresh")
    },
    "log": {"filter": "warn"},
}
UPSTREAM = {"mutation_budget": "1s", "connect_timeout": "500ms", "read_attempt": "1s", "read_budget": "2s"}


@dataclass
class Life:
    """One whole life of three overlapping grants of one person, whatever happens to the process meanwhile."""

    protocol: object
    cloud: Simulator
    connector: Connector
    weather: Shim
    targets: tuple
    client: object = None
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    answered: dict = field(default_factory=dict)
    deaths: int = 0

    def live(self):
        cloud = self.cloud
        self.target, self.second, self.third = self.targets
        # Standing access beside ours: the same role elsewhere, and another role on the same deployment.
        held = {
            "deployment": [
                {"role_id": "deployment-viewer", "deployment_ids": [self.third]},
                {"role_id": "deployment-admin", "deployment_ids": [self.target]},
            ]
        }
        self.person = cloud.person(held)
        self.standing = cloud.held(self.person)
        self.start()
        pb = self.protocol
        first = pb.spec(self.person, "viewer", self.target, seconds=1)
        self.mutate("first", lambda client, name: client.create(first, name).grant)
        # Overlaps the first and outlives it.
        both = pb.spec(self.person, "viewer", self.target, self.second, seconds=1)
        self.mutate("both", lambda client, name: client.create(both, name).grant)
        self.extend("both", 1)
        editor = pb.spec(self.person, "editor", self.target, seconds=3600)
        self.mutate("editor", lambda client, name: client.create(editor, name).grant)
        self.mutate("revoke", lambda client, name: client.revoke(self.answered["editor"]).grant)
        for name in ("first", "both", "editor"):
            self.until(lambda client, name=name: client.state(self.answered[name]) == "ENDED")
        # The second look has been taken and nothing is owed any more.
        self.until(lambda client: not self.owed())
        # Stopping in good order has points too: the log is written back.
        if self.connector.stop() != 0:
            assert self.weather.died_at, "it did not stop in good order"
            self.start()
            assert self.connector.stop() == 0

    # --- a caller that knows nothing of crashes: it repeats itself ---

    def start(self):
        """Starts the connector; if it dies on the way, as its supervisor would, once more."""
        for _ in range(3):
            try:
                self.connector.start(self.weather.env)
            except AssertionError:
                if not self.weather.died_at:
                    raise
                continue
            self.forget_client()
            self.client = self.protocol.client(self.connector.grpc)
            return
        raise AssertionError("it does not start")

    def forget_client(self):
        if self.client is not None:
            self.client.close()
            self.client = None

    def is_dead(self):
        return self.connector.process.child.poll() is not None

    def mend(self):
        """Starts a connector that has died."""
        if not self.is_dead():
            return False
        assert self.weather.died_at, f"it ended by itself: {self.connector.process.describe()}"
        self.deaths += 1
        self.start()
        return True

    def until(self, check):
        end = time.monotonic() + PATIENCE
        while True:
            self.mend()
            try:
                answer = check(self.client)
            except grpc.RpcError as error:
                assert error.code() in RETRIED, error
                answer = None
            if answer:
                return answer
            assert time.monotonic() < end, f"stuck after dying at {self.weather.died_at!r}"
            time.sleep(0.1)

    def mutate(self, name, call):
        """Makes a mutating call until it is answered, always with the same request id."""
        grant = self.until(lambda client: call(client, f"{self.tag}-{name}"))
        self.answered[name] = grant.id

    def extend(self, name, seconds):
        request_id = f"{self.tag}-extend"

        def once(client):
            try:
                return client.extend(self.answered[name], seconds, request_id)
            except grpc.RpcError as error:
                # After a restart its end may have come first: that is an answer.
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    return True
                raise

        self.until(once)

    def owed(self):
        rows = self.connector.rows("SELECT owned, due_at FROM members")
        return [row for row in rows if row["owned"] or row["due_at"] is not None]

    # --- what must hold ---

    def check(self):
        cloud, connector = self.cloud, self.connector
        assert cloud.held(self.person) == self.standing, "something of ours is left, or standing access was touched"
        grants = connector.rows("SELECT id, state, cause, request_id FROM grants ORDER BY id")
        # What was answered exists, once.
        expected = {self.answered[name]: f"{self.tag}-{name}" for name in ("first", "both", "editor")}
        assert {row["id"]: row["request_id"] for row in grants} == expected
        assert all(row["state"] == "ended" for row in grants), grants
        causes = {row["request_id"].rsplit("-", 1)[1]: row["cause"] for row in grants}
        assert causes["editor"] == "revoked" and {causes["first"], causes["both"]} == {"expired"}, causes
        ours = {f"deployment/deployment-viewer/{each}" for each in (self.target, self.second)}
        ours.add(f"deployment/deployment-editor/{self.target}")
        adds = [call for call in cloud.calls(self.person, "role_assignments.add") if call.get("status") == 200]
        removes = [call for call in cloud.calls(self.person, "role_assignments.remove") if call.get("status") == 200]
        for call in removes:
            assert set(call["pairs"]) <= ours, f"not ours to remove: {call}"
        for pair in ours:
            added = [call["seq"] for call in adds if pair in call["pairs"]]
            removed = [call["seq"] for call in removes if pair in call["pairs"]]
            # Dying between the answer and its record may send the same call once more; both are idempotent.
            assert 1 <= len(removed) <= 2 and len(added) <= 2, (pair, adds, removes)
            assert not added or max(added) < max(removed), f"added again after the end: {pair}"
        self.check_audit(adds + removes)

    def check_audit(self, calls):
        """An intent before every effect, and something known after every intent."""
        events = self.connector.events(self.person)
        intents = [event for event in events if event["kind"] == "call_intended"]
        for call in calls:
            write = "add" if call["kind"].endswith(".add") else "remove"
            before = [
                each
                for each in intents
                if each["write"].lower() == write and instant(each["at"]) <= instant(call["at"]) + timedelta(milliseconds=1)
            ]
            assert before, f"no intent before {call}"
        for write in ("add", "remove"):
            sent = [call for call in calls if call["kind"].endswith(f".{write}")]
            assert len([each for each in intents if each["write"].lower() == write]) >= len(sent)
        for intent in intents:
            later = [event for event in events if event["sequence"] > intent["sequence"]]
            assert any(event["kind"] in ("call_ended", "observed") for event in later), f"nothing after {intent}"


RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def play(binary, cloud, targets, folder, protocol, library, die_at, tracing=False):
    """One life that dies at a point, and what it was."""
    folder.mkdir(parents=True)
    cloud.control("DELETE", "calls")
    connector = Connector(binary, cloud, folder, **SETTINGS)
    config = dict(connector.config)
    config["integrations"] = [{**config["integrations"][0], "upstream": UPSTREAM}]
    connector.configure(config)
    life = Life(protocol, cloud, connector, Shim(library, folder), targets)
    life.weather.set(die_at=die_at, tracing=int(tracing))
    try:
        life.live()
        life.check()
        return life
    except BaseException as error:
        raise AssertionError(f"point {die_at} ({life.weather.died_at}): {error!r}; see {folder}") from error
    finally:
        life.forget_client()
        if connector.process is not None:
            connector.kill()


class Lanes:
    """Simulators, each for one life at a time."""

    def __init__(self, binary, folder, protocol, library):
        self.binary, self.folder, self.protocol, self.library = binary, folder, protocol, library
        self.free = queue.Queue()
        self.processes = []
        for number in range(LANES):
            args = [binary, "simulate", "--listen", "127.0.0.1:0"]
            self.processes.append(Process(args, folder / f"simulator-{number}.log"))
            cloud = Simulator(self.processes[-1])
            named = {each["name"]: each["id"] for each in cloud.organization()["deployments"]}
            targets = tuple(named[name] for name in ("staging", "production-search", "production-logging"))
            self.free.put((cloud, targets))

    def play(self, die_at, tracing=False):
        lane = self.free.get()
        folder = self.folder / f"point-{die_at}"
        try:
            return play(self.binary, *lane, folder, self.protocol, self.library, die_at, tracing)
        finally:
            self.free.put(lane)

    def close(self):
        for process in self.processes:
            process.kill()


@pytest.fixture(scope="module")
def lanes(latchkey_bin, tmp_path_factory, protocol, shim_library):
    made = Lanes(latchkey_bin, tmp_path_factory.mktemp("sweep"), protocol, shim_library)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(lanes):
    """A life without a crash: it counts the points."""
    return lanes.play(0, tracing=True)


def test_a_whole_life_passes_every_kind_of_point(whole):
    passed = Counter(whole.weather.trace)
    assert whole.weather.points == sum(passed.values()) and not whole.weather.died_at and whole.deaths == 0
    for call in ("GET", "POST", "DELETE"):
        for place in ("before sending", "after sending", "answered"):
            assert passed[f"{place} {call}"] >= 2, passed
    for place in ("before the first write to", "amid the writes to", "before the sync of", "after the sync of"):
        assert passed[f"{place} log"] >= 20 and passed[f"{place} ledger"] >= 1, passed
    assert passed["before removing log"] == 1, "stopping writes the log back"


def test_nothing_is_left_behind_wherever_it_dies(whole, lanes):
    points = range(1, whole.weather.points + 1)
    with ThreadPoolExecutor(LANES) as pool:
        played = [pool.submit(lanes.play, point) for point in points]
    wrong = [str(each.exception()) for each in played if each.exception() is not None]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(played)} lives:", *wrong[:10]])
    # The number of points varies a little from life to life; where one died is known, not guessed.
    died = Counter(each.result().weather.died_at for each in played)
    lived = died.pop("", 0)
    assert lived <= len(played) // 8, f"{lived} lives met no crash"
    # What a life passes once or twice at its very end can slip between two numbers.
    passed = Counter(whole.weather.trace)
    missed = {place for place, times in passed.items() if times > 2} - set(died)
    assert not missed, f"nobody died {missed}"
