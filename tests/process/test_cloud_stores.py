"""The key from Google and Azure: the official SDKs against stores that are played on loopback."""

import base64
import http.server
import json
import threading
import urllib.parse

import pytest
from harness import eventually, run

from .test_secrets import _grants_again, assert_hidden, key_id, new_key, works

TOKEN = "token-of-the-cloud-which-nobody-else-may-see"
ASSERTION = "assertion-of-the-cluster-which-nobody-else-may-see"


class Store:
    """Both stores, and what gives out their tokens, behind one port: `content` is what they hold."""

    def __init__(self):
        self.content, self.status = None, 200
        self.asked = []
        played = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body, **headers):
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = urllib.parse.parse_qs(body)
                fits = self.path == "/tenant-1/oauth2/v2.0/token" and form["client_assertion"] == [ASSERTION]
                given = {"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": TOKEN}
                self.answer(200 if fits else 400, given if fits else {"error_codes": [1], "error_description": body})

            def do_GET(self):
                path = urllib.parse.urlsplit(self.path).path
                played.asked.append(path)
                if path.startswith("/computeMetadata/"):
                    given = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
                    found = path.endswith("/token") and self.headers["Metadata-Flavor"] == "Google"
                    self.answer(200 if found else 404, given if found else {})
                elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                    challenge = 'Bearer authorization="https://login.test/tenant-1", resource="https://vault.azure.net"'
                    self.answer(401, {}, WWW_Authenticate=challenge)
                elif played.status != 200:
                    self.answer(played.status, {"error": {"code": played.status, "message": f"no, {TOKEN}"}})
                elif path.endswith("/secrets/elastic-key/versions/latest:access"):
                    data = base64.b64encode(played.content.encode()).decode()
                    self.answer(200, {"name": "n", "payload": {"data": data}})
                elif path == "/secrets/elastic-key/":
                    self.answer(200, {"id": "i", "value": played.content})
                else:
                    self.answer(404, {"error": {"code": 404}})

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def store():
    store = Store()
    yield store
    store.close()


@pytest.fixture(params=["google", "azure"])
def cloud_bench(request, make_bench, store, tmp_path_factory):
    """A pair whose key is in a cloud, logging at the most verbose level, and the environment of its pod."""
    pod = tmp_path_factory.mktemp("pod")
    if request.param == "google":
        source = {
            "google_secret_manager": {
                "project": "access",
                "secret": "elastic-key",
                "endpoint_url": f"http://{store.address}",
            }
        }
        env = {"GCE_METADATA_HOST": store.address, "HOME": str(pod)}
    else:
        token = pod / "token"
        token.write_text(ASSERTION)
        source = {"azure_key_vault": {"vault_url": f"http://{store.address}", "secret": "elastic-key"}}
        env = {
            "AZURE_AUTHORITY_HOST": f"https://{store.address}",
            "AZURE_TENANT_ID": "tenant-1",
            "AZURE_CLIENT_ID": "client-1",
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
        }
    bench = make_bench(start=False, log={"filter": "trace"})
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    config["integrations"] = [{**integration, "secret": source}]
    bench.connector.configure(config)
    bench.connector.key_file.unlink()
    return bench, env


def test_a_key_that_is_replaced_in_the_store_heals_by_itself_and_shows_nowhere(store, cloud_bench):
    bench, env = cloud_bench
    cloud = bench.cloud
    old = cloud.api_key
    store.content = json.dumps({"api_key": old})
    bench.start(env)
    works(bench)

    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=3)
    _, new = new_key(cloud)
    store.content = new
    cloud.control("DELETE", f"keys/{key_id(cloud, old)}")
    bench.client.wait_for(grant, "ENDED", seconds=40)
    assert cloud.held(person) == set()
    eventually(lambda: _grants_again(bench), seconds=40, every=0.5)
    works(bench)
    assert_hidden(bench, old, new, TOKEN, ASSERTION)


def test_doctor_names_the_remedy_and_rotation_is_refused(store, cloud_bench):
    bench, env = cloud_bench
    config = bench.connector.config_file

    def doctor():
        done = run(bench.binary, "doctor", "--config", config, env=env, seconds=60)
        said = done.stdout + done.stderr
        assert TOKEN not in said and ASSERTION not in said
        return done.returncode, said

    store.content = bench.cloud.api_key
    status, said = doctor()
    assert status == 0, said
    for refusal, words in [
        (403, ("secretAccessor", "Key Vault Secrets User")),
        (404, ("gcloud secrets versions add", "az keyvault secret set")),
        (503, ("asks again by itself",)),
    ]:
        store.status = refusal
        status, said = doctor()
        assert status != 0 and any(word in said for word in words), said
    store.close()
    status, said = doctor()
    assert status != 0 and ("metadata server" in said or "`vault_url`" in said), said

    written = dict(bench.connector.config)
    [integration] = written["integrations"]
    written["integrations"] = [{**integration, "rotation": {"every": "30d"}}]
    bench.connector.configure(written)
    done = run(bench.binary, "check-config", "--config", config, env=env)
    assert done.returncode != 0
    assert "integrations[0].rotation.every" in done.stdout + done.stderr
