"""Where the key goes: to the configured address behind the right certificate, and nowhere else."""

import contextlib
import socket
import ssl
import threading

import pytest
from cryptography import x509
from harness import eventually
from process.test_callers import Authority


class Front:
    """A listener that counts who comes; with a certificate it ends TLS in front of the simulated cloud."""

    def __init__(self, identity=None, behind=None):
        self.came = self.refused = 0
        self.heard = b""
        self.behind = behind
        self.context = None
        if identity is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*identity)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                self.came += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        if self.context is None:
            return peer.close()
        try:
            peer = self.context.wrap_socket(peer, server_side=True)
        except (ssl.SSLError, OSError):
            self.refused += 1
            return None
        beyond = socket.create_connection(self.behind)
        threading.Thread(target=self._pump, args=(beyond, peer), daemon=True).start()
        return self._pump(peer, beyond, heard=True)

    def _pump(self, source, sink, heard=False):
        with contextlib.suppress(OSError, ssl.SSLError):
            while some := source.recv(1 << 16):
                if heard:
                    self.heard += some
                sink.sendall(some)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.close()

    def close(self):
        self.listener.close()


@pytest.fixture
def front():
    """Makes listeners and ends them after the test."""
    made = []

    def make(*args):
        made.append(Front(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()


def behind_tls(make_bench, front, identity):
    """A pair whose connector reaches the cloud as https://localhost, not started yet."""
    bench = make_bench(start=False)
    host, port = bench.cloud.base_url.removeprefix("http://").split(":")
    door = front(identity, (host, int(port)))
    config = bench.connector.config
    config["integrations"][0]["base_url"] = f"https://localhost:{door.port}"
    bench.connector.configure(config)
    return bench, door


def test_the_right_certificate_gets_the_key_and_serves(make_bench, front, tmp_path):
    trusted = Authority(tmp_path, "trusted")
    bench, door = behind_tls(make_bench, front, trusted.issue("right", x509.DNSName("localhost")))
    bench.start({"SSL_CERT_FILE": str(trusted.path)})
    assert f"ApiKey {bench.cloud.api_key}".encode() in door.heard


@pytest.mark.parametrize("wrong", ["authority", "name", "time"])
def test_a_server_that_is_not_elastic_cloud_hears_nothing(make_bench, front, tmp_path, wrong):
    trusted, other = Authority(tmp_path, "trusted"), Authority(tmp_path, "other")
    local = x509.DNSName("localhost")
    identity = {
        "authority": lambda: other.issue("wrong", local),
        "name": lambda: trusted.issue("wrong", x509.DNSName("elsewhere.example")),
        "time": lambda: trusted.issue("wrong", local, days=-1),
    }[wrong]()
    bench, door = behind_tls(make_bench, front, identity)
    bench.start({"SSL_CERT_FILE": str(trusted.path)}, until_ready=False)
    eventually(lambda: door.refused >= 2, seconds=30)
    assert not bench.connector.is_ready()
    assert door.heard == b""


def test_proxies_of_the_environment_are_not_used(make_bench, front):
    trap = front()
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxies = {spelt: f"http://127.0.0.1:{trap.port}" for name in names for spelt in (name, name.lower())}
    bench = make_bench(start=False)
    bench.start({**proxies, "NO_PROXY": "", "no_proxy": ""})
    person = bench.cloud.person()
    bench.client.grant(person.email, "viewer", bench.cloud.deployment("staging"), seconds=300)
    eventually(lambda: bench.cloud.held(person))
    assert trap.came == 0
