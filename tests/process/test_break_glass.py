"""Break-glass, approvals and reviews against the real binary: callers with certificates, texts signed elsewhere.

Nothing here plays a control plane for the emergency: whoever holds a token asks the connector, and nobody else is
there.
"""

import base64
import ipaddress
import json
import uuid
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from harness import eventually, now, run

from .signing import Signer, b64, creation, prolonging
from .test_callers import Authority

HOUR = 3600
TOKENS = "latchkey.emergency-tokens-once-and-as-sealed"
APPROVALS = "latchkey.approvals-of-this-request-only"
ROLES = {
    "plane": "control-plane",
    "other": "control-plane",
    "oncall": "break-glass",
    "ops": "operator",
    "auditor": "auditor",
}


class House:
    """A connector behind mutual TLS, and everybody around it with a certificate of their own."""

    def __init__(self, make_bench, folder, **config):
        server, clients = Authority(folder, "server"), Authority(folder, "clients")
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        own = server.issue("own", x509.DNSName("localhost"), address)
        self.ca = server.path
        self.files = {name: clients.issue(name, x509.DNSName(f"{name}.example")) for name in ROLES}
        callers = [
            {"name": name, "role": role, "certificate": {"dns": f"{name}.example"}} for name, role in ROLES.items()
        ]
        tls = {"certificate": str(own[0]), "key": str(own[1]), "client_ca": str(clients.path)}
        self.bench = make_bench(start=False, listen={"tls": tls}, callers=callers, **config)
        self.clients = {}
        self.bench.start()

    def __getitem__(self, name):
        """The client of a caller."""
        if name not in self.clients:
            certificate, key = (path.read_bytes() for path in self.files[name])
            credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), key, certificate)
            made = self.bench.protocol.client(self.bench.connector.grpc, credentials)
            self.clients[name] = made
        return self.clients[name]

    def cli(self, name, *words):
        """A command of a caller."""
        certificate, key = self.files[name]
        options = ["--server", f"https://{self.bench.connector.grpc}", "--tls-ca", self.ca]
        options += ["--tls-cert", certificate, "--tls-key", key]
        return run(self.bench.binary, *words, *options)

    def restart(self):
        """kill -9, and up again on the same ledger."""
        self.close()
        self.bench.kill()
        self.bench.start()

    def close(self):
        for client in self.clients.values():
            client.close()
        self.clients = {}

    def refusals(self):
        """Code, operation and policies of every refusal in the audit, oldest first."""
        rows = self.bench.connector.rows("SELECT body FROM events WHERE kind = 'request_refused' ORDER BY sequence")
        kinds = [json.loads(row["body"])["kind"] for row in rows]
        return [(kind["code"], kind["operation"], kind["policies"]) for kind in kinds]


@pytest.fixture
def house(make_bench, tmp_path):
    made = []

    def make(**config):
        made.append(House(make_bench, tmp_path, **config))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- break-glass ---


