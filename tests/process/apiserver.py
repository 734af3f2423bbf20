"""The part of a Kubernetes API server that the key's store uses: one Secret, read and merge-patched by version."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMESPACE, NAME, TOKEN = "latchkey", "elastic", "token-of-the-pod"
PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}"


def merged(into, patch):
    """RFC 7386."""
    if not isinstance(patch, dict) or not isinstance(into, dict):
        return patch
    out = dict(into)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name, {}), value)
    return out


class ApiServer:
    """A Secret with a version that rises with every change; a patch of another version is a conflict."""

    def __init__(self, folder, key):
        self.lock = threading.Lock()
        self.patches = []
        self.version = 41
        self.secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"team": "platform"}},
            "data": {"api_key": encoded(key), "other": encoded("stays")},
        }
        self.account = folder / "serviceaccount"
        self.account.mkdir()
        (self.account / "token").write_text(TOKEN)
        (self.account / "namespace").write_text(NAMESPACE)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(*server.handle(self, None))

            def do_PATCH(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*server.handle(self, json.loads(body)))

            def answer(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def handle(self, request, patch):
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"kind": "Status", "code": 401}
        if request.path != PATH:
            return 403, {"kind": "Status", "code": 403}
        with self.lock:
            if patch is not None:
                assert request.headers["Content-Type"] == "application/merge-patch+json"
                wanted = patch.get("metadata", {}).get("resourceVersion")
                if wanted is not None and wanted != str(self.version):
                    return 409, {"kind": "Status", "code": 409, "reason": "Conflict"}
                self.patches.append(patch)
                self.change(patch)
            return 200, self.shown()

    def change(self, patch):
        after = merged(self.secret, patch)
        after["metadata"].pop("resourceVersion", None)
        # A patch that changes nothing leaves the version, as the real one does.
        if after != self.secret:
            self.secret, self.version = after, self.version + 1

    def shown(self):
        metadata = {**self.secret["metadata"], "resourceVersion": str(self.version)}
        return {**self.secret, "metadata": metadata}

    def put(self, key):
        """Somebody else stores a key."""
        with self.lock:
            self.change({"data": {"api_key": encoded(key)}})

    @property
    def key(self):
        return base64.b64decode(self.secret["data"]["api_key"]).decode()

    def source(self):
        """The `secret` of an integration that reads from here."""
        host, port = self.http.server_address
        return {
            "kubernetes": {
                "name": NAME,
                "api_server": f"http://{host}:{port}",
                "service_account": str(self.account),
            }
        }

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def encoded(text):
    return base64.b64encode(text.encode()).decode()
