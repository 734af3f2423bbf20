"""Starts the simulator and finds Elastic's API descriptions."""

import json
import os
import pathlib
import signal
import subprocess

import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOT_RUN = []


def shared_folder():
    given = os.environ.get("LATCHKEY_SHARED")
    return pathlib.Path(given) if given else ROOT.parent / "shared"


def description(name):
    """One of Elastic's API descriptions, or None where they are not there."""
    path = shared_folder() / "elastic-cloud" / name
    return json.loads(path.read_text()) if path.is_file() else None


def note_not_run(what):
    """Remembers a check that did not run, for the summary."""
    NOT_RUN.append(f"{what}: no API descriptions in {shared_folder() / 'elastic-cloud'}")


def pytest_configure(config):
    # bravado's own use of jsonschema; nothing here can change it.
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")


def pytest_terminal_summary(terminalreporter):
    if NOT_RUN:
        terminalreporter.section("NOT CHECKED against Elastic's API descriptions")
        for line in sorted(set(NOT_RUN)):
            terminalreporter.line(line)


class Simulator:
    """A running simulator, and a plain HTTP client of it."""

    def __init__(self, *arguments):
        binary = os.environ.get("LATCHKEY_BIN", str(ROOT / "target/debug/latchkey"))
        self.process = subprocess.Popen(
            [binary, "simulate", *arguments], stdout=subprocess.PIPE, text=True
        )
        self.ready = json.loads(self.process.stdout.readline())
        self.base_url = self.ready["base_url"]
        self.api_key = self.ready["api_key"]
        self.organization_id = self.ready["organization_id"]

    def control(self, method, path, body=None):
        answer = requests.request(method, f"{self.base_url}/_sim/{path}", json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def world(self):
        return self.control("GET", "world")

    def organization(self):
        return self.world()["organizations"][0]

    def kinds(self):
        return set(self.control("GET", "calls")["by_kind"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=10) == 0
        self.process.stdout.close()


@pytest.fixture
def start():
    """Starts simulators that end with the test."""
    running = []

    def begin(*arguments):
        running.append(Simulator(*arguments))
        return running[-1]

    yield begin
    for simulator in running:
        simulator.stop()


@pytest.fixture
def simulator(start):
    return start()
