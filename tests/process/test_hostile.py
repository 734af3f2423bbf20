"""Callers that mean harm: whatever they do to the listener, others go on being answered and memory stays bounded.

Times are measured by `scripts/hostile`, not here.
"""

import json
import re
import subprocess
import sys
import threading

import pytest
from harness import Bench, eventually

from . import attacks
from .test_memory import resident_mib

# What all of an attack may cost, at its peak. Two hundred and fifty-six connections of 64 KiB are 16 MiB.
ALLOWED_MIB = 48
SECONDS = 3
# As short as the configuration takes them, so that nobody waits for nothing.
LIMITS = {
    "handshake_timeout": "1s",
    "idle_timeout": "2s",
    "keep_alive_interval": "1s",
    "keep_alive_timeout": "1s",
    "max_deadline": "3s",
    "requests_per_second": 100_000,
    "burst": 1_000_000,
}


class Regular:
    """A caller that asks one thing after the other on its own connection, and wants each answered."""

    def __init__(self, bench):
        self.client = bench.protocol.client(bench.connector.grpc)
        self.pb = bench.protocol
        self.answers, self.failures, self.over = 0, [], threading.Event()
        self._ask()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _ask(self):
        self.client.connector.GetVersion(self.pb.GetVersionRequest(), timeout=20)
        assert self.client.serving() == "SERVING"

    def _run(self):
        while not self.over.wait(0.01):
            try:
                self._ask()
                self.answers += 1
            except Exception as error:  # each is told below
                self.failures.append(str(error))

    def end(self):
        self.over.set()
        self.thread.join(60)
        self.client.close()
        return self.failures


@pytest.fixture(scope="module")
def besieged(latchkey_bin, tmp_path_factory, protocol):
    made = Bench(latchkey_bin, tmp_path_factory.mktemp("besieged"), protocol, limits=LIMITS)
    yield made
    made.close()


def attack(bench, name, seconds=SECONDS):
    """Does it from a process of its own; answers what it saw."""
    done = subprocess.run(
        [sys.executable, attacks.__file__, name, bench.connector.grpc, str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def works(bench, client):
    """A whole grant."""
    person = bench.cloud.person()
    grant = client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1, timeout=30)
    client.wait_for(grant, "ENDED", seconds=30)
    assert bench.cloud.held(person) == set()


# Attacks whose connections end when they have been of no use for long enough.
QUIET = {"idle_connections", "slow_preface", "half_frames", "dripping_frames"}
# Attacks that no caller of good will makes: their connections end at once, and they have to come again and again.
CUT_OFF = {
    "rapid_reset", "made_you_reset", "continuation_flood", "empty_continuations", "header_bomb", "oversized_headers",
    "settings_flood", "ping_flood", "window_flood", "empty_data_flood", "unknown_frames", "garbage",
}  # fmt: skip
DEAF = {"deaf_settings_flood", "deaf_ping_flood"}


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_others_are_answered_memory_is_bounded_and_the_offender_is_cut_off(besieged, name):
    bench = besieged
    regular = Regular(bench)
    before, pid = resident_mib(bench.connector.process.pid)[0], bench.connector.process.pid
    with open(f"/proc/{pid}/clear_refs", "w") as peak:
        # The peak is counted anew from here (proc(5)).
        peak.write("5")
    saw = attack(bench, name, seconds=8 if name in QUIET else SECONDS)
    now, peak = resident_mib(pid)
    # Some attacks are over at once.
    eventually(lambda: regular.answers >= 5, seconds=30)
    failures = regular.end()
    assert not failures, failures[:3]
    assert peak - before <= ALLOWED_MIB, (before, peak, now, saw)
    assert bench.connector.process.child.poll() is None
    assert saw["connections"] >= 1, saw
    if name in QUIET:
        assert saw["ended"] == saw["connections"], saw
    if name in CUT_OFF:
        assert saw["connections"] > 1 and saw["ended"] >= 1, saw
    if name in DEAF:
        assert saw["ended"] == 1, saw
    # Whatever is left of it goes away by itself.
    eventually(lambda: bench.connector.metric("latchkey_grpc_connections") <= 1, seconds=20)
    assert "panicked" not in bench.connector.log
    works(bench, bench.client)


def test_no_more_connections_are_held_than_are_allowed_and_each_that_is_closed_is_counted(besieged):
    shed = besieged.connector.metric("latchkey_grpc_connections_shed_total")
    most = []
    over = threading.Event()

    def look():
        while not over.wait(0.05):
            most.append(besieged.connector.metric("latchkey_grpc_connections"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    attack(besieged, "idle_connections", seconds=10)
    over.set()
    thread.join(10)
    assert max(most) <= 256, max(most)
    assert besieged.connector.metric("latchkey_grpc_connections_shed_total") - shed >= 2000
    lines = re.findall(r"was turned away|were turned away", besieged.connector.log)
    assert len(lines) <= 10, "a flood must not become one of log lines"
