"""Values that are wrong or contradict each other are refused with a message that says what to do."""

import pytest

from .render import template

# What is laid over which values, and what the message has to say.
SCHEMA = {
    "an unknown key": ("smallest", {"replica": 2}, "replica"),
    "an unknown key within": ("smallest", {"tls": {"certmanager": {}}}, "certmanager"),
    "replicas as text": ("smallest", {"replicas": "two"}, "replicas"),
    "no replica": ("smallest", {"replicas": 0}, "replicas"),
    "a key in the values": (
        "smallest",
        {"config": {"integrations": [{"name": "a", "secret": {"value": "essu_x"}}]}},
        "secret",
    ),
    "two places for one key": (
        "smallest",
        {"config": {"integrations": [{"name": "a", "secret": {"env": {"name": "A"}, "file": {"path": "/a"}}}]}},
        "secret",
    ),
    "a database password in the values": ("ha", {"config": {"ledger": {"password": "x"}}}, "password"),
    "a number as organization": (
        "smallest",
        {"config": {"integrations": [{"name": "a", "organization_id": 1985, "secret": {"env": {"name": "A"}}}]}},
        "organization_id",
    ),
    "a name for people as integration": (
        "smallest",
        {"config": {"integrations": [{"name": "My Cloud", "secret": {"env": {"name": "A"}}}]}},
        "name",
    ),
    "an unknown role": ("smallest", {"config": {"callers": [{"name": "a", "role": "root"}]}}, "role"),
    "a shared volume": ("smallest", {"ledger": {"volume": {"accessModes": ["ReadWriteMany"]}}}, "accessModes"),
    "a digest that is none": ("smallest", {"image": {"digest": "latest"}}, "digest"),
    "a role that is none": ("smallest", {"cloudIdentity": {"eks": {"roleArn": "latchkey"}}}, "roleArn"),
    "a policy that is no Cedar": ("smallest", {"law": {"policies": {"a.txt": "x"}}}, "a.txt"),
    "a listener without a port": ("smallest", {"config": {"listen": {"http": "0.0.0.0"}}}, "http"),
    "a duration without a unit": ("smallest", {"drain": {"timeout": "15"}}, "timeout"),
    "a ledger in the root": ("smallest", {"config": {"ledger": {"path": "/ledger.db"}}}, "path"),
}

