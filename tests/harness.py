"""What the tests that drive the real binary are built of: processes, the simulated cloud, a connector.

Every server listens on a loopback port that the system picks and is ended by its process id; if the
test run itself is killed, the kernel ends them (Linux).
"""

import ctypes
import json
import os
import pathlib
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone

import requests
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY_SECONDS = 30
STOP_SECONDS = 15

# Loaded before any fork: loading between fork and exec could meet a lock that nobody releases.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent():
    """Asks the kernel to kill the child when the thread that started it ends (PR_SET_PDEATHSIG)."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)


def eventually(check, seconds=10.0, every=0.05):
    """Returns the first true answer of `check`; fails with the last one after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"still {answer!r} after {seconds} s")
        time.sleep(every)


def never(check, seconds, every=0.05):
    """Fails as soon as `check` is true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = check()
        if answer:
            raise AssertionError(f"{answer!r} came true")
        time.sleep(every)


def now():
    return datetime.now(timezone.utc)


def instant(text):
    """An RFC 3339 time, whatever the number of its decimals."""
    return datetime.fromisoformat(text)


def run(binary, *args, env=None, seconds=60, stdin=None):
    """Runs a command of the binary to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LATCHKEY_")}
    return subprocess.run(
        [str(binary), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=seconds,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env={**clean, **(env or {})},
        check=False,
    )


class Process:
    """A child process whose first line of standard output is one JSON object: "I am ready"."""

    def __init__(self, args, log, env=None):
        self.args = [str(arg) for arg in args]
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as sink:
            self.child = subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **(env or {})},
                preexec_fn=_die_with_parent,
            )
        self.lines = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()
        try:
            self.ready = self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def _pump(self):
        for line in self.child.stdout:
            self.lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        self.lines.put(None)

    def _wait_ready(self):
        try:
            line = self.lines.get(timeout=READY_SECONDS)
        except queue.Empty:
            raise AssertionError(f"{self.describe()} said nothing for {READY_SECONDS} s") from None
        if line is None:
            code = self.child.wait(STOP_SECONDS)
            raise AssertionError(f"{self.describe()} ended with {code} before it was ready")
        return json.loads(line)

    def describe(self):
        """The command and the end of its log, for messages."""
        tail = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        return f"`{' '.join(self.args)}` (log: {tail})"

    @property
    def pid(self):
        return self.child.pid

    def kill(self):
        """Ends it the hard way, as a crash does."""
        if self.child.poll() is None:
            self.child.kill()
        return self.child.wait(STOP_SECONDS)

    def stop(self):
        """Asks it to end (SIGTERM) and returns its exit code; a process that stays is a failure."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.describe()} did not end {STOP_SECONDS} s after SIGTERM") from None


@dataclass(frozen=True)
class Person:
    """Somebody in the simulated organization."""

    user_id: str
    email: str


def pairs(held):
    """The (role, target) pairs of a `role_assignments` document, as the call log writes them."""
    found = set()

    def entries(scope, listed, ids):
        for entry in listed or []:
            role = entry["role_id"]
            if ids is None:
                found.add(f"{scope}/{role}/-")
            elif entry.get("all"):
                found.add(f"{scope}/{role}/*")
            for each in entry.get(ids) or [] if ids else []:
                found.add(f"{scope}/{role}/{each}")

    entries("organization", held.get("organization"), None)
    entries("deployment", held.get("deployment"), "deployment_ids")
    for kind, listed in (held.get("project") or {}).items():
        entries(kind, listed, "project_ids")
    return found


@dataclass
class Simulator:
    """A running `latchkey simulate` and what it said about its world."""

    process: Process

    @property
    def base_url(self):
        return self.process.ready["base_url"]

    @property
    def organization_id(self):
        return self.process.ready["organization_id"]

    @property
    def api_key(self):
        return self.process.ready["api_key"]

    def get(self, path, **params):
        """Reads from the simulated Elastic Cloud with its own key."""
        answer = requests.get(
            self.base_url + path,
            params=params,
            headers={"Authorization": f"ApiKey {self.api_key}"},
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()

    def control(self, method, path, body=None):
        """Calls the simulator's control API (`/_sim/…`)."""
        answer = requests.request(method, f"{self.base_url}/_sim/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    # --- the world ---

    def organization(self):
        return self.control("GET", "world")["organizations"][0]

    def deployment(self, name):
        """The id of the deployment of this name."""
        return next(each["id"] for each in self.organization()["deployments"] if each["name"] == name)

    def project(self, name):
        """The id of the project of this name."""
        return next(each["id"] for each in self.organization()["projects"] if each["name"] == name)

    def member(self, email):
        """The member with this address, or None."""
        found = [each for each in self.organization()["members"] if each.get("email") == email]
        return found[0] if found else None

    def person(self, role_assignments=None, email=None):
        """Makes a new member, so that tests on one simulator do not meet."""
        tag = uuid.uuid4()
        person = Person(str(tag.int)[:16], email or f"p-{tag.hex[:12]}@example.com")
        body = {"email": person.email, "name": f"Person {tag.hex[:6]}"}
        if role_assignments:
            body["role_assignments"] = role_assignments
        self.control("PUT", f"members/{person.user_id}", body)
        return person

    def held(self, person):
        """What the cloud says that a person holds, as pairs."""
        user_id = getattr(person, "user_id", person)
        return pairs(self.control("GET", f"members/{user_id}/assignments")["role_assignments"])

    # --- faults and calls ---

    def faults(self, *rules):
        """Replaces the faults; each rule is (kind, action) or a whole rule."""
        whole = [
            rule if isinstance(rule, dict) else {"match": {"kind": rule[0]}, "action": rule[1]}
            for rule in rules
        ]
        self.control("PUT", "faults", {"rules": whole})

    def calls(self, person=None, kind=None):
        """The call log, oldest first."""
        user_id = getattr(person, "user_id", person)
        return [
            call
            for call in self.control("GET", "calls")["log"]
            if (user_id is None or call.get("user") == user_id)
            and (kind is None or call["kind"] == kind)
        ]

    def adds(self, person=None):
        """Every POST of role assignments that arrived."""
        return [call for call in self.calls(person, "role_assignments.add") if not call.get("late")]

    def removes(self, person=None):
        """Every DELETE of role assignments that arrived."""
        return [call for call in self.calls(person, "role_assignments.remove") if not call.get("late")]

    def changes(self):
        """Every call that changes something, by kind."""
        by_kind = self.control("GET", "calls")["by_kind"]
        wanted = ("role_assignments.", "invitations.c", "members.remove", "keys.c", "keys.d", "organizations.u")
        return {kind: count for kind, count in by_kind.items() if kind.startswith(wanted)}


# Pauses as short as the configuration takes them, so that tests do not wait for nothing.
FAST = {"read_staleness": "200ms", "unknown_look_after": "10s", "floor_poll": "200ms", "member_poll": "5s"}


def merged(config, changes):
    """`config` with `changes` laid over it, section by section."""
    out = dict(config)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if both else value
    return out


def connector_config(simulator, folder, **changes):
    """The configuration of a connector for `simulator`; the one place that knows its keys."""
    config = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "log": {"filter": "info,latchkey=debug"},
        "ledger": {"path": str(folder / "ledger.db")},
        "engine": FAST,
        "integrations": [
            {
                "name": "elastic",
                "kind": "elastic_cloud",
                "base_url": simulator.base_url if simulator else "http://127.0.0.1:9",
                "secret": {"file": {"path": str(folder / "api-key")}},
            }
        ],
    }
    return merged(config, changes)


