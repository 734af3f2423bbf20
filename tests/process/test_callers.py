"""The real binary behind TLS: asked by Python's TLS client, by its own command line, with tokens of a real provider."""

import base64
import datetime
import ipaddress
import socket
import ssl
import sys
from urllib.parse import parse_qs, urlparse

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import Process, eventually, run

PLANE = "spiffe://acme/plane"


def _now():
    return datetime.datetime.now(datetime.timezone.utc)


class Authority:
    """An authority that signs certificates into files."""

    def __init__(self, folder, name):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key.public_key(), 1)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.path = self._put(f"{name}.crt", self.certificate)

    def _builder(self, subject, key, days):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - datetime.timedelta(days=2))
            .not_valid_after(_now() + datetime.timedelta(days=days))
        )

    def _put(self, name, certificate):
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, name, *names, days=1):
        """A certificate and key with these names, in files."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key.public_key(), days)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        certificate = builder.sign(self.key, hashes.SHA256())
        path = self.folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self._put(f"{name}.crt", certificate), path


def shake(address, authority, identity=None):
    """Shakes hands as a TLS client; answers the protocol, or None where the other side ends it."""
    context = ssl.create_default_context(cafile=authority.path)
    context.set_alpn_protocols(["h2"])
    if identity is not None:
        context.load_cert_chain(*identity)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                # In TLS 1.3 a refusal of our certificate comes after our own last word: the first read tells.
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                return secure.selected_alpn_protocol() if secure.recv(9) else None
        except (ssl.SSLError, ConnectionError):
            return None


@pytest.fixture
def pki(tmp_path):
    """A server with a certificate, and an authority of clients."""
    server, clients = Authority(tmp_path, "server"), Authority(tmp_path, "clients")
    own = server.issue("own", x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return server, clients, {"certificate": str(own[0]), "key": str(own[1])}


def test_a_python_client_gets_in_with_the_right_certificate_and_only_with_it(make_bench, tmp_path, pki):
    server, clients, tls = pki
    plane = clients.issue("plane", x509.UniformResourceIdentifier(PLANE))
    old = clients.issue("old", x509.UniformResourceIdentifier(PLANE), days=-1)
    unmapped = clients.issue("unmapped", x509.UniformResourceIdentifier("spiffe://acme/nobody"))
    foreign = Authority(tmp_path, "foreign").issue("stranger", x509.UniformResourceIdentifier(PLANE))
    caller = {"name": "plane", "role": "control-plane", "certificate": {"spiffe_id": PLANE}}
    bench = make_bench(listen={"tls": {**tls, "client_ca": str(clients.path)}}, callers=[caller])
    address = bench.connector.grpc
    assert shake(address, server, plane) == "h2"
    assert shake(address, server) is None
    assert shake(address, server, old) is None
    assert shake(address, server, foreign) is None

    def ask(identity, *command):
        options = ["--server", f"https://{address}", "--tls-ca", server.path]
        options += ["--tls-cert", identity[0], "--tls-key", identity[1]]
        return run(bench.binary, *command, *options)

    assert ask(plane, "limits").returncode == 0
    said = ask(unmapped, "limits")
    assert said.returncode != 0 and "no caller is configured" in said.stderr, said
    said = ask(plane, "overdue")
    assert said.returncode == 3 and "operator" in said.stderr, said


PROVIDER = """
import sys, threading
from oidc_provider_mock import run_server_in_thread
with run_server_in_thread(port=int(sys.argv[1])) as server:
    print('{"port": %d}' % server.server_port, flush=True)
    threading.Event().wait()
"""


def issue(base, client, subject):
    """A token of the provider for a client, as a browser and that client get it."""
    back = "http://localhost/back"
    asked = {"client_id": client, "redirect_uri": back, "response_type": "code", "scope": "openid"}
    answer = requests.post(
        f"{base}/oauth2/authorize", params=asked, data={"sub": subject}, allow_redirects=False, timeout=10
    )
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
    exchange |= {"client_id": client, "client_secret": "x"}
    return requests.post(f"{base}/oauth2/token", data=exchange, timeout=10).json()["id_token"]


def test_tokens_of_a_real_provider_are_taken_and_a_rotated_key_needs_no_restart(make_bench, tmp_path, pki):
    server, _, tls = pki
    provider = Process([sys.executable, "-W", "ignore", "-c", PROVIDER, "0"], tmp_path / "provider.log")
    try:
        port = provider.ready["port"]
        base = f"http://localhost:{port}"
        caller = {"name": "plane", "role": "control-plane", "token": {"issuer": base, "subject": "plane-1"}}
        bench = make_bench(
            listen={"tls": tls, "oidc": [{"issuer": base, "audience": "latchkey"}]}, callers=[caller]
        )

        def ask(token):
            file = tmp_path / "token"
            file.write_text(token)
            options = ["--server", f"https://{bench.connector.grpc}", "--tls-ca", server.path]
            return run(bench.binary, "limits", *options, "--token-file", file)

        assert ask(issue(base, "latchkey", "plane-1")).returncode == 0
        assert "no caller is configured" in ask(issue(base, "latchkey", "somebody")).stderr
        assert "another audience" in ask(issue(base, "elsewhere", "plane-1")).stderr
        header, claims, _ = issue(base, "latchkey", "plane-1").split(".")
        unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        assert "algorithm" in ask(f"{unsigned}.{claims}.").stderr
        # Another key at the issuer: it starts anew on the same port and makes one.
        provider.kill()
        provider = Process([sys.executable, "-W", "ignore", "-c", PROVIDER, str(port)], tmp_path / "provider.log")
        fresh = issue(base, "latchkey", "plane-1")
        eventually(lambda: ask(fresh).returncode == 0, seconds=20)
        assert header
    finally:
        provider.kill()