CONTRADICTIONS = {
    "no integration": ("smallest", {"config": {"integrations": []}}, ["config.integrations is empty"]),
    "two replicas on SQLite": ("smallest", {"replicas": 2}, ["set replicas to 1, or config.ledger.kind to postgres"]),
    "a ledger in memory": ("smallest", {"config": {"ledger": {"kind": "memory"}}}, ["use sqlite, or postgres"]),
    "postgres without a server": (
        "smallest",
        {"config": {"ledger": {"kind": "postgres"}}, "postgres": {"passwordSecret": {"name": "a"}}},
        ["config.ledger.url is missing"],
    ),
    "postgres without a password": (
        "ha",
        {"postgres": {"passwordSecret": {"name": ""}}},
        ["set postgres.passwordSecret.name"],
    ),
    "a password in the address": (
        "ha",
        {"config": {"ledger": {"url": "postgres://a:b@c/d"}}, "migration": {"url": "postgres://a:b@c/d"}},
        ["config.ledger.url holds a password", "migration.url holds a password"],
    ),
    "a file for postgres": ("ha", {"config": {"ledger": {"path": "/a/b"}}}, ["remove one of them"]),
    "a witness volume for postgres": ("ha", {"witness": {"mode": "volume"}}, ["set it to auto"]),
    "a server for SQLite": (
        "smallest",
        {"postgres": {"passwordSecret": {"name": "a"}}},
        ["a PostgreSQL server is described, but config.ledger.kind is sqlite"],
    ),
    "a sweep beside SQLite": ("smallest", {"sweep": {"enabled": True}}, ["sweep.enabled needs PostgreSQL"]),
    "the witness beside the ledger": (
        "smallest",
        {"config": {"witness": {"path": "/var/lib/latchkey/witness"}}},
        ["what is lost together proves nothing"],
    ),
    "a witness without a volume": (
        "smallest",
        {"config": {"witness": {"path": "/var/lib/w/witness"}}, "witness": {"mode": "none"}},
        ["set it to auto"],
    ),
    "two certificates": ("ha", {"tls": {"secretName": "a"}}, ["tls.secretName and tls.certManager.enabled"]),
    "no issuer": ("ha", {"tls": {"certManager": {"issuerRef": {"name": ""}}}}, ["the Issuer that signs"]),
    "two authorities": ("ha", {"tls": {"clientCa": {"configMapName": "b"}}}, ["tls.clientCa names a Secret and"]),
    "two database authorities": ("ha", {"postgres": {"ca": {"secretName": "b"}}}, ["postgres.ca names a Secret and"]),
    "client certificates without one's own": (
        "smallest",
        {"tls": {"clientCa": {"secretName": "a"}}, "operator": {"tlsSecretName": "b"}},
        ["there is no server certificate"],
    ),
    "revocations of nothing": (
        "smallest",
        {"tls": {"secretName": "t", "revocationList": {"secretName": "a"}}},
        ["set tls.clientCa, or remove it"],
    ),
    "tokens in the clear": (
        "smallest",
        {"config": {"listen": {"oidc": [{"issuer": "https://login.example.com", "audience": "a"}]}}},
        ["would send tokens in the clear"],
    ),
    "nobody may call": ("sqlite-mtls", {"config": {"callers": []}}, ["config.callers is empty, so nobody could call"]),
    "everybody may call": (
        "smallest",
        {"config": {"listen": {"grpc": "0.0.0.0:7443"}}},
        ["callers cannot be told apart"],
    ),
    "probes that cannot arrive": (
        "smallest",
        {"config": {"listen": {"http": "127.0.0.1:7480"}}},
        ["the kubelet cannot probe it"],
    ),
    "a door that leads nowhere": ("smallest", {"service": {"type": "LoadBalancer"}}, ["gRPC listens on loopback"]),
    "a hook that cannot call": ("ha", {"operator": {"tlsSecretName": ""}}, ["operator.tlsSecretName", "drain.enabled"]),
    "two laws": (
        "smallest",
        {"law": {"policies": {"a.cedar": "permit(principal, action, resource);"}, "existingConfigMap": "b"}},
        ["law.policies and law.existingConfigMap"],
    ),
    "a law elsewhere": (
        "smallest",
        {"law": {"existingConfigMap": "b"}, "config": {"law": {"directory": "/law"}}},
        ["leave it out"],
    ),
    "no time to stop": ("smallest", {"terminationGracePeriodSeconds": 25}, ["stopping may take 25"]),
    "less time than configured": (
        "smallest",
        {"terminationGracePeriodSeconds": 60, "config": {"engine": {"drain": "1m 1s"}}},
        ["stopping may take 61"],
    ),
    "two identities": (
        "aws-irsa",
        {"cloudIdentity": {"eksPodIdentity": {"enabled": True}}},
        ["eks and eksPodIdentity"],
    ),
    "two budgets": (
        "ha",
        {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}},
        ["minAvailable and maxUnavailable"],
    ),
    "a variable that nobody sets": (
        "smallest",
        {"config": {"integrations": [{"name": "a", "secret": {"env": {"name": "KEY"}}}]}},
        ["KEY, which is not in extraEnv"],
    ),
    "a file that nobody mounts": ("smallest", {"secretMounts": []}, ["not in secretMounts: add {name: elastic"]),
    "a name twice": (
        "smallest",
        {
            "config": {
                "integrations": [
                    {"name": "a", "secret": {"aws_secrets_manager": {"secret_id": "a"}}},
                    {"name": "a", "secret": {"aws_secrets_manager": {"secret_id": "b"}}},
                ]
            }
        },
        ["config.integrations has a name twice"],
    ),
    "a folder twice": (
        "smallest",
        {"secretMounts": [{"name": "elastic", "secretName": "a"}, {"name": "elastic", "secretName": "b"}]},
        ["secretMounts has a name twice"],
    ),
}


@pytest.mark.parametrize("claim", SCHEMA)
def test_the_schema_refuses(claim):
    base, changes, place = SCHEMA[claim]
    done = template(base, changes)
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr, done.stderr
    assert place in done.stderr, done.stderr


@pytest.mark.parametrize("claim", CONTRADICTIONS)
def test_contradictions_are_refused(claim):
    base, changes, words = CONTRADICTIONS[claim]
    done = template(base, changes)
    assert done.returncode != 0
    assert "These values contradict each other:" in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_all_contradictions_are_told_at_once():
    done = template("smallest", {"replicas": 2, "sweep": {"enabled": True}, "terminationGracePeriodSeconds": 1})
    assert done.stderr.count("\n* ") == 3, done.stderr


def test_the_values_alone_ask_for_an_integration():
    done = template()
    assert done.returncode != 0
    assert "config.integrations is empty: name at least one" in done.stderr


def test_older_kubernetes_is_refused():
    done = template("smallest", kubernetes="1.26")
    assert done.returncode != 0 and "incompatible" in done.stderr, done.stderr