def write_key(path, key):
    """Writes a key as mounted secrets are replaced: whole, by a rename."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(key)
    fresh.chmod(0o600)
    fresh.rename(path)


class Connector:
    """A `latchkey serve` on a folder of its own; it can be stopped, killed and started again."""

    def __init__(self, binary, simulator, folder, **changes):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.key_file = self.folder / "api-key"
        self.config_file = self.folder / "latchkey.yaml"
        self.ledger_file = self.folder / "ledger.db"
        if simulator is not None:
            write_key(self.key_file, simulator.api_key)
        self.configure(connector_config(simulator, self.folder, **changes))
        self.process = None

    def configure(self, config):
        self.config = config
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self, env=None, prefix=()):
        """Starts it, behind a command such as `prlimit` where one is given; returns once it says that it is ready."""
        self.process = Process(
            [*prefix, self.binary, "serve", "--config", self.config_file], self.folder / "connector.log", env
        )
        return self

    @property
    def grpc(self):
        """Host and port of the gRPC listener."""
        return self.process.ready["grpc"]

    @property
    def http(self):
        """Base URL of health and metrics."""
        return f"http://{self.process.ready['http']}"

    @property
    def log(self):
        path = self.folder / "connector.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def is_ready(self):
        return requests.get(f"{self.http}/readyz", timeout=10).status_code == 200

    def metrics(self):
        answer = requests.get(f"{self.http}/metrics", timeout=10)
        answer.raise_for_status()
        return answer.text

    def metric(self, name, **labels):
        """The sum of the samples of one metric that carry these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            head, _, value = line.rpartition(" ")
            found = head.split("{")[0]
            if found == name and all(f'{key}="{value}"' in head for key, value in labels.items()):
                total += float(value)
        return total

    def rows(self, query, *values):
        """Reads the ledger file, beside the running process."""
        with sqlite3.connect(f"file:{self.ledger_file}?mode=ro", uri=True, timeout=10) as ledger:
            ledger.row_factory = sqlite3.Row
            found = [dict(row) for row in ledger.execute(query, values)]
        ledger.close()
        return found

    def events(self, subject):
        """The audit of one member, oldest first: each event's own document."""
        user_id = getattr(subject, "user_id", subject)
        found = self.rows("SELECT sequence, at, kind, subject, body FROM events ORDER BY sequence")
        return [
            {**_flat(json.loads(row["body"])), "sequence": row["sequence"], "kind": row["kind"]}
            for row in found
            if user_id in (row["subject"] or "")
        ]

    def kill(self):
        return self.process.kill()

    def stop(self):
        return self.process.stop()


