"""Replicas of one connector, the database that they share, and the lines between them and it."""

import pathlib
import re
import signal
import subprocess
import threading
import uuid

import requests
from harness import ROOT, Connector, Process, Simulator, eventually, merged

from .lines import Line

CLAIM = 5.0
# A claim that is gone is taken within one and a half of its life.
TAKE_OVER = 1.5 * CLAIM
ROLE = "deployment-admin"
# Callers that are no subject of a test are not held back.
EAGER = {"requests_per_second": 100_000, "burst": 1_000_000}


def tool(name):
    """A program of the newest PostgreSQL here."""
    return sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[-1]


class Postgres:
    """A throw-away server; it ends when its standard input does. `more` are options of scripts/postgres."""

    def __init__(self, *more):
        self.child = subprocess.Popen(
            [ROOT / "scripts" / "postgres", *map(str, more)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.server = self._said("server")
        self.pooler = self._said("pooler")

    def _said(self, name):
        found, _, address = self.child.stdout.readline().strip().partition(" ")
        assert found == name, f"scripts/postgres said {found!r}"
        return address

    def order(self, word):
        """`stop`, `start`, `pause` or `resume` the server; more words: scripts/postgres."""
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        said = self.child.stdout.readline().strip()
        assert said.startswith("done"), said
        return said.removeprefix("done").strip()

    def ask(self, database, text, server=None):
        """The rows that psql prints."""
        host, port = (server or self.server).split(":")
        done = subprocess.run(
            [tool("psql"), "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "latchkey", "-d", database, "-Atqf", "-"],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line.split("|") for line in done.stdout.splitlines()]

    def make(self):
        """A new database; answers its name."""
        name = f"db_{uuid.uuid4().hex[:12]}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return name

    def close(self):
        self.child.stdin.close()
        self.child.wait(30)


class Cluster:
    """Replicas of one connector, the simulated cloud, and the database that they share.

    With `lines` each replica has a line of its own to the database and one to the cloud: `lines[replica]`,
    `ways[replica]`.
    """

    def __init__(
        self,
        binary,
        folder,
        protocol,
        postgres,
        replicas=2,
        lines=False,
        simulate=(),
        database=None,
        start=True,
        people=0,
        pooled=False,
        upstream=None,
        journal=False,
        **changes,
    ):
        self.postgres, self.protocol = postgres, protocol
        self.database = database or postgres.make()
        args = [binary, "simulate", "--listen", "127.0.0.1:0", *simulate]
        self.cloud = Simulator(Process(args, folder / "simulator.log"))
        self.replicas, self.clients, self.lines, self.ways = [], {}, {}, {}
        server = postgres.pooler if pooled else postgres.server
        for number in range(replicas):
            home = folder / f"replica-{number}"
            home.mkdir()
            line, way = (Line(server), Line(self.cloud.base_url.split("//")[1])) if lines else (None, None)
            address = line.address if line else server
            ledger = {"kind": "postgres", "url": f"postgres://latchkey@{address}/{self.database}"}
            if journal:
                ledger["journal"] = str(home / "journal")
            replica = Connector(binary, self.cloud, home, **merged({"ledger": ledger}, changes))
            (integration,) = replica.config["integrations"]
            integration["upstream"] = upstream or {}
            if way:
                integration["base_url"] = f"http://{way.address}"
            replica.configure(replica.config)
            self.replicas.append(replica)
            self.lines[replica], self.ways[replica] = line, way
        self.deployment = self.cloud.organization()["deployments"][0]["id"]
        # Those who are there before the replicas are in their directories from the start.
        self.people = [self.cloud.person() for _ in range(people)]
        if start:
            self.start()

    def start(self):
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            self.meet(replica)

    def meet(self, replica):
        """Waits until a replica that was started is ready, and makes a client of it."""
        eventually(replica.is_ready, seconds=30)
        if replica in self.clients:
            self.clients.pop(replica).close()
        self.clients[replica] = self.protocol.client(replica.grpc)

    def name(self, replica):
        return re.search(r"\S+-[0-9a-f]{12}", self._line(replica)).group().split("=")[-1].strip('"')

    def _line(self, replica):
        """What it said about itself when it was last started."""
        return [line for line in replica.log.splitlines() if "Shares the ledger" in line][-1]

    def claim(self):
        """Who holds the claim that stands, and its epoch."""
        rows = self.postgres.ask(
            self.database, "SELECT holder, epoch FROM ownership WHERE holder <> '' AND deadline > clock_timestamp()"
        )
        return (rows[0][0], int(rows[0][1])) if rows else None

    def owner(self):
        """The replica that works."""
        holder, _ = eventually(self.claim, seconds=15)
        return next(replica for replica in self.replicas if self.name(replica) == holder)

    def is_owner(self, replica):
        return (self.claim() or ("",))[0] == self.name(replica)

    def others(self, replica):
        return [other for other in self.replicas if other is not replica]

    def grant(self, replica, person, seconds, wait="ACTIVE", **more):
        return self.clients[replica].grant(person, ROLE, self.deployment, seconds=seconds, wait=wait, **more)

    def pause(self, replica):
        replica.process.child.send_signal(signal.SIGSTOP)

    def resume(self, replica):
        replica.process.child.send_signal(signal.SIGCONT)

    def close(self, drop=True):
        for client in self.clients.values():
            client.close()
        for replica in self.replicas:
            if replica.process is not None:
                self.resume(replica)
                replica.kill()
        for line in (*self.lines.values(), *self.ways.values()):
            if line is not None:
                line.close()
        self.cloud.process.kill()
        if drop:
            self.postgres.ask("postgres", f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")


def gone(cloud, people):
    held = {person.user_id: cloud.held(person) for person in people}
    return not any(held.values())


class Watch:
    """Every call that arrives at the simulated cloud, collected while it goes on: its log keeps only the last ones."""

    def __init__(self, cloud):
        self.cloud, self.seen = cloud, {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        while not self._stop.wait(0.5):
            try:
                self.look()
            except requests.RequestException:
                # The cloud is gone: the test ended before it asked.
                return

    def look(self):
        for call in self.cloud.calls():
            self.seen[call["seq"]] = call

    def end(self):
        """All calls, oldest first."""
        self._stop.set()
        self._thread.join(10)
        self.look()
        calls = [self.seen[place] for place in sorted(self.seen)]
        assert not calls or len(calls) == calls[-1]["seq"] - calls[0]["seq"] + 1, "calls were missed"
        return calls
