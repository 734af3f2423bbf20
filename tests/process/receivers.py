"""Places that the audit is delivered to, on loopback: they keep what they get and fail as they are told."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """A server that remembers every request; `before` and `after` may answer in its place (a status), or do harm."""

    def __init__(self, tls=None):
        """`tls` is the paths of a certificate and its key."""
        self.scheme = "https" if tls else "http"
        self.lock = threading.Lock()
        self.requests = 0
        self.before = lambda number: None
        self.after = lambda number: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, text = receiver.handle(self, body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # A handshake of its own for each connection, so that a bad one holds up nobody.
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, request, body):
        with self.lock:
            self.requests += 1
            number = self.requests
        status = self.before(number)
        if status is not None:
            return status, b"{}"
        with self.lock:
            answer = self.keep(request, body)
        status = self.after(number)
        return (status, b"{}") if status is not None else (200, json.dumps(answer).encode())

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Webhook(Receiver):
    """Keeps CloudEvents whose signature is good."""

    KEY = bytes(range(32))
    SECRET = "whsec_" + base64.b64encode(KEY).decode()

    def __init__(self, tls=None):
        super().__init__(tls)
        self.events = []
        self.ids = []

    def keep(self, request, body):
        name = request.headers["webhook-id"]
        signed = f"{name}.{request.headers['webhook-timestamp']}.".encode() + body
        tag = base64.b64encode(hmac.new(self.KEY, signed, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{tag}"
        found = json.loads(body)
        self.events.extend(found if isinstance(found, list) else [found])
        self.ids.append(name)
        return {}

    @property
    def sequences(self):
        with self.lock:
            return [int(event["sequence"]) for event in self.events]


class Elasticsearch(Receiver):
    """A data stream: a document that is there is not created again."""

    KEY = "a2V5OnNlY3JldA=="

    def __init__(self):
        super().__init__()
        self.documents = {}
        self.conflicts = 0

    def keep(self, request, body):
        assert request.headers["authorization"] == f"ApiKey {self.KEY}"
        assert request.path.startswith("/logs-latchkey.audit-default/_bulk")
        lines = [json.loads(line) for line in body.decode().splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            name = action["create"]["_id"]
            is_new = name not in self.documents
            self.documents.setdefault(name, document)
            self.conflicts += not is_new
            items.append({"create": {"status": 201 if is_new else 409}})
        return {"errors": False, "items": items}

    @property
    def sequences(self):
        with self.lock:
            return [document["event"]["sequence"] for document in self.documents.values()]