def _flat(document):
    """An event whose own fields may lie one level down."""
    inner = document.get("kind")
    return {**document, **inner} if isinstance(inner, dict) else document


class Bench:
    """A simulator, a connector on it, and a client of that."""

    def __init__(self, binary, folder, protocol, simulate=(), start=True, **changes):
        """`start=False` leaves starting to the test; `changes` are laid over the configuration."""
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.protocol = protocol
        self._client = None
        args = [binary, "simulate", "--listen", "127.0.0.1:0", *simulate]
        self.cloud = Simulator(Process(args, self.folder / "simulator.log"))
        self.connector = Connector(binary, self.cloud, self.folder, **changes)
        if start:
            self.start()

    def start(self, env=None, until_ready=True, prefix=()):
        """Starts the connector and waits until it has a key and has seen the organization."""
        try:
            self.connector.start(env, prefix)
            if until_ready:
                eventually(self.connector.is_ready, seconds=30)
        except BaseException:
            self.close()
            raise
        self._forget_client()
        return self

    def _forget_client(self):
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def client(self):
        if self._client is None:
            self._client = self.protocol.client(self.connector.grpc)
        return self._client

    def kill(self):
        """kill -9 of the connector."""
        self._forget_client()
        self.connector.kill()

    def cli(self, *args, seconds=60):
        """Runs a command against the connector."""
        return run(
            self.binary, *args, env={"LATCHKEY_SERVER": f"http://{self.connector.grpc}"}, seconds=seconds
        )

    def close(self):
        self._forget_client()
        if self.connector.process is not None:
            self.connector.kill()
        self.cloud.process.kill()
