"""A ledger of every schema that was released, and releases beside each other: what was promised is kept.

`ledgers/postgres-N.json` is the ledger of a running connector of schema N with the cloud that it left behind: grants that
are active, wait for their time, were being given and were being taken away. After a migration was added,
`LATCHKEY_KEEP_LEDGER=1` makes the one that `test_there_is_a_ledger_of_the_newest_schema` asks for.
"""

import hashlib
import json
import os
import pathlib
from datetime import datetime, timedelta, timezone

import pytest
from harness import ROOT, eventually, run

from .cluster import EAGER

LEDGERS = pathlib.Path(__file__).parent / "ledgers"
MIGRATIONS = sorted((ROOT / "src" / "store" / "postgres" / "migrations").glob("*.sql"))
NEWEST = len(MIGRATIONS)
# What belongs to the database itself, or is counted by its triggers.
OWN = ("meta", "facts", "census", "latchkey_schema", "ownership", "replicas")
SCHEMA = (
    "CREATE TABLE latchkey_schema (version BIGINT NOT NULL PRIMARY KEY, needs BIGINT NOT NULL, checksum TEXT NOT NULL, "
    "applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());"
)
APPLIED = "INSERT INTO latchkey_schema (version, needs, checksum) VALUES ({}, {}, '{}');"


def kept(cluster):
    """The ledger and the cloud of a connector that was killed, as a document."""
    names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    tables = {}
    for [name] in cluster.postgres.ask(cluster.database, names):
        if name not in OWN:
            text = cluster.postgres.ask(cluster.database, f"SELECT encode(convert_to(json_agg(t)::text, 'UTF8'), 'hex') FROM {name} t")
            tables[name] = json.loads(bytes.fromhex(text[0][0] or "")) if text and text[0][0] else []
    return {"tables": tables, "world": cluster.cloud.control("GET", "world")}


def keep(cluster, path):
    """Makes a ledger with grants in every state in which they may be met, and writes it down."""
    (replica,) = cluster.replicas
    active, late, waiting, given, taken = cluster.people
    cluster.grant(replica, active, seconds=3600)
    cluster.grant(replica, late, seconds=7200)
    in_time = datetime.now(timezone.utc) + timedelta(days=20)
    cluster.grant(replica, waiting, seconds=60, wait="ACCEPTED", starts_at=in_time)
    ended = cluster.grant(replica, taken, seconds=3600)
    # The one that is being given was given, and nobody heard of it; the other one cannot be taken away yet.
    cluster.cloud.faults(
        ("role_assignments.add", {"type": "drop_after_apply"}),
        ("role_assignments.remove", {"type": "fail", "status": 503}),
        ("members.list", {"type": "delay", "ms": 2000}),
    )
    cluster.grant(replica, given, seconds=3600, wait="ACCEPTED")
    cluster.clients[replica].revoke(ended)
    eventually(lambda: cluster.cloud.adds(given) and cluster.cloud.removes(taken))
    replica.kill()
    path.write_text(json.dumps(kept(cluster), indent=1, sort_keys=True) + "\n")


def test_there_is_a_ledger_of_the_newest_schema(cluster):
    path = LEDGERS / f"postgres-{NEWEST}.json"
    if os.environ.get("LATCHKEY_KEEP_LEDGER"):
        keep(cluster(1, people=5), path)
    assert path.exists(), f"run this test with LATCHKEY_KEEP_LEDGER=1 and commit {path.relative_to(ROOT)}"
    states = {row["state"] for row in json.loads(path.read_text())["tables"]["grants"]}
    assert states == {"active", "scheduled", "activating", "revoking"}


def put_back(postgres, version, tables):
    """A database whose schema is of this version, with these rows: what it has no place for was not there then."""
    database = postgres.make()
    postgres.ask(database, SCHEMA)
    for number, file in enumerate(MIGRATIONS[:version], 1):
        postgres.ask(database, file.read_text())
        postgres.ask(database, APPLIED.format(number, 1, hashlib.sha256(file.read_bytes()).hexdigest()))
    known = [name for [name] in postgres.ask(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    for name, rows in tables.items():
        if rows and name in known:
            text = json.dumps(rows).encode().hex()
            postgres.ask(
                database,
                f"INSERT INTO {name} SELECT * FROM json_populate_recordset(NULL::{name}, "
                f"convert_from('\\x{text}', 'UTF8')::json)",
            )
    return database


def sources(version):
    """The oldest ledger that was kept of this schema or a later one."""
    numbers = sorted(int(path.stem.split("-")[1]) for path in LEDGERS.glob("postgres-*.json"))
    return LEDGERS / f"postgres-{next(number for number in numbers if number >= version)}.json"


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
def test_every_grant_of_an_earlier_schema_is_taken_away_by_this_release(cluster, postgres, tmp_path, version):
    ledger = json.loads(sources(version).read_text())
    world = tmp_path / "world.json"
    world.write_text(json.dumps(ledger["world"]))
    database = put_back(postgres, version, ledger["tables"])
    pair = cluster(2, database=database, simulate=["--world", world])
    [[applied]] = postgres.ask(database, "SELECT max(version) FROM latchkey_schema")
    assert int(applied) == NEWEST, "brought up by the first one that came"
    grants = {row["id"]: row for row in ledger["tables"]["grants"]}
    people = {row["subject"].partition(":")[2] for row in grants.values()}
    standing = {each["user_id"]: each for each in ledger["world"]["organizations"][0]["members"]}
    assert sum(bool(standing[person].get("role_assignments")) for person in people) >= 3
    client = pair.clients[pair.replicas[0]]
    for grant_id in grants:
        if client.state(grant_id) != "ENDED":
            client.revoke(grant_id)
    for grant_id in grants:
        client.wait_for(grant_id, "ENDED")
    for person in people:
        assert not pair.cloud.held(person), "nothing of it is left"
    now = {each["user_id"]: each for each in pair.cloud.organization()["members"]}
    for user_id, member in standing.items():
        if user_id not in people:
            assert now[user_id].get("role_assignments") == member.get("role_assignments"), "standing access stays"


def test_this_release_works_beside_a_newer_one_that_only_adds_and_is_refused_where_it_would_not(cluster, latchkey_bin):
    pair = cluster(2, limits=EAGER)
    older, newer = pair.replicas
    person = pair.cloud.person()
    grant = pair.grant(older, person, seconds=3600)
    # As a later migration does.
    pair.postgres.ask(
        pair.database,
        "ALTER TABLE grants ADD COLUMN later TEXT; ALTER TABLE members ADD COLUMN later BIGINT NOT NULL DEFAULT 0; "
        "ALTER TABLE events ADD COLUMN later TEXT; CREATE TABLE later (x BIGINT); "
        + APPLIED.format(NEWEST + 1, NEWEST, "later"),
    )
    newer.kill()
    newer.start()
    pair.meet(newer)
    for replica in pair.replicas:
        another = pair.cloud.person()
        ends = pair.grant(replica, another, seconds=1)
        pair.clients[replica].wait_for(ends, "ENDED")
        assert not pair.cloud.held(another)
    # What cannot be done beside an older one says so, and keeps it from starting; nobody who works is disturbed.
    pair.postgres.ask(pair.database, APPLIED.format(NEWEST + 2, NEWEST + 2, "much later"))
    newer.kill()
    refused = run(latchkey_bin, "serve", "--config", newer.config_file)
    assert refused.returncode == 1 and f"knows version {NEWEST + 2}" in refused.stderr, refused.stderr
    pair.clients[older].revoke(grant)
    pair.clients[older].wait_for(grant, "ENDED")
    assert not pair.cloud.held(person)
