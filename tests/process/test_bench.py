"""The bench measures what it says; how fast anything is, is not judged here."""

import json
import math

from harness import run

SECTIONS = ["accept", "lateness", "calls", "storm", "memory", "idle", "restart", "verify"]
# What is counted rather than timed: the same on every machine.
CALLS = "upstream calls of a grant's whole life, 20 grants a member"


def test_every_section_of_the_bench_measures_with_tiny_sizes(latchkey_bin, tmp_path):
    done = run(latchkey_bin, "bench", "--quick", "--directory", tmp_path, "--output", "json", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    lines = document["measurements"]
    assert list(dict.fromkeys(line["section"] for line in lines)) == SECTIONS
    for line in lines:
        assert line["pairs"] and all(math.isfinite(number) for number in line["pairs"]), line
        assert line["sides"], line
    assert document["missed"] == sum(not line["met"] for line in lines)
    calls = next(line for line in lines if line["what"] == CALLS)
    assert 0.1 <= calls["median"] < 1, calls
    assert list(tmp_path.iterdir()) == [], "the bench cleans up behind itself"


def test_a_missed_goal_is_an_exit_code_only_where_it_is_asked_for(latchkey_bin, tmp_path):
    args = ["bench", "--quick", "--only", "idle", "--directory", tmp_path, "--output", "json"]
    told = run(latchkey_bin, *args, seconds=120)
    assert told.returncode == 0, told.stderr
    enforced = run(latchkey_bin, *args, "--enforce", seconds=120)
    missed = json.loads(enforced.stdout)["missed"]
    assert enforced.returncode == (1 if missed else 0), enforced.stderr


def test_a_filled_ledger_holds_what_was_asked_for(latchkey_bin, tmp_path):
    ledger = tmp_path / "ledger.db"
    filled = run(latchkey_bin, "bench", "fill", "--ledger", ledger, "--members", "30", "--each", "4", "--overdue", "3")
    assert filled.returncode == 0, filled.stderr
    assert json.loads(filled.stdout) == {"grants": 120}


def test_a_large_ledger_in_postgres_lies_in_databases_of_the_bench(latchkey_bin, tmp_path, postgres):
    def databases():
        return postgres.ask("postgres", "SELECT datname FROM pg_database ORDER BY datname")

    before = databases()
    url = f"postgres://latchkey@{postgres.server}/postgres"
    args = ["bench", "--quick", "--directory", tmp_path, "--postgres", url, "--output", "json"]
    done = run(latchkey_bin, *args, "--only", "memory,restart", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads(done.stdout)["measurements"]
    assert list(dict.fromkeys(line["section"] for line in lines)) == ["memory", "restart"]
    assert all(line["pairs"] and all(math.isfinite(number) for number in line["pairs"]) for line in lines), lines
    assert "400 grants" in lines[0]["sides"] and "a database of" in lines[0]["sides"], lines[0]
    assert databases() == before, "the bench drops what it made, and nothing else"
    assert list(tmp_path.iterdir()) == [], "the bench cleans up behind itself"
    refused = run(latchkey_bin, *args, "--only", "accept", seconds=60)
    assert refused.returncode != 0 and "section accept knows no --postgres" in refused.stderr, refused.stderr
