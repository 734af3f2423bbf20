"""The sealed audit, from outside: sealed while running, exported beside the connector, verified without it."""

import json
import os
import sqlite3

import pytest
from harness import eventually, run


@pytest.fixture
def sealed(make_bench, tmp_path):
    """A connector that seals its audit every second: the pair and its public key."""
    bench = make_bench(start=False)
    made = json.loads(run(bench.binary, "audit", "keygen", "--output", "json").stdout)
    key_file = tmp_path / "audit-key"
    key_file.write_text(made["signing_key"])
    key_file.chmod(0o400)
    config = dict(bench.connector.config)
    config["audit"] = {"signing_key": {"file": {"path": str(key_file)}}}
    config["sweeps"] = {**config.get("sweeps", {}), "audit_seal": "* * * * * *"}
    bench.connector.configure(config)
    bench.start()
    bench.signing_key = made["signing_key"]
    return bench, made["public_key"]


def audit(bench, *args, **more):
    return run(bench.binary, "audit", *args, **more)


def head(bench):
    return audit(bench, "head", "--config", bench.connector.config_file).stdout.strip()


def exported(bench):
    told = audit(bench, "export", "--config", bench.connector.config_file)
    assert told.returncode == 0, told.stderr
    return told.stdout


def verify(bench, text, key, *more):
    return audit(bench, "verify", "-", "--key", key, *more, stdin=text)


def a_grant(bench):
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    bench.client.wait_for(grant, "ENDED")
    return grant.id


def with_an_end(bench):
    """The export, once the end of a grant is in it."""
    text = exported(bench)
    return '"to":"ended"' in text and text


def test_every_event_of_a_grant_is_sealed_and_verifies_beside_the_connector(sealed):
    bench, key = sealed
    grant = a_grant(bench)
    text = eventually(lambda: with_an_end(bench), seconds=20)
    kept = head(bench)
    told = verify(bench, text, key)
    assert told.returncode == 0, told.stderr
    events = [json.loads(line) for line in text.splitlines()]
    of_grant = [e["event"] for e in events if e.get("event", {}).get("grant_id") == grant]
    assert len(of_grant) >= 3, of_grant
    # What is exported later begins with the same lines, and the head that was kept is in it.
    a_grant(bench)
    later = eventually(lambda: head(bench) != kept and exported(bench), seconds=20)
    assert later.startswith(text)
    assert verify(bench, later, key, "--head", kept).returncode == 0
    shown = json.loads(verify(bench, later, key, "--output", "json").stdout)
    assert shown["records"] == sum(line.startswith('{"sequence"') for line in later.splitlines())
    for place in bench.folder.rglob("*"):
        if place.is_file():
            assert bench.signing_key.encode() not in place.read_bytes(), place


def test_verify_names_what_was_done_to_the_ledger_file(sealed):
    bench, key = sealed
    a_grant(bench)
    eventually(lambda: with_an_end(bench), seconds=20)
    kept = head(bench)
    bench.connector.stop()
    path = bench.connector.config["ledger"]["path"]
    with sqlite3.connect(path) as ledger:
        ledger.execute("DROP TRIGGER events_stay")
        ledger.execute("DELETE FROM events WHERE sequence = 2")
    told = verify(bench, exported(bench), key)
    assert told.returncode == 1
    assert "record 2 is missing" in told.stderr
    with sqlite3.connect(path) as ledger:
        ledger.execute("DROP TRIGGER audit_blocks_stay")
        ledger.execute("DELETE FROM audit_blocks WHERE number > 1")
        ledger.execute("DELETE FROM events WHERE sequence > (SELECT last FROM audit_blocks)")
    number = kept.split(":")[0]
    if number != "1":
        told = verify(bench, exported(bench), key, "--head", kept)
        assert told.returncode == 1
        assert "record 2 is missing" in told.stderr or f"block {number}" in told.stderr


def test_wrong_keys_and_heads_are_told_apart_from_tampering(sealed):
    bench, key = sealed
    text = eventually(lambda: exported(bench), seconds=20)
    other = json.loads(audit(bench, "keygen", "--output", "json").stdout)
    told = verify(bench, text, other["public_key"])
    assert told.returncode == 1 and "not among those given" in told.stderr
    told = verify(bench, text, other["signing_key"])
    assert told.returncode == 2 and "public key" in told.stderr
    assert other["signing_key"] not in told.stderr
    told = verify(bench, text, key, "--head", "nonsense")
    assert told.returncode == 2 and "NUMBER:HASH" in told.stderr


def test_a_signing_key_that_cannot_be_read_stops_neither_grants_nor_revocations(sealed):
    bench, key = sealed
    eventually(lambda: exported(bench), seconds=20)
    place = bench.connector.config["audit"]["signing_key"]["file"]["path"]
    os.rename(place, place + ".away")
    before = exported(bench)
    a_grant(bench)
    assert exported(bench) == before
    os.rename(place + ".away", place)
    after = eventually(lambda: exported(bench) != before and exported(bench), seconds=20)
    assert verify(bench, after, key).returncode == 0
