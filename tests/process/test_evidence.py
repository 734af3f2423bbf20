"""The evidence of a period: written beside a running connector, verified without it, and believed only as it was."""

import json

import pytest
from harness import eventually, run

from .test_audit import a_grant, audit, sealed, with_an_end

__all__ = ["sealed"]


@pytest.fixture
def evidence(sealed, tmp_path):
    """A pair with a grant that ended, its public key, and the folder of its evidence."""
    bench, key = sealed
    grant = a_grant(bench)
    eventually(lambda: with_an_end(bench), seconds=20)
    folder = tmp_path / "evidence"
    told = audit(bench, "evidence", "--config", bench.connector.config_file, "--from", "1h", "--pack", folder)
    assert told.returncode == 0, told.stderr
    return bench, key, grant, folder


def verify(bench, folder, key, *more):
    return audit(bench, "verify", folder, "--key", key, *more)


def test_evidence_is_whole_without_the_connector_and_holds_the_grant(evidence):
    bench, key, grant, folder = evidence
    head = audit(bench, "head", "--config", bench.connector.config_file).stdout.strip()
    bench.connector.stop()
    told = run(bench.binary, "audit", "verify", folder, "--key", key, "--head", head, "--output", "json")
    assert told.returncode == 0, told.stderr
    shown = json.loads(told.stdout)
    assert shown["signed"] and shown["service_level"]["ended"] == 1
    assert shown["service_level"]["measured"] == 1 and shown["service_level"]["max_ms"] is not None
    receipts = [json.loads(line) for line in (folder / "receipts.jsonl").read_text().splitlines()]
    assert [receipt["grant_id"] for receipt in receipts] == [grant]
    requests = [json.loads(line)["event"] for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert [event["grant_id"] for event in requests] == [grant]
    assert sorted(path.name for path in folder.iterdir()) == [
        "audit.jsonl", "drift.jsonl", "manifest.json", "manifest.sig",
        "receipts.jsonl", "requests.jsonl", "service_level.json",
    ]  # fmt: skip
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


@pytest.mark.parametrize("name", ["audit.jsonl", "receipts.jsonl", "requests.jsonl", "service_level.json"])
def test_a_file_that_was_changed_is_named(evidence, name):
    bench, key, _, folder = evidence
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("1", "2", 1))
    told = verify(bench, folder, key)
    assert told.returncode == 1
    assert f"{name} was changed after the evidence was made" in told.stderr


def test_evidence_is_refused_where_it_would_mislead(evidence, tmp_path):
    bench, key, _, folder = evidence
    config = bench.connector.config_file
    again = audit(bench, "evidence", "--config", config, "--from", "1h", "--pack", folder)
    assert again.returncode == 1 and "not empty" in again.stderr
    upside_down = audit(bench, "evidence", "--config", config, "--from", "1h", "--to", "2h", "--pack", tmp_path / "x")
    assert upside_down.returncode == 2 and "--from is not before --to" in upside_down.stderr
    before = audit(
        bench, "evidence", "--config", config, "--from", "2020-01-01", "--to", "2020-02-01", "--pack", tmp_path / "y"
    )
    assert before.returncode == 1 and "nothing of this period is sealed" in before.stderr
    other = json.loads(audit(bench, "keygen", "--output", "json").stdout)["public_key"]
    told = verify(bench, folder, other)
    assert told.returncode == 1 and "not of a key that was given" in told.stderr