class Safe:
    """The keys that seal tokens: one made by our command, one made elsewhere."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.key_file, public = folder / "safe.key", folder / "safe.pem"
        made = run(binary, "break-glass", "keygen", "--key", self.key_file)
        assert made.returncode == 0, made.stderr
        public.write_text(made.stdout)
        self.elsewhere = Signer(folder, "elsewhere")
        keys = [("safe", public), ("elsewhere", self.elsewhere.public_file)]
        self.section = {"keys": [{"name": name, "key_file": str(path)} for name, path in keys]}

    def issue(self, deployment, *people, key=None):
        """A token as `latchkey break-glass issue` prints it: deployment-admin for an hour."""
        words = ["--key", key or self.key_file, "--name", "safe", "--integration", "elastic"]
        for person in people:
            words += ["--member", person.user_id]
        words += ["--role", "deployment-admin", "--on", f"deployment/{deployment}", "--max-duration", "1h"]
        words += ["--not-after", "+90d", "--reason", "on-call of search"]
        made = run(self.binary, "break-glass", "issue", *words)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()


def altered(token, **changes):
    """The same signature under other claims."""
    head, body, seal = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return f"{head}.{b64(json.dumps({**claims, **changes}).encode())}.{seal}"


def in_an_hour():
    return now() + timedelta(hours=1)


def test_an_emergency_token_opens_one_grant_without_a_control_plane_and_owes_a_review(house, latchkey_bin, tmp_path):
    safe = Safe(latchkey_bin, tmp_path)
    home = house(break_glass=safe.section)
    cloud, oncall = home.bench.cloud, home["oncall"]
    connector, pb = home.bench.connector, home.bench.protocol
    staging, other = cloud.deployment("staging"), cloud.deployment("production-search")
    ada, eve = cloud.person(), cloud.person()
    token = safe.issue(staging, ada)

    def ask(client, token, person=ada, role="admin", target=staging, seconds=HOUR, request_id=None, **spec):
        made = pb.spec(person, role, target, seconds=seconds, justification="INC-7", **spec)
        return client.create(made, request_id, break_glass_token=token)

    # --- what it does not open, and what does not use it up ---
    claims = {
        "integration": "elastic",
        "beneficiaries": [ada.user_id],
        "role": "deployment-admin",
        "targets": [f"deployment/{staging}"],
        "max_duration_s": HOUR,
        "reason": "on-call of search",
    }
    stranger = Signer(tmp_path, "stranger")
    wrong = [
        ("another deployment", "scope", token, {"target": other}),
        ("another role", "scope", token, {"role": "editor"}),
        ("another person", "scope", token, {"person": eve}),
        ("a longer time", "scope", token, {"seconds": HOUR + 1}),
        ("a later start", "scope", token, {"starts_at": in_an_hour()}),
        ("altered: another person", "signature", altered(token, beneficiaries=[eve.user_id]), {"person": eve}),
        ("altered: a longer time", "signature", altered(token, max_duration_s=9 * HOUR), {"seconds": 9 * HOUR}),
        ("of a key that nobody knows", "key_unknown", stranger.token(**claims), {}),
        ("of a name under another key", "signature", safe.issue(staging, ada, key=stranger.key_file), {}),
        ("late", "expired", safe.elsewhere.token(age=2 * HOUR, lasts=HOUR, **claims), {}),
        ("early", "early", safe.elsewhere.token(nbf=2_000_000_000, exp=2_000_000_001, **claims), {}),
        ("no token at all", "malformed", "open, sesame", {}),
    ]
    for what, why, text, changes in wrong:
        said = oncall.refused(ask, oncall, text, **changes)
        assert (said.code, said.reason) == ("PERMISSION_DENIED", "BREAK_GLASS_REFUSED"), (what, said)
        assert said.metadata == {"why": why, "policies": TOKENS}, (what, said)
    assert [row[0] for row in home.refusals()] == ["break_glass_refused"] * len(wrong)
    assert home.refusals()[0] == ("break_glass_refused", "create_grant", [TOKENS])
    assert connector.metric("latchkey_break_glass_refused_total") == len(wrong)
    # Without a token the role gives nothing, and the token nothing without the role.
    assert oncall.refused(ask, oncall, "").reason == "ROLE_NOT_ALLOWED"
    for name in ("plane", "ops", "auditor"):
        assert home[name].refused(ask, home[name], token).reason == "ROLE_NOT_ALLOWED", name
    assert cloud.held(ada) == cloud.held(eve) == set()

    # --- a dry run says what would happen, and uses nothing up ---
    plan = oncall.plan(pb.spec(ada, "admin", staging, seconds=HOUR), break_glass_token=token)
    assert any("used up" in warning for warning in plan.warnings), plan
    said = oncall.refused(oncall.plan, pb.spec(ada, "editor", staging, seconds=HOUR), break_glass_token=token)
    assert said.metadata["why"] == "scope"

    # --- it opens one grant ---
    grant = ask(oncall, token, request_id="inc-7").grant
    assert oncall.state_word(grant) == "ACTIVE" and grant.is_break_glass
    assert cloud.held(ada) == {f"deployment/deployment-admin/{staging}"}
    again = ask(oncall, token, request_id="inc-7")
    assert again.replayed and again.grant.id == grant.id, "the same request is no second use"
    assert connector.metric("latchkey_break_glass_grants_total", integration="elastic") == 1
    eventually(lambda: connector.metric("latchkey_reviews_open", integration="elastic") == 1, seconds=25)
    loud = [line for line in connector.log.splitlines() if "emergency token opened a grant" in line]
    assert len(loud) == 1 and "ERROR" in loud[0].upper() and grant.id in loud[0]
    [used] = [event for event in connector.events(ada) if event["kind"] == "break_glass_used"]
    assert (used["grant_id"], used["reason"]) == (grant.id, "on-call of search")
    assert token not in connector.log
    doctor = run(latchkey_bin, "doctor", "--config", connector.config_file)
    assert "1 review of an emergency grant is open" in doctor.stdout, doctor

    # --- and no second one, neither now nor after a crash ---
    def is_used_up():
        said = home["oncall"].refused(ask, home["oncall"], token)
        assert (said.reason, said.metadata.get("why")) == ("BREAK_GLASS_REFUSED", "used"), said
        planned = home["oncall"].refused(home["oncall"].plan, pb.spec(ada, "admin", staging), break_glass_token=token)
        assert planned.metadata.get("why") == "used", planned

    is_used_up()
    home.restart()
    is_used_up()
    assert [row["kind"] for row in connector.rows("SELECT kind FROM used_tokens")] == ["break_glass"]

    # --- it cannot be extended ---
    said = home["oncall"].refused(home["oncall"].extend, grant.id, 60)
    assert said.reason == "ROLE_NOT_ALLOWED", said

    # --- the review is for somebody else ---
    def close(name, who):
        return home.cli(name, "review", "close", grant.id, "--note", "INC-7 was real", "--requester", who)

    listed = home.cli("auditor", "review", "list", "--output", "json")
    [review] = json.loads(listed.stdout)
    assert (review["grant_id"], review["caller"], review["closed_at"]) == (grant.id, "oncall", None)
    assert close("oncall", "ops@example.com").returncode != 0
    assert close("auditor", "ops@example.com").returncode != 0
    said = close("ops", ada.user_id)
    assert said.returncode != 0 and "cannot close its review" in said.stderr, said
    done = close("ops", "ops@example.com")
    assert done.returncode == 0, done.stderr
    assert json.loads(home.cli("ops", "review", "list", "--output", "json").stdout) == []
    [closed] = [row for row in connector.rows("SELECT body FROM events WHERE kind = 'review_closed'")]
    assert json.loads(closed["body"])["kind"]["by"] == "ops@example.com"
    eventually(lambda: connector.metric("latchkey_reviews_open", integration="elastic") == 0, seconds=25)

    # --- and it ends like every other grant ---
    home["ops"].revoke(grant.id, reason="over", requester="ops@example.com")
    eventually(lambda: cloud.held(ada) == set(), seconds=20)


def test_a_token_of_a_key_that_was_replaced_is_void_without_a_restart(house, latchkey_bin, tmp_path):
    safe = Safe(latchkey_bin, tmp_path)
    home = house(break_glass=safe.section)
    cloud, oncall, pb = home.bench.cloud, home["oncall"], home.bench.protocol
    staging, ada = cloud.deployment("staging"), cloud.person()
    token = safe.issue(staging, ada)
    Signer(tmp_path, "next").public_file.rename(tmp_path / "safe.pem")

    def planned():
        said = refused_or_none(oncall, pb.spec(ada, "admin", staging, seconds=60), token)
        return said is not None and said.metadata["why"] == "signature"

    eventually(planned, seconds=20)
    said = oncall.refused(oncall.create, pb.spec(ada, "admin", staging, seconds=60), break_glass_token=token)
    assert said.metadata["why"] == "signature" and cloud.held(ada) == set()


def test_a_ledger_that_is_rebuilt_from_the_audit_knows_what_was_used_and_what_is_owed(house, latchkey_bin, tmp_path):
    safe = Safe(latchkey_bin, tmp_path)
    home = house(break_glass=safe.section)
    cloud, pb, connector = home.bench.cloud, home.bench.protocol, home.bench.connector
    staging, ada = cloud.deployment("staging"), cloud.person()
    token = safe.issue(staging, ada)
    spec = pb.spec(ada, "admin", staging, seconds=HOUR)
    grant = home["oncall"].create(spec, break_glass_token=token).grant
    exported = run(latchkey_bin, "events", "--config", connector.config_file)
    assert exported.returncode == 0, exported.stderr
    (tmp_path / "events.jsonl").write_text(exported.stdout)
    home.close()
    assert connector.stop() == 0
    for path in home.bench.folder.glob("ledger.db*"):
        path.unlink()
    words = ["adopt", "--config", connector.config_file, "--from", tmp_path / "events.jsonl", "--write"]
    written = run(latchkey_bin, *words)
    assert written.returncode == 0, written.stderr
    home.bench.start(until_ready=False)
    eventually(lambda: home.cli("ops", "hold", "release", "--reason", "looked").returncode == 0, seconds=30, every=0.5)
    [review] = json.loads(home.cli("ops", "review", "list", "--output", "json").stdout)
    assert (review["grant_id"], review["token_reason"]) == (grant.id, "on-call of search")
    assert home["ops"].get(grant).is_break_glass
    eventually(connector.is_ready, seconds=30)
    said = home["oncall"].refused(home["oncall"].create, spec, break_glass_token=token)
    assert said.metadata.get("why") == "used", said


def refused_or_none(client, spec, token):
    try:
        return client.refused(client.plan, spec, break_glass_token=token)
    except AssertionError:
        return None


# --- approvals ---

LAW = """
@id("all") permit (principal, action, resource);

