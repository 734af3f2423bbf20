"""TLS handshakes that lead nowhere, by the hundred: nobody else notices, and none of them goes on costing anything."""

import contextlib
import os
import pathlib
import socket
import ssl
import time

import pytest
from cryptography import x509
from process.test_callers import PLANE, pki, shake  # noqa: F401

MANY = 200
# How long what is over is watched, and the processor time that this may take.
WATCHED, BUSY = 0.5, 0.25
CLOSE_NOTIFY = bytes.fromhex("15 0303 0002 0100")
# What is made of a sound beginning.
BREAKS = {
    "a farewell": lambda hello: hello + CLOSE_NOTIFY,
    "a farewell in the middle of it": lambda hello: hello[: len(hello) // 2] + CLOSE_NOTIFY,
    "half of it": lambda hello: hello[: len(hello) // 2],
    "it twice": lambda hello: hello + hello,
    "noise": lambda hello: hello + os.urandom(512),
    "records of nothing": lambda hello: bytes.fromhex("16 0301 0000") * 200,
    "a length beyond every limit": lambda hello: hello[:6] + b"\xff\xff\xff" + hello[9:],
    "no TLS": lambda hello: b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
}


def hello():
    """The first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    talk = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        talk.do_handshake()
    return outgoing.read()


def processor_seconds(pid):
    """Processor time that a process has used (Linux)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def listener(make_bench, pki):  # noqa: F811
    """A connector behind TLS, its server's authority, and a certificate that gets in."""
    server, clients, tls = pki
    caller = {"name": "plane", "role": "control-plane", "certificate": {"spiffe_id": PLANE}}
    bench = make_bench(
        listen={"tls": {**tls, "client_ca": str(clients.path)}},
        callers=[caller],
        limits={"handshake_timeout": "2s"},
    )
    return bench, server, clients.issue("plane", x509.UniformResourceIdentifier(PLANE))


def test_handshakes_that_break_off_cost_nothing_afterwards_and_nobody_else(listener):
    bench, server, identity = listener
    host, port = bench.connector.grpc.rsplit(":", 1)
    for name, broken in BREAKS.items():
        held, sent = [], broken(hello())
        for number in range(MANY):
            peer = socket.create_connection((host, int(port)), timeout=10)
            with contextlib.suppress(ConnectionError):
                peer.sendall(sent)
            # Some go at once; some stay and say nothing more, until they are sent away.
            if number % 3:
                peer.close()
            else:
                held.append(peer)
        assert shake(bench.connector.grpc, server, identity) == "h2", f"{name}: others get in meanwhile"
        for peer in held:
            with contextlib.suppress(ConnectionError):
                while peer.recv(1 << 16):
                    pass
            peer.close()
        before = processor_seconds(bench.connector.process.pid)
        time.sleep(WATCHED)
        used = processor_seconds(bench.connector.process.pid) - before
        assert used < BUSY, f"{name}: {used} s for what is over"
    assert bench.connector.is_ready()
