"""Every secret that a connector can hold, hunted through everything that it writes and shows at the most verbose level."""

import base64
import datetime
import ipaddress
import json
import re
import socket
import socketserver
import struct
import sys
import threading

import pytest
import requests
import yaml
from cryptography import x509
from grpc_client.protocol import refusal_of
from harness import Process, connector_config, eventually, run, write_key

from .canary import Hunt, files, living, offline
from .cluster import Postgres
from .openbao import OpenBao
from .receivers import Elasticsearch, Webhook
from .test_callers import PROVIDER, Authority, issue
from .test_secrets import key_id, new_key

TRACE = {"filter": "trace"}


@pytest.fixture
def openbao(tmp_path):
    folder = tmp_path / "openbao"
    folder.mkdir()
    server = OpenBao(folder)
    yield server
    server.close()


@pytest.fixture
def receivers():
    made = [Webhook(), Elasticsearch()]
    yield made
    for each in made:
        each.close()


def secret(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o400)
    return {"file": {"path": str(path)}}


def made(binary, *words):
    done = run(binary, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def whole(openbao, receivers, make_bench, tmp_path, hunt):
    """A connector that holds every secret at once but those of its listener and of a database server."""
    bench = make_bench(start=False, log=TRACE, sweeps={"audit_seal": "* * * * * *"})
    binary, apart = bench.binary, tmp_path / "apart"
    apart.mkdir()
    webhook, elastic = receivers
    seal = json.loads(made(binary, "audit", "keygen", "--output", "json"))
    hunt.add("the key that seals the audit", seal["signing_key"])
    hunt.add("the secret of the webhook", Webhook.SECRET.removeprefix("whsec_"))
    hunt.add("the key of the sink", Elasticsearch.KEY)
    hunt.add("the Elastic Cloud key", bench.cloud.api_key)
    hunt.add("the secret id", openbao.secret_id_file.read_text())
    hunt.add("the unseal key", openbao.unseal_key)
    public = {}
    for kind in ("approval", "break-glass"):
        (apart / f"{kind}.pem").write_text(made(binary, kind, "keygen", "--key", apart / f"{kind}.key"))
        public[kind] = str(apart / f"{kind}.pem")
        private = "".join((apart / f"{kind}.key").read_text().splitlines()[1:-1])
        hunt.add(f"the private key of {kind}", private)
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    config["integrations"] = [{**integration, "secret": openbao.source()}]
    config["audit"] = {
        "signing_key": secret(apart, "seal", seal["signing_key"]),
        "sinks": [
            {"name": "hook", "webhook": {"url": webhook.url, "secret": secret(apart, "hook", Webhook.SECRET)}},
            {"name": "elastic", "elasticsearch": {"url": elastic.url, "api_key": secret(apart, "es", elastic.KEY)}},
        ],
    }
    config["approvals"] = {
        "approvers": [{"name": "bob", "person": "bob@example.com", "key_file": public["approval"]}]
    }
    config["break_glass"] = {"keys": [{"name": "safe", "key_file": public["break-glass"]}]}
    bench.connector.configure(config)
    bench.connector.key_file.unlink()
    openbao.put(bench.cloud.api_key)
    bench.start()
    return bench, apart


def sealed_texts(bench, apart, person, hunt):
    """A break-glass token and an approval for this person, with the request that the approval is of."""
    place = f"deployment/{bench.cloud.deployment('staging')}"
    issued = made(
        bench.binary, "break-glass", "issue", "--key", apart / "break-glass.key", "--name", "safe",
        "--integration", "elastic", "--member", person.email, "--role", "deployment-viewer", "--on", place,
        "--max-duration", "1h", "--not-after", "+1d", "--reason", "drill",
    )  # fmt: skip
    request = apart / "request.yaml"
    asked = {
        "kind": "create", "request_id": "canary-approved", "integration": "elastic", "beneficiary": person.email,
        "role": "deployment-viewer", "targets": [place], "duration_s": 2,
    }  # fmt: skip
    request.write_text(yaml.safe_dump(asked))
    signed = made(
        bench.binary, "approval", "sign", "--key", apart / "approval.key", "--approver", "bob", "--request", request
    )
    return hunt.token("the break-glass token", issued).strip(), hunt.token("the approval", signed).strip()


def test_no_secret_shows_through_a_whole_life_with_everything_going_wrong(
    make_bench, tmp_path, openbao, receivers
):
    hunt = Hunt()
    bench, apart = whole(openbao, receivers, make_bench, tmp_path, hunt)
    cloud, client, pb = bench.cloud, bench.client, bench.protocol
    staging = cloud.deployment("staging")
    person = cloud.person()
    token, approval = sealed_texts(bench, apart, person, hunt)
    told = []

    def refused(call, *args, **kwargs):
        try:
            told.append(str(call(*args, **kwargs)))
        except Exception as error:  # refusals are what is looked at, whatever they are
            told.append(refusal_of(error).text if hasattr(error, "code") else str(error))

    # What goes well: a grant by approval, one by token, one that is revoked.
    request = pb.CreateGrantRequest(
        request_id="canary-approved",
        spec=pb.spec(person.email, "deployment-viewer", staging, seconds=2, integration="elastic"),
        wait=pb.GRANT_WAIT_ACTIVE,
        approvals=[approval],
    )
    grant = client.access.CreateGrant(request, timeout=30).grant
    client.wait_for(grant, "ENDED")
    spec = pb.spec(person.email, "deployment-viewer", staging, seconds=60, integration="elastic", justification="drill")
    emergency = pb.CreateGrantRequest(
        request_id="canary-emergency", spec=spec, wait=pb.GRANT_WAIT_ACTIVE, break_glass_token=token
    )
    opened = client.access.CreateGrant(emergency, timeout=30).grant
    client.revoke(opened, reason="over")
    client.wait_for(opened, "ENDED")
    # What is refused: both again, altered, and in the place of the other.
    for number, (approvals, glass) in enumerate(
        [([], token), ([approval], ""), ([token], ""), ([], approval), ([approval[:-4] + "AAAA"], token[:-4] + "AAAA")]
    ):
        again = pb.CreateGrantRequest(
            request_id=f"canary-{number}", spec=spec, wait=pb.GRANT_WAIT_ACCEPTED,
            approvals=approvals, break_glass_token=glass,
        )  # fmt: skip
        refused(client.access.CreateGrant, again, timeout=20)
    # Upstream refuses, repeats the key to us, sends us away, breaks off, is gone.
    key = cloud.api_key
    for action in (
        {"type": "fail", "status": 401, "message": f"key {key} is unknown", "html": True},
        {"type": "fail", "status": 403, "message": key},
        {"type": "redirect", "location": f"http://127.0.0.1:9/{key}"},
        {"type": "garbage_html"},
        {"type": "drop_before_apply"},
    ):
        cloud.faults({"action": action})
        refused(client.grant, cloud.person().email, "viewer", staging, timeout=5)
    cloud.faults()
    # The key is replaced while the store is sealed.
    _, new = new_key(cloud)
    hunt.add("the next Elastic Cloud key", new)
    openbao.put(new)
    openbao.seal()
    cloud.control("DELETE", f"keys/{key_id(cloud, key)}")
    refused(client.grant, cloud.person().email, "viewer", staging, timeout=5)
    openbao.unseal()
    # A receiver that refuses, with words.
    receivers[0].before = receivers[1].before = lambda _: 401
    eventually(lambda: _granted(bench), seconds=60, every=0.5)
    eventually(lambda: "did not take events" in bench.connector.log, seconds=20)
    receivers[0].before = receivers[1].before = lambda _: None
    eventually(lambda: '"to":"ended"' in run(bench.binary, "audit", "export", "--config", bench.connector.config_file).stdout)

    looked = hunt.search(living(bench)) + hunt.search(offline(bench, tmp_path))
    hunt.search({"refusals": "\n".join(told)})
    assert looked > 1_000_000 and len(told) >= 9, (looked, len(told))
    assert " TRACE " in bench.connector.log and "hyper" in bench.connector.log, "it was verbose"
    # Tokens that OpenBao gave at the logins are nobody's to see.
    assert not re.search(r"\b(s|hvs)\.[A-Za-z0-9]{20,}", bench.connector.log)
    # A dump of memory would hold all of them.
    limits = living(bench)["/proc/PID/limits"].decode()
    assert re.search(r"Max core file size\s+0\s+0", limits), limits
    # Stopped, and started again with secrets that are no good.
    bench.connector.stop()
    for name in ("seal", "hook", "es"):
        file = apart / name
        file.chmod(0o600)
        file.write_text(hunt.add(f"the broken {name}", f"broken-{name}-canary-of-secrets"))
    openbao.secret_id_file.write_text(hunt.add("the wrong secret id", "0000-wrong-secret-id-canary"))
    bench.start(until_ready=False)
    eventually(lambda: requests.get(f"{bench.connector.http}/healthz", timeout=10).ok)
    refused(bench.client.grant, person, "viewer", staging, timeout=5)
    hunt.search(living(bench))
    hunt.search(offline(bench, tmp_path) | {"refusals": "\n".join(told)})


def _granted(bench):
    try:
        grant = bench.client.grant(bench.cloud.person(), "viewer", bench.cloud.deployment("staging"), seconds=1)
        bench.client.wait_for(grant, "ENDED")
    except Exception:  # whatever a connector without a key answers
        return False
    return True


def test_a_secret_that_a_caller_puts_into_the_wrong_field_reaches_neither_log_nor_refusal(make_bench):
    bench = make_bench(log=TRACE)
    pb, client, staging = bench.protocol, bench.client, bench.cloud.deployment("staging")
    person, hunt = bench.cloud.person(), Hunt()
    # The grammar of an id, so that it gets as far as it can.
    word = hunt.add("the misplaced secret", "canary-5f0c1d7e9b2a4866-misplaced")
    mail = f"{word}@example.com"
    free = {"requester": word, "justification": word}
    spec = pb.spec(person, "viewer", staging)
    told = []

    def ask(call, message):
        try:
            call(message, timeout=10)
            told.append("")
        except Exception as error:  # refusals are what is looked at
            told.append(refusal_of(error).text)

    for number, bad in enumerate(
        [
            pb.spec(person, word, staging, **free),
            pb.spec(person, "viewer", word, **free),
            pb.spec(person, "viewer", pb.project("security", word), **free),
            pb.spec(word, "viewer", staging, **free),
            pb.spec(mail, "viewer", staging, **free),
            pb.spec(person, "viewer", staging, integration=word, **free),
            pb.spec(person, "viewer", staging, application_roles=pb.ApplicationRoles(names=[word]), **free),
            pb.spec(person, "viewer", staging, justification=word + "\n"),
            pb.spec(person, "viewer", staging, seconds=1, **free),
        ]
    ):
        for wait in (pb.GRANT_WAIT_ACTIVE, pb.GRANT_WAIT_UNSPECIFIED):
            ask(client.access.CreateGrant, pb.CreateGrantRequest(request_id=f"w{number}-{wait}", spec=bad, wait=wait))
        ask(client.access.PlanGrant, pb.PlanGrantRequest(spec=bad))
    sealed = {"spec": spec, "wait": pb.GRANT_WAIT_ACCEPTED}
    for number, more in enumerate(
        [{"approvals": [word]}, {"approvals": [f"{word}.{word}.{word}"]}, {"break_glass_token": word}]
    ):
        ask(client.access.CreateGrant, pb.CreateGrantRequest(request_id=f"s{number}", **sealed, **more))
    ask(client.access.CreateGrant, pb.CreateGrantRequest(request_id=word + "\x00", **sealed))
    ask(client.access.GetGrant, pb.GetGrantRequest(grant_id=word))
    ask(client.access.RevokeGrant, pb.RevokeGrantRequest(grant_id=word, reason=word, requester=word))
    ask(client.access.RevokeGrant, pb.RevokeGrantRequest(grant_request_id=word, reason=word, requester=word))
    ask(client.access.ListGrants, pb.ListGrantsRequest(page_token=word))
    ask(client.access.ListGrants, pb.ListGrantsRequest(filter=pb.GrantFilter(integration=word)))
    ask(client.access.ExplainAccess, pb.ExplainAccessRequest(member=pb.principal(word)))
    ask(client.directory.ListMembers, pb.ListMembersRequest(page_token=word))
    ask(client.audit.GetReceipt, pb.GetReceiptRequest(grant_id=word))
    for metadata in ([("authorization", f"Bearer {word}")], [("x-canary", word)], [("grpc-timeout", word)]):
        stub = client.channel.unary_unary("/latchkey.v1.ConnectorService/GetVersion")
        try:
            stub(b"", metadata=metadata, timeout=5)
        except Exception as error:  # as above
            told.append(refusal_of(error).text)
    for path in (f"/{word}/{word}", f"/latchkey.v1.AccessService/{word}"):
        try:
            client.channel.unary_unary(path)(word.encode(), timeout=5)
        except Exception as error:  # as above
            told.append(refusal_of(error).text)
    for page in (word, f"metrics?{word}", f"healthz/{word}"):
        told.append(requests.get(f"{bench.connector.http}/{page}", timeout=5).text)
    ids = {"members": word, "deployments": word}
    assert ids and len(told) > 40
    # What a caller wrote into its own request is kept in the ledger, for that is what it is for. Nowhere else.
    shown = {"metrics": bench.connector.metrics(), "refusals": "\n".join(told)}
    hunt.search(shown | {"the log": _without_what_callers_choose(bench.connector.log, word)})


def _without_what_callers_choose(log, word):
    """The log without ids that a caller chose: those are names of things, in the log so that it can be followed."""
    return re.sub(rf'\b(grant\.request|request\.id|request_id|path|uri)="?[^\s"]*{word}[^\s"]*', "", log)


def test_bearer_tokens_and_the_key_of_the_listener_show_nowhere(make_bench, tmp_path):
    hunt = Hunt()
    server = Authority(tmp_path, "server")
    own = server.issue("own", x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    hunt.add("the key of the listener", "".join(own[1].read_text().splitlines()[1:-1]))
    provider = Process([sys.executable, "-W", "ignore", "-c", PROVIDER, "0"], tmp_path / "provider.log")
    try:
        base = f"http://localhost:{provider.ready['port']}"
        caller = {"name": "plane", "role": "control-plane", "token": {"issuer": base, "subject": "plane-1"}}
        bench = make_bench(
            log=TRACE,
            listen={
                "tls": {"certificate": str(own[0]), "key": str(own[1])},
                "oidc": [{"issuer": base, "audience": "latchkey"}],
            },
            callers=[caller],
        )
        file = tmp_path / "token"
        options = ["--server", f"https://{bench.connector.grpc}", "--tls-ca", server.path, "--token-file", file]
        told = []

        def ask(token, *words):
            file.write_text(token)
            done = run(bench.binary, *words, *options)
            told.append(done.stdout + done.stderr)
            return done.returncode

        good = hunt.token("the bearer token", issue(base, "latchkey", "plane-1"))
        assert ask(good, "limits") == 0, told
        person = bench.cloud.person()
        place = f"deployment/{bench.cloud.deployment('staging')}"
        assert ask(good, "grant", person.email, "viewer", "--on", place, "--for", "1s") == 0, told
        stranger = hunt.token("the token of a stranger", issue(base, "latchkey", "somebody"))
        elsewhere = hunt.token("the token for elsewhere", issue(base, "elsewhere", "plane-1"))
        header, claims, signature = good.split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        bad = [stranger, elsewhere, f"{none}.{claims}.", f"{header}.{claims}.{signature[:-4]}AAAA", claims, signature]
        for token in bad:
            assert ask(token, "limits") != 0
        # In the wrong place: among the words of a command that is refused.
        hunt.search({"refusals": "\n".join(told)})
        shown = living(bench, options=options)
        hunt.search(shown)
        assert " TRACE " in bench.connector.log
        file.write_text(good)
    finally:
        provider.kill()


class _Database(socketserver.BaseRequestHandler):
    """Asks for a password in the clear, and refuses it: repeats it, unasked and in every part of the refusal."""

    def handle(self):
        def read():
            head = self._exactly(4)
            return self._exactly(struct.unpack(">I", head)[0] - 4)

        first = read()
        if first[:4] == struct.pack(">I", 80877103):
            self.request.sendall(b"N")
            read()
        self.request.sendall(b"R" + struct.pack(">II", 8, 3))
        self._exactly(1)
        got = read().rstrip(b"\0").decode()
        self.server.passwords.append(got)
        fields = {"S": "WARNING", "V": "WARNING", "C": "01000", "M": f"somebody knows {got}"}
        self._says(b"N", fields)
        refusal = {"M": f"password {got} of latchkey is wrong", "D": f"it was {got}", "H": f"try another than {got}"}
        self._says(b"E", {"S": "FATAL", "V": "FATAL", "C": "28P01", **refusal})

    def _says(self, kind, fields):
        said = b"".join(f"{name}{text}".encode() + b"\0" for name, text in fields.items()) + b"\0"
        self.request.sendall(kind + struct.pack(">I", len(said) + 4) + said)

    def _exactly(self, count):
        got = b""
        while len(got) < count:
            piece = self.request.recv(count - len(got))
            if not piece:
                raise ConnectionError
            got += piece
        return got


def test_the_password_of_the_database_shows_nowhere(latchkey_bin, tmp_path, make_connector, simulator):
    hunt = Hunt()
    password = hunt.add("the password", "canary-password-1d7e9b2a4866")
    file = tmp_path / "password"
    file.write_text(password)
    server = Postgres()
    try:
        server.ask("postgres", "CREATE DATABASE canary")
        ledger = {"kind": "postgres", "password_file": str(file)}
        connector = make_connector(
            simulator, log=TRACE, ledger={**ledger, "url": f"postgres://latchkey@{server.server}/canary"}
        )
        connector.start()
        eventually(connector.is_ready, seconds=30)
        config = ["--config", connector.config_file]
        shown = {"metrics": connector.metrics()}
        for words in (["doctor"], ["events"], ["check-config"], ["migrate"]):
            done = run(latchkey_bin, *words, *config)
            shown[" ".join(words)] = done.stdout + done.stderr
        server.order("stop")
        eventually(lambda: "WARN" in connector.log, seconds=20)
        hunt.search(shown | files(connector.folder, without=("api-key",)))
        connector.kill()
    finally:
        server.close()
    # A server that is sent it, and refuses it.
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Database) as refusing:
        refusing.daemon_threads = True
        refusing.passwords = []
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        host, port = refusing.server_address
        connector.configure({**connector.config, "ledger": {**ledger, "url": f"postgres://latchkey@{host}:{port}/x"}})
        shown = {}
        for words in (["serve"], ["doctor"], ["events"], ["migrate"], ["audit", "head"]):
            done = run(latchkey_bin, *words, "--config", connector.config_file, seconds=60)
            assert done.returncode != 0
            shown[" ".join(words)] = done.stdout + done.stderr
            # Doctor has words of its own for it.
            assert words == ["doctor"] or "password *** of latchkey is wrong" in done.stdout + done.stderr, done.stderr
        refusing.shutdown()
    assert password in refusing.passwords, "it was sent"
    hunt.search(shown)


# Where a secret might be pasted by mistake, as YAML.
MISPLACED = {
    "as the secret": "integrations: [{name: a, secret: SECRET}]",
    "as a place": "integrations: [{name: a, secret: {SECRET}}]",
    "as a place with a value": "integrations: [{name: a, secret: {SECRET: x}}]",
    "as a file": "integrations: [{name: a, secret: {file: SECRET}}]",
    "as a path": "integrations: [{name: a, secret: {file: {path: SECRET}}}]",
    "as a variable": "integrations: [{name: a, secret: {env: {name: SECRET}}}]",
    "as a name": "integrations: [{name: SECRET, secret: {env: {name: A}}}]",
    "twice as a name": "integrations: [{name: SECRET, secret: {env: {name: A}}}, {name: SECRET, secret: {env: {name: A}}}]",
    "as an organization": "integrations: [{name: a, organization_id: SECRET, secret: {env: {name: A}}}]",
    "in a base URL": "integrations: [{name: a, base_url: 'https://u:SECRET@h', secret: {env: {name: A}}}]",
    "as a list": "integrations: SECRET",
    "as a section": "SECRET: {}",
    "as a section without a value": "SECRET",
    "as a key beside others": "log: {filter: info, SECRET: x}",
    "as a filter": "log: {filter: 'latchkey=SECRET'}",
    "as a format": "log: {format: SECRET}",
    "as an address": "listen: {grpc: SECRET}",
    "as a duration": "engine: {drain: SECRET}",
    "as a cron line": "sweeps: {drift: 'SECRET'}",
    "as a role": "policy: {roles: [SECRET]}",
    "as a zone": "law: {zone: SECRET}",
    "in the address of the database": "ledger: {kind: postgres, url: 'postgres://latchkey:SECRET@h/db'}",
    "in the options of the database": "ledger: {kind: postgres, url: 'postgres://latchkey@h/db?password=SECRET'}",
    "as the database": "ledger: {kind: postgres, url: SECRET}",
    "as the password file": "ledger: {kind: postgres, url: 'postgres://latchkey@127.0.0.1/db', password_file: SECRET}",
    "as the signing key": "audit: {signing_key: SECRET}",
    "as the file of the signing key": "audit: {signing_key: {file: {path: SECRET}}}",
    "in the URL of a sink": "audit: {sinks: [{name: a, webhook: {url: 'https://u:SECRET@h/', secret: {env: {name: A}}}}]}",
    "in the query of a sink": "audit: {sinks: [{name: a, webhook: {url: 'http://h/?k=SECRET', secret: {env: {name: A}}}}]}",
    "as the secret of a sink": "audit: {sinks: [{name: a, webhook: {url: 'https://h/', secret: SECRET}}]}",
    "as an issuer": "listen: {oidc: [{issuer: 'http://SECRET', audience: a}]}",
    "as a caller": "callers: [{name: SECRET, role: SECRET, token: {issuer: SECRET, subject: SECRET}}]",
    "as an anchor": "integrations: *SECRET",
    "as a tag": "integrations: !SECRET x",
    "as a key twice": "log: {SECRET: 1, SECRET: 2}",
    "behind an open bracket": "integrations: [{name: a, secret: {env: SECRET",
    "behind a tab": "integrations:\n\tSECRET: x",
    "in an open quote": 'integrations: "SECRET',
    "as a merge": "<<: SECRET",
    "as a key of another kind": "? [SECRET]\n: x",
    "as a number": "limits: {connections: SECRET}",
}
SHAPES = {
    "an Elastic Cloud key": "essu_" + base64.b64encode(b"canary-of-a-cloud-key:5f0c1d7e9b2a").decode(),
    "a secret id": "5f0c1d7e-9b2a-4866-9d3f-0a1b2c3d4e5f",
    "a webhook secret": "whsec_Y2FuYXJ5LW9mLWEtd2ViaG9vay1zZWNyZXQ",
    "a token of a vault": "hvs.CAESIJcanaryOfAVaultToken123",
    "a password": "S3cret-canary-Passw0rd",
}


# Where the name of a key is told to whoever mistyped it.
AS_KEYS = ("as a place", "as a place with a value", "as a section", "as a key beside others", "as a key twice")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_in_the_wrong_place_of_the_configuration_is_not_repeated(latchkey_bin, tmp_path, shape):
    hunt = Hunt()
    text = hunt.add(shape, SHAPES[shape])
    number = list(SHAPES).index(shape)
    # Every place has its turn, and those where it matters what the secret looks like have one with each.
    places = {
        where: template
        for turn, (where, template) in enumerate(MISPLACED.items())
        if where in AS_KEYS or turn % len(SHAPES) == number
    }
    file = tmp_path / "latchkey.yaml"
    base = {"integrations": [{"name": "a", "secret": {"file": {"path": "/nonexistent/key"}}}]}
    shown, refused = {}, 0
    for where, template in places.items():
        body = template.replace("SECRET", text)
        if "integrations" not in template and ":" in template:
            body += "\n" + yaml.safe_dump(base)
        file.write_text(body)
        # Those that only a start would read are left to doctor.
        done = run(latchkey_bin, "check-config", "--config", file)
        shown[f"check-config, {where}"] = done.stdout + done.stderr
        refused += done.returncode == 64
    assert refused >= len(places) / 2, refused
    hunt.search(shown)
    file.write_text(MISPLACED["as a place"].replace("SECRET", text))
    for command in ("serve", "doctor", "events", "sweep"):
        done = run(latchkey_bin, command, "--config", file)
        assert done.returncode != 0
        hunt.search({command: done.stdout + done.stderr})


def test_a_secret_in_the_wrong_argument_is_not_repeated_by_what_asks_the_connector(latchkey_bin, tmp_path):
    """What the shell shows of a command line is out of our hands; what we print, log or send on is not."""
    hunt = Hunt()
    token = hunt.add("the token", "canary-5f0c1d7e9b2a4866-token")
    file = tmp_path / "token"
    file.write_text(token)
    shown = {}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for words in (
            ["limits", "--token-file", file],
            ["grant", "a@example.com", "viewer", "--for", "1h", "--token-file", file, "--break-glass-token", file],
            ["grant", "a@example.com", "viewer", "--for", "1h", "--approval", file],
            ["break-glass", "inspect", file],
            ["audit", "verify", "-", "--key", file],
            ["approval", "sign", "--key", file, "--approver", "a", "--request", file],
            ["break-glass", "issue", "--key", file, "--name", "a", "--integration", "a", "--member", "1", "--role",
             "viewer", "--on", "deployment/a", "--max-duration", "1h", "--not-after", "+1d", "--reason", "x"],
            ["policy", "check", "--config", file],
            ["policy", "test", file],
        ):  # fmt: skip
            done = run(latchkey_bin, "--server", address, "--timeout", "2s", *words, stdin="")
            assert done.returncode != 0, words
            shown[" ".join(map(str, words))] = done.stdout + done.stderr
    hunt.search(shown)