@id("one-eye") @remedy("staging needs an approval of somebody else")
forbid (principal, action in [Latchkey::Action::"create", Latchkey::Action::"extend"], resource)
when { context.approver_count < 1 };

@id("two-eyes") @remedy("editors need two approvals")
forbid (principal, action in [Latchkey::Action::"create", Latchkey::Action::"extend"], resource)
when { context.approver_count < 2 && context.role == "deployment-editor" };
"""


def test_a_grant_needs_the_approvals_that_the_law_wants_and_takes_no_others(house, latchkey_bin, tmp_path):
    law = tmp_path / "law"
    law.mkdir()
    (law / "law.cedar").write_text(LAW)
    signers = {name: Signer(tmp_path, name) for name in ("bob", "cy", "ada", "stranger")}
    bob, cy, ada, stranger = signers.values()
    approvers = [
        {"name": name, "person": f"{name}@example.com", "key_file": str(signers[name].public_file)}
        for name in ("bob", "cy")
    ]
    # The rest of this one is in Elastic Cloud, so only the user id tells that it is the beneficiary.
    receiver_id = str(uuid.uuid4().int)[:16]
    approvers.append(
        {"name": "ada", "person": "ada@home.example", "aliases": [receiver_id], "key_file": str(ada.public_file)}
    )
    home = house(law={"directory": str(law)}, approvals={"max_age": "24h", "approvers": approvers})
    cloud, plane, pb = home.bench.cloud, home["plane"], home.bench.protocol
    staging = cloud.deployment("staging")
    person = cloud.person()
    cloud.control("PUT", f"members/{receiver_id}", {"email": "receiver@example.com", "name": "Receiver"})

    def ask(client, request_id, approvals, role="viewer", who=person, how=None):
        spec = pb.spec(who, role, staging, seconds=60)
        if how == "plan":
            return client.plan(spec, request_id=request_id, approvals=approvals)
        return client.create(spec, request_id, approvals=approvals)

    def asked(request_id, role="deployment-viewer", who=person):
        return creation(request_id, who, staging, role=role)

    def denied(policy, *args, **kwargs):
        for how in (None, "plan"):
            said = plane.refused(ask, plane, *args, how=how, **kwargs)
            assert said.code == "PERMISSION_DENIED", said
            assert policy in said.metadata["policies"].split(", "), said
        assert {row[1] for row in home.refusals()[-2:]} == {"create_grant", "plan_grant"}
        assert all(policy in row[2] for row in home.refusals()[-2:]), home.refusals()

    def not_taken(why, *args, **kwargs):
        for how in (None, "plan"):
            said = plane.refused(ask, plane, *args, how=how, **kwargs)
            assert (said.code, said.reason) == ("INVALID_ARGUMENT", "APPROVAL_REFUSED"), said
            assert said.metadata == {"why": why, "policies": APPROVALS}, said
        left = [("approval_refused", call, [APPROVALS]) for call in ("create_grant", "plan_grant")]
        assert home.refusals()[-2:] == left

    # Too few.
    denied("one-eye", "r-1", [])
    denied("two-eyes", "r-2", [bob.approval(asked("r-2", "deployment-editor"))], role="editor")
    # Not those of this request, or of nobody who may.
    good = bob.approval(asked("r-1"))
    not_taken("other_request", "r-3", [good])
    not_taken("other_request", "r-1", [good], role="editor")
    not_taken("expired", "r-1", [bob.approval(asked("r-1"), age=7200, lasts=3600)])
    not_taken("too_old", "r-1", [bob.approval(asked("r-1"), age=25 * HOUR, lasts=26 * HOUR)])
    not_taken("early", "r-1", [bob.approval(asked("r-1"), age=-600)])
    not_taken("key_unknown", "r-1", [stranger.approval(asked("r-1"))])
    not_taken("signature", "r-1", [stranger.approval(asked("r-1"), iss="bob")])
    not_taken("duplicate", "r-2", [bob.approval(asked("r-2", "deployment-editor")) for _ in range(2)], role="editor")
    not_taken("malformed", "r-1", ["approved, bob"])
    mine = ada.approval(asked("r-4", who=receiver_id))
    not_taken("own", "r-4", [mine], who=receiver_id)
    assert cloud.held(person) == set()

    # The right ones: by our own command, from a file, and by another implementation.
    request = tmp_path / "request.yaml"
    request.write_text(json.dumps(asked("r-2", "deployment-editor")))
    words = ["approval", "sign", "--key", bob.key_file, "--approver", "bob", "--request", request]
    signed = run(latchkey_bin, *words)
    assert signed.returncode == 0, signed.stderr
    both = [signed.stdout.strip(), cy.approval(asked("r-2", "deployment-editor"))]
    assert ask(plane, "r-2", both, role="editor", how="plan").calls, "a dry run uses nothing up"
    grant = ask(plane, "r-2", both, role="editor").grant
    assert plane.state_word(grant) == "ACTIVE"
    assert sorted(grant.approvers) == ["bob@example.com", "cy@example.com"]
    assert cloud.held(person) == {f"deployment/deployment-editor/{staging}"}
    [event] = [each for each in home.bench.connector.events(person) if each["kind"] == "approved"]
    assert event["approvers"] == ["bob (bob@example.com)", "cy (cy@example.com)"]
    # A repeat is the same grant; the same approvals carried by another caller are a second use, also after a crash.
    assert ask(plane, "r-2", both, role="editor").replayed
    home.restart()
    for how in (None, "plan"):
        said = home["other"].refused(ask, home["other"], "r-2", both, role="editor", how=how)
        assert (said.reason, said.metadata["why"]) == ("APPROVAL_REFUSED", "used"), said

    # An extension needs approvals of its own.
    plane = home["plane"]
    assert "two-eyes" in plane.refused(plane.extend, grant.id, 60).metadata["policies"]
    said = plane.refused(plane.extend, grant.id, 60, "x-1", approvals=both)
    assert said.metadata["why"] == "other_request", said
    longer = prolonging("x-1", grant.id, 60)
    plane.extend(grant.id, 60, "x-1", approvals=[bob.approval(longer), cy.approval(longer)])
