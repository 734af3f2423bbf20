"""The rotation of the key: one new key at the end, wherever the connector is killed, and no revocation missed.

The sweep kills it at every *point* of a rotation in turn (`shim/shim.c`: around each fsync and each write of the
ledger, around each connect, request and answer upstream), starts it again on the same ledger, and looks at what is
left. The lives run beside each other, each with a simulator of its own.
"""

import json
import queue
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from harness import Connector, Process, Simulator, eventually, instant, now, run, write_key

from .faults import Shim
from .test_crash_sweep import NEVER, SETTINGS, UPSTREAM

STAGES = ["intended", "creating", "created", "storing", "stored", "switched", "deleting", "done"]


@pytest.fixture
def rotating(make_bench):
    """Makes a pair that looks at its rotation every second and keeps the old key for ten."""

    def make():
        return with_rotation(make_bench(start=False)).start()

    return make


def with_rotation(bench, **rotation):
    """Lets the connector of a pair that is not started look at its rotation, with short pauses."""
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    config["integrations"] = [{**integration, "rotation": {"keep_old": "10s", **rotation}}]
    config["sweeps"] = {**config.get("sweeps", {}), "key_rotation": "* * * * * *"}
    bench.connector.configure(config)
    return bench


def cli(bench, *words):
    done = run(bench.binary, "--server", f"http://{bench.connector.grpc}", *words, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stage(bench):
    return rotation_of(bench).get("stage")


def rotation_of(bench):
    """The rotation as it is recorded."""
    found = bench.connector.rows("SELECT body FROM key_rotations")
    return json.loads(found[0]["body"]) if found else {}


def meddled(bench, put):
    """Stores another key by `put` while a rotation proves the one that it made; answers that key once all is over.

    Theirs is in use then, what the rotation made is deleted, and the old key is left to whoever did it.
    """
    cloud, old = bench.cloud, bench.cloud.api_key
    theirs = cloud.control("POST", "keys", {"description": "by somebody else"})
    # Slow enough to be met in the middle.
    cloud.faults(("members.list", {"type": "delay", "ms": 3000}))
    cli(bench, "key", "rotate", "--reason", "quarterly", "--no-wait")
    eventually(lambda: stage(bench) == "created", seconds=60, every=0.02)
    put(theirs["key"])
    cloud.faults()
    eventually(lambda: stage(bench) == "abandoned", seconds=90, every=0.2)
    assert rotation_of(bench)["last_error"]["code"] == "secret_changed"
    assert sorted(keys(cloud).values()) == sorted([old, theirs["key"]])
    eventually(lambda: cli(bench, "key", "show")["key_id"] == theirs["id"], seconds=60, every=0.5)
    return theirs["key"]


def keys(cloud):
    return {each["id"]: each["key"] for each in cloud.control("GET", "keys")["keys"]}


def wait_until_over(bench):
    eventually(lambda: stage(bench) in ("done", "abandoned"), seconds=90, every=0.2)
    assert stage(bench) == "done", bench.connector.log[-4000:]


def has_one_new_key(bench, before):
    """As many keys as before; the one that is new is stored and in use, and the old one is gone."""
    after = keys(bench.cloud)
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    assert len(gone) == 1 and len(new) == 1, (before.keys(), after.keys())
    assert before[gone.pop()] == bench.cloud.api_key
    assert bench.connector.key_file.read_text() == after[next(iter(new))]
    shown = cli(bench, "key", "show")
    assert shown["key_id"] == next(iter(new))

    # What the connector knows of it comes from answers that it got with it, the first soon after a restart.
    def is_known():
        shown = cli(bench, "key", "show")
        return shown["sees_owners"] and shown["expires_at"]

    eventually(is_known, seconds=60, every=0.5)


def test_a_rotation_leaves_one_new_key_and_misses_no_revocation(rotating):
    bench = rotating()
    cloud, before = bench.cloud, keys(bench.cloud)
    staging = cloud.deployment("staging")
    people = [cloud.person() for _ in range(20)]
    grants = [
        bench.client.grant(person, "viewer", staging, seconds=1 + at) for at, person in enumerate(people)
    ]
    rotation = cli(bench, "key", "rotate", "--reason", "quarterly", "--requester", "ada")
    assert rotation["stage"] in ("switched", "deleting", "done")
    for person, grant in zip(people, grants):
        bench.client.wait_for(grant, "ENDED")
        assert cloud.held(person) == set()
    wait_until_over(bench)
    has_one_new_key(bench, before)
    steps = [json.loads(row["body"]) for row in bench.connector.rows(
        "SELECT body FROM events WHERE kind = 'key_rotation' ORDER BY sequence"
    )]
    assert [step["kind"]["stage"] for step in steps] == STAGES
    assert {(step["kind"]["by"], step["kind"]["reason"]) for step in steps} == {("ada", "quarterly")}
    texts = {key.encode() for key in [*before.values(), *keys(cloud).values()]}
    ledger = b"".join(path.read_bytes() for path in bench.folder.glob("ledger.db*"))
    log = bench.connector.log.encode()
    assert not any(text in ledger or text in log for text in texts)


# --- the sweep ---

# Lives at a time: each waits for most of its length.
LANES = 10
# A rotation that takes longer than this hangs.
PATIENCE = 120
# A removal is on time within this of its due time, or of the end of the restart that came between.
ON_TIME = timedelta(seconds=5)


# Points that are not swept by number, since nothing comes of them that another point does not have: a commit that is
# torn never was, one that is in the file was made, and who reads changes nothing.
ALIKE = ("amid the writes to log", "after the sync of log", "before sending GET", "after sending GET", "answered GET")


class Lane:
    """A simulator for one life at a time."""

    def __init__(self, binary, folder, number):
        args = [binary, "simulate", "--listen", "127.0.0.1:0"]
        self.cloud = Simulator(Process(args, folder / f"simulator-{number}.log"))
        self.target = self.cloud.deployment("staging")

    def fresh_key(self):
        """One key that works, whatever the life before left behind."""
        made = self.cloud.control("POST", "keys", {"description": "made by hand"})
        for each in keys(self.cloud):
            if each != made["id"]:
                self.cloud.control("DELETE", f"keys/{each}")
        return made["id"], made["key"]


class Life:
    """One rotation, and revocations that fall due around it."""

    def __init__(self, binary, lane, folder, protocol, library):
        folder.mkdir(parents=True)
        self.binary, self.cloud, self.target, self.protocol = binary, lane.cloud, lane.target, protocol
        self.cloud.control("DELETE", "calls")
        self.old_id, self.old = lane.fresh_key()
        settings = {**SETTINGS, "sweeps": {**SETTINGS["sweeps"], "key_rotation": NEVER}}
        settings["sweeps"]["key_rotation"] = "* * * * * *"
        self.connector = Connector(binary, self.cloud, folder, **settings)
        config = dict(self.connector.config)
        [integration] = config["integrations"]
        config["integrations"] = [{**integration, "upstream": UPSTREAM, "rotation": {"keep_old": "10s"}}]
        self.connector.configure(config)
        write_key(self.connector.key_file, self.old)
        self.weather = Shim(library, folder)
        self.restarted_at, self.stage_at_death = None, None

    def live(self, die_at, tracing=False):
        """`die_at` is the number of a point, or the name of one; 0 for none."""
        self.connector.start(self.weather.env)
        eventually(self.connector.is_ready, seconds=PATIENCE)
        client = self.protocol.client(self.connector.grpc)
        self.ends = {}
        for seconds in (1, 9):
            person = self.cloud.person()
            self.ends[person.user_id] = client.grant(person, "viewer", self.target, seconds=seconds, timeout=PATIENCE)
        client.close()
        # Points are counted from here on.
        self.weather.set(points=0, tracing=int(tracing))
        if isinstance(die_at, str):
            self.weather.die_at_place(die_at)
        else:
            self.weather.set(die_at=die_at)
        done = self.ask()
        # It may die before it answers: then the rotation was asked for, or not.
        assert done.returncode == 0 or self.weather.died_at or self.is_dead(), done
        eventually(lambda: self.mend() or self.is_over(), seconds=PATIENCE, every=0.1)
        if not self.rotation():
            done = self.ask()
            assert done.returncode == 0, done
        eventually(self.is_over, seconds=PATIENCE, every=0.2)
        self.weather.set(tracing=0, die_at=0)
        eventually(lambda: not any(self.cloud.held(person) for person in self.ends), seconds=PATIENCE, every=0.2)

    def ask(self):
        server = f"http://{self.connector.grpc}"
        return run(self.binary, "--server", server, "key", "rotate", "--reason", "r", "--no-wait")

    def is_dead(self):
        return self.connector.process.child.poll() is not None

    def mend(self):
        """Starts a connector that has died, once; answers whether it had."""
        if not self.is_dead():
            return False
        assert self.weather.died_at and self.restarted_at is None, self.connector.process.describe()
        self.stage_at_death = (self.rotation() or {}).get("stage", "not asked for")
        self.connector.start(self.weather.env)
        eventually(self.connector.is_ready, seconds=PATIENCE)
        self.restarted_at = now()
        return True

    def rotation(self):
        found = self.connector.rows("SELECT body FROM key_rotations")
        return json.loads(found[0]["body"]) if found else None

    def is_over(self):
        return (self.rotation() or {}).get("stage") in ("done", "abandoned")

    def check(self):
        assert self.rotation()["stage"] == "done", self.rotation()
        left = keys(self.cloud)
        assert len(left) == 1, f"orphans: {left.keys()}"
        [(key_id, key)] = left.items()
        assert key_id != self.old_id and self.connector.key_file.read_text() == key
        assert self.rotation()["new"]["id"] == key_id and self.rotation()["old"]["id"] == self.old_id
        beside = self.connector.key_file.with_name(f".{self.connector.key_file.name}.latchkey-new")
        assert not beside.exists(), "a key is left beside the store"
        for person, grant in self.ends.items():
            due = grant.expires_at.ToDatetime(now().tzinfo)
            latest = max(due, self.restarted_at or due) + ON_TIME
            sent = [call for call in self.cloud.removes(person) if call.get("status") == 200]
            assert sent and instant(sent[-1]["at"]) <= latest, f"due {due}, restarted {self.restarted_at}: {sent}"
        ledger = b"".join(path.read_bytes() for path in self.connector.folder.glob("ledger.db*"))
        assert not any(text.encode() in ledger + self.connector.log.encode() for text in (self.old, key))


class Lanes:
    def __init__(self, binary, folder, protocol, library):
        self.binary, self.folder, self.protocol, self.library = binary, folder, protocol, library
        self.all = [Lane(binary, folder, number) for number in range(LANES)]
        self.free = queue.Queue()
        for lane in self.all:
            self.free.put(lane)

    def play(self, die_at, tracing=False):
        lane = self.free.get()
        life = None
        try:
            folder = self.folder / f"point-{die_at}".replace(" ", "-")
            life = Life(self.binary, lane, folder, self.protocol, self.library)
            life.live(die_at, tracing)
            life.check()
            return life
        except BaseException as error:
            died_at = life and (life.weather.died_at, life.stage_at_death)
            raise AssertionError(f"point {die_at} {died_at}: {error!r}; see {self.folder}") from error
        finally:
            if life is not None and life.connector.process is not None:
                life.connector.kill()
            self.free.put(lane)

    def close(self):
        for lane in self.all:
            lane.cloud.process.kill()


@pytest.fixture
def lanes(latchkey_bin, tmp_path, protocol, shim_library):
    made = Lanes(latchkey_bin, tmp_path, protocol, shim_library)
    yield made
    made.close()


def test_wherever_it_is_killed_one_key_works_none_is_left_over_and_revocations_are_on_time(lanes):
    whole = lanes.play(0, tracing=True)
    # The numbers vary a little from life to life, so that what is passed once is named.
    points = [number for number, place in enumerate(whole.weather.trace, 1) if place not in ALIKE]
    points += sorted(set(whole.weather.trace))
    with ThreadPoolExecutor(LANES) as pool:
        played = [pool.submit(lanes.play, point) for point in points]
    wrong = [str(each.exception()) for each in played if each.exception() is not None]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(played)} lives:", *wrong[:10]])
    lives = [each.result() for each in played]
    died = Counter(life.stage_at_death for life in lives if life.weather.died_at)
    print(f"{len(lives)} lives, {sum(died.values())} deaths: {dict(died)}")
    # Every recorded step was interrupted, and so was every kind of place.
    assert set(STAGES[:-1]) <= set(died), f"nobody died at {set(STAGES[:-1]) - set(died)}"
    missed = set(whole.weather.trace) - {life.weather.died_at for life in lives}
    assert not missed, f"nobody died {missed}"
