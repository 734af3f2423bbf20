"""Few file descriptors and little memory: callers are turned away, revocations keep what they need.

Rows F49, F56 (connections only) and F57 of docs/faults.md.
"""

import re
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from harness import eventually, now, run

pytestmark = pytest.mark.beside

def limited(files):
    """A command that runs another with so few files."""
    return ("/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")


def crowd(address, size):
    """Connections that say nothing, as many as the kernel takes."""
    host, port = address.rsplit(":", 1)
    made = []
    for _ in range(size):
        made.append(socket.create_connection((host, int(port)), timeout=5))
    return made


def test_callers_cannot_use_up_the_files_that_revocations_need(make_bench):
    bench = make_bench(start=False, limits={"handshake_timeout": "60s"})
    bench.start(prefix=limited(68))
    cloud, client = bench.cloud, bench.client
    assert "Fewer callers may connect than configured" in bench.connector.log
    people = [cloud.person() for _ in range(6)]
    grants = [client.grant(person, "viewer", cloud.deployment("staging"), seconds=4) for person in people]
    sockets = crowd(bench.connector.grpc, 60) + crowd(bench.connector.http.removeprefix("http://"), 60)
    try:
        # Whoever connected waits in the queue of the listener until it is looked at.
        eventually(lambda: re.search("(was|were) turned away", bench.connector.log), seconds=10)
        # The cloud closes what is idle, so that the removals need new connections.
        cloud.faults({"action": {"type": "drop_before_apply"}, "times": 6})
        for person in people:
            eventually(lambda person=person: not cloud.held(person), seconds=20)
        assert "Too many open files" not in bench.connector.log
    finally:
        for each in sockets:
            each.close()
    for grant in grants:
        client.wait_for(grant, "ENDED", seconds=20)
    fresh = bench.protocol.client(bench.connector.grpc)
    eventually(lambda: fresh.serving() == "SERVING", seconds=10)
    fresh.close()


def test_the_accept_loop_survives_having_no_file_at_all(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    person = cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    pid = bench.connector.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Not one more than are open.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))
    sockets = crowd(bench.connector.grpc, 3)
    eventually(lambda: "Accepting a gRPC connection failed" in bench.connector.log, seconds=10)
    # The connections to the cloud that are open serve the removal.
    eventually(lambda: not cloud.held(person), seconds=15)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    for each in sockets:
        each.close()
    fresh = bench.protocol.client(bench.connector.grpc)
    eventually(lambda: fresh.state(grant) == "ENDED", seconds=20)
    fresh.close()


def test_too_few_files_to_work_with_are_refused_with_the_remedy(make_bench):
    bench = make_bench(start=False)
    done = run(*limited(40), bench.binary, "serve", "--config", bench.connector.config_file, seconds=20)
    assert done.returncode == 1 and "ulimit -n" in done.stderr, done.stderr
    assert not done.stdout.strip()


def peak_mib(pid):
    text = open(f"/proc/{pid}/status").read()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1024


def test_a_flood_of_grants_for_later_takes_a_bounded_amount_of_memory(make_bench):
    """What is not due is not held: a thousand waiting grants look like two hundred."""
    bench = make_bench(limits={"requests_per_second": 5000, "burst": 5000})
    client, cloud = bench.client, bench.cloud
    staging, starts = cloud.deployment("staging"), now() + timedelta(hours=6)
    people = [cloud.person() for _ in range(40)]

    def ask(number):
        spec = client.pb.spec(people[number % len(people)], "viewer", staging, seconds=60, starts_at=starts)
        client.create(spec, f"later-{number}", wait="ACCEPTED")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))
        few = peak_mib(bench.connector.process.pid)
        list(pool.map(ask, range(200, 1000)))
    many = peak_mib(bench.connector.process.pid)
    assert many - few <= 24, (few, many)
    [row] = bench.connector.rows("SELECT COUNT(*) AS count FROM grants WHERE state = 'scheduled'")
    assert row["count"] == 1000
