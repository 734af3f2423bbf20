"""Fixtures for the tests that drive the real binary from outside.

`LATCHKEY_BIN` names the binary (scripts/test sets it). Every server listens on a loopback port that
the system picks and is ended by its process id; if the test run itself is killed, the kernel ends
them (Linux).
"""

import ctypes
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest
import requests
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY_SECONDS = 30
STOP_SECONDS = 15


def _die_with_parent():
    """Asks the kernel to kill the child when the test run dies (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


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
        answer = requests.request(method, f"{self.base_url}/_sim/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.content else None


def connector_config(simulator, folder, key_file, **changes):
    """The configuration of a connector for `simulator`; the one place that knows its keys.

    `changes` replaces whole top-level sections.
    """
    config = {
        "grpc": {"listen": "127.0.0.1:0"},
        "http": {"listen": "127.0.0.1:0"},
        "ledger": {"sqlite": {"path": str(folder / "ledger.db")}},
        "integrations": [
            {
                "name": "elastic",
                "kind": "elastic-cloud",
                "base_url": simulator.base_url,
                "secret": {"file": {"path": str(key_file)}},
            }
        ],
    }
    config.update(changes)
    return config


class Connector:
    """A `latchkey serve` on a folder of its own; it can be stopped, killed and started again."""

    def __init__(self, binary, simulator, folder, **changes):
        self.binary = binary
        self.folder = folder
        self.key_file = folder / "api-key"
        self.config_file = folder / "latchkey.yaml"
        self.key_file.write_text(simulator.api_key)
        self.key_file.chmod(0o600)
        config = connector_config(simulator, folder, self.key_file, **changes)
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
        self.process = None

    def start(self, env=None):
        """Starts it and returns once it says that it is ready."""
        self.process = Process(
            [self.binary, "serve", "--config", self.config_file], self.folder / "connector.log", env
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
        return (self.folder / "connector.log").read_text(errors="replace")

    def kill(self):
        return self.process.kill()

    def stop(self):
        return self.process.stop()


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


@pytest.fixture(scope="session")
def latchkey_bin():
    """The binary under test."""
    named = os.environ.get("LATCHKEY_BIN")
    path = pathlib.Path(named) if named else ROOT / "target" / "debug" / "latchkey"
    assert path.is_file(), f"{path} is missing: run `cargo build`, or set LATCHKEY_BIN"
    return path


@pytest.fixture
def start_simulator(latchkey_bin, tmp_path):
    """Starts simulators: `start_simulator("--world", file)`; all are ended after the test."""
    started = []

    def start(*args):
        log = tmp_path / f"simulator-{len(started)}.log"
        started.append(Process([latchkey_bin, "simulate", "--listen", "127.0.0.1:0", *args], log))
        return Simulator(started[-1])

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def simulator(start_simulator):
    """One simulator with its default world."""
    return start_simulator()


@pytest.fixture
def make_connector(latchkey_bin, tmp_path):
    """Makes connectors that are not started yet: `make_connector(simulator, **sections)`."""
    made = []

    def make(simulator, **changes):
        folder = tmp_path / f"connector-{len(made)}"
        folder.mkdir()
        made.append(Connector(latchkey_bin, simulator, folder, **changes))
        return made[-1]

    yield make
    for connector in made:
        if connector.process is not None:
            connector.kill()


@pytest.fixture
def connector(make_connector, simulator):
    """One running connector on `simulator`."""
    return make_connector(simulator).start()


@pytest.fixture(scope="session")
def moto_url():
    """Base URL of a local AWS (Secrets Manager, STS) played by moto."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
