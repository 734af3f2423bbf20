"""Several replicas on one PostgreSQL: any of them answers, one works, and another takes over from whoever is gone."""

import json
import signal
import subprocess
import time
import uuid

import grpc
import pytest
import requests
from harness import Connector, eventually, never, run

from .cluster import CLAIM, TAKE_OVER, gone


def test_a_caller_of_any_replica_sees_its_grant_become_active_and_end(cluster):
    trio = cluster(3)
    people = []
    for replica in trio.replicas:
        person = trio.cloud.person()
        granted = trio.grant(replica, person, seconds=3)
        assert trio.cloud.held(person)
        people.append((replica, person, granted.id))
    for replica, person, grant_id in people:
        trio.clients[replica].wait_for(grant_id, "ENDED")
        assert not trio.cloud.held(person)
        assert len(trio.cloud.adds(person)) == 1 and len(trio.cloud.removes(person)) == 1


def test_a_storm_goes_on_when_the_owner_is_killed_in_the_middle(cluster):
    pair = cluster(2)
    owner = pair.owner()
    (other,) = pair.others(owner)
    people = [pair.cloud.person() for _ in range(40)]
    grants = [pair.grant(other, person, seconds=3600, wait="ACCEPTED") for person in people]
    eventually(lambda: all(pair.cloud.held(person) for person in people), seconds=60)
    # Slow enough that the storm has a middle.
    pair.cloud.faults(("role_assignments.remove", {"type": "delay", "ms": 300}))
    for grant in grants:
        pair.clients[other].revoke(grant.id)
    eventually(lambda: len(pair.cloud.removes()) >= 5, seconds=20)
    killed_at = time.monotonic()
    owner.kill()
    eventually(lambda: (pair.claim() or ("",))[0] == pair.name(other), seconds=TAKE_OVER + 2)
    took = time.monotonic() - killed_at
    assert took <= TAKE_OVER, f"take-over took {took:.1f} s"
    eventually(lambda: gone(pair.cloud, people), seconds=30)
    twice = [person for person in people if len(pair.cloud.removes(person)) > 1]
    # Sent twice is only what was under way when the owner died.
    assert all(len(pair.cloud.removes(person)) <= 2 for person in twice)
    print(f"take-over in {took:.2f} s, {len(twice)} of {len(people)} removals sent twice")


def test_an_owner_that_was_stopped_changes_nothing_after_it_wakes(cluster):
    pair = cluster(2)
    for _ in range(3):
        owner = pair.owner()
        (other,) = pair.others(owner)
        people = [pair.cloud.person() for _ in range(10)]
        for person in people:
            pair.grant(owner, person, seconds=4)
        owner.process.child.send_signal(signal.SIGSTOP)
        eventually(lambda: (pair.claim() or ("",))[0] == pair.name(other), seconds=TAKE_OVER + 2)
        eventually(lambda: gone(pair.cloud, people), seconds=15)
        # The new owner stands still now, so whatever arrives is of the old one. Its claim stands for another while.
        # Reads are no matter of claims: every replica looks after a directory of its own.
        other.process.child.send_signal(signal.SIGSTOP)
        before = pair.cloud.changes()
        owner.process.child.send_signal(signal.SIGCONT)
        never(lambda: pair.cloud.changes() != before, seconds=2.5)
        other.process.child.send_signal(signal.SIGCONT)


def test_an_owner_that_is_asked_to_end_hands_over_at_once(cluster):
    pair = cluster(2)
    owner = pair.owner()
    (other,) = pair.others(owner)
    person = pair.cloud.person()
    pair.grant(other, person, seconds=4)
    assert owner.stop() == 0
    ended_at = time.monotonic()
    eventually(lambda: (pair.claim() or ("",))[0] == pair.name(other), seconds=CLAIM)
    assert time.monotonic() - ended_at < 2
    eventually(lambda: not pair.cloud.held(person), seconds=10)
    assert len(pair.cloud.removes(person)) == 1


def test_without_the_database_nothing_is_granted_nobody_ends_and_what_fell_due_goes_when_it_is_back(cluster):
    pair = cluster(2)
    owner = pair.owner()
    person = pair.cloud.person()
    pair.grant(owner, person, seconds=6)
    pair.postgres.order("stop")
    try:
        for replica in pair.replicas:
            eventually(lambda replica=replica: not replica.is_ready(), seconds=30)
            assert requests.get(f"{replica.http}/healthz", timeout=10).status_code == 200
        with pytest.raises(grpc.RpcError) as refused:
            pair.grant(owner, pair.cloud.person(), seconds=60)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        time.sleep(CLAIM)
        assert all(replica.process.child.poll() is None for replica in pair.replicas)
    finally:
        pair.postgres.order("start")
    eventually(lambda: not pair.cloud.held(person), seconds=30)
    for replica in pair.replicas:
        eventually(replica.is_ready, seconds=30)


def calls_of_removal(cluster, person):
    """What the audit says of removals of one person: kind, instant in microseconds, body."""
    return cluster.postgres.ask(
        cluster.database,
        "SELECT kind, at, body FROM events WHERE kind IN ('call_intended', 'call_ended') "
        f"AND subject = 'user:{person.user_id}' AND body LIKE '%\"remove\"%' ORDER BY sequence",
    )


def receipts_of(cluster, person):
    return cluster.postgres.ask(
        cluster.database, f"SELECT 1 FROM receipts WHERE subject = 'user:{person.user_id}'"
    )


def lose_the_database_before_an_end(pair):
    """A grant that ends while the database is away, and one that ends later; answers when it was gone."""
    owner = pair.owner()
    (other,) = pair.others(owner)
    soon, later = pair.cloud.person(), pair.cloud.person()
    grant = pair.grant(other, soon, seconds=6)
    pair.grant(owner, later, seconds=25)
    # The owner reads ahead once a second.
    time.sleep(2.5)
    pair.postgres.order("stop")
    stopped = time.time()
    eventually(lambda: not pair.cloud.held(soon), seconds=10)
    gone_at = time.time()
    assert len(pair.cloud.removes(soon)) == 1
    assert pair.cloud.held(later), "its end lies beyond the claim that stood"
    assert gone_at > stopped
    eventually(lambda: owner.metric("latchkey_removals_without_ledger_total", outcome="done") == 1, seconds=5)
    assert owner.metric("latchkey_journal_waiting") == 1
    return owner, other, soon, later, grant, gone_at


def test_access_that_is_known_to_end_goes_while_the_database_is_away_and_the_ledger_is_told_afterwards(cluster):
    pair = cluster(2, ledger={"claim": "12s"}, journal=True)
    try:
        owner, other, soon, later, grant, gone_at = lose_the_database_before_an_end(pair)
        eventually(lambda: not owner.is_ready(), seconds=30)
        assert requests.get(f"{owner.http}/healthz", timeout=10).status_code == 200
        with pytest.raises(grpc.RpcError):
            pair.grant(owner, pair.cloud.person(), seconds=60)
        # The claim has run out: whoever is first takes it, and another owner does not know what was sent before.
        pair.pause(other)
    finally:
        pair.postgres.order("start")
    eventually(lambda: owner.metric("latchkey_journal_waiting") == 0, seconds=40)
    pair.resume(other)
    eventually(lambda: not pair.cloud.held(later), seconds=60)
    pair.clients[other].wait_for(grant, "ENDED", seconds=60)
    eventually(lambda: receipts_of(pair, soon), seconds=30)
    intent, outcome = calls_of_removal(pair, soon)[:2]
    assert (intent[0], outcome[0]) == ("call_intended", "call_ended")
    assert '"done"' in outcome[2] and int(outcome[1]) / 1e6 <= gone_at + 1
    assert len(pair.cloud.removes(soon)) == 1, "a read proved it, no second removal"


def test_killed_before_the_ledger_was_told_the_next_start_tells_it(cluster):
    pair = cluster(2, ledger={"claim": "12s"}, journal=True)
    try:
        owner, other, soon, _, grant, gone_at = lose_the_database_before_an_end(pair)
        owner.kill()
    finally:
        pair.postgres.order("start")
    owner.start()
    eventually(lambda: owner.is_ready(), seconds=40)
    eventually(lambda: owner.metric("latchkey_journal_waiting") == 0, seconds=40)
    pair.clients[other].wait_for(grant, "ENDED", seconds=60)
    told = [row for row in calls_of_removal(pair, soon) if int(row[1]) / 1e6 <= gone_at + 1]
    assert [row[0] for row in told] == ["call_intended", "call_ended"] and '"done"' in told[1][2]
    eventually(lambda: receipts_of(pair, soon), seconds=30)


def test_shortly_before_its_end_only_the_owner_extends(cluster):
    pair = cluster(2, ledger={"claim": "12s"})
    owner = pair.owner()
    (other,) = pair.others(owner)
    grant = pair.grant(other, pair.cloud.person(), seconds=30)
    pair.clients[other].extend(grant, 1)
    near = pair.grant(other, pair.cloud.person(), seconds=9)
    with pytest.raises(grpc.RpcError) as refused:
        pair.clients[other].extend(near, 60)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and "about to end" in refused.value.details()
    pair.clients[owner].extend(near, 60)


def test_when_every_replica_is_gone_a_sweep_takes_over_and_while_one_runs_it_leaves_it_alone(cluster, latchkey_bin):
    pair = cluster(2)
    person = pair.cloud.person()
    sweep = [latchkey_bin, "--timeout", "30s", "sweep", "--config", pair.replicas[0].config_file]
    beside = run(*sweep)
    assert beside.returncode == 5, beside.stderr
    assert "in the database of ledger.url is in use" in beside.stderr
    idle = run(*sweep, "--unless-running")
    assert idle.returncode == 0, idle.stderr
    assert "nothing to do" in idle.stderr

    pair.grant(pair.owner(), person, seconds=3)
    for replica in pair.replicas:
        replica.kill()
    assert pair.cloud.held(person)
    eventually(lambda: json.loads(run(*sweep, "--dry-run", "--output", "json").stdout)["planned"], seconds=30)
    done = run(*sweep, "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["members"] == 1
    assert not pair.cloud.held(person)
    assert pair.claim() is None, "the claims of the sweep are let go"
    for replica in pair.replicas:
        replica.start()
    eventually(pair.claim, seconds=15)


def test_the_audit_of_a_shared_ledger_is_sealed_delivered_by_one_replica_and_read_beside_them(
    cluster, latchkey_bin, tmp_path
):
    made = json.loads(run(latchkey_bin, "audit", "keygen", "--output", "json").stdout)
    key, delivered, folder = tmp_path / "audit-key", tmp_path / "delivered.jsonl", tmp_path / "evidence"
    key.write_text(made["signing_key"])
    key.chmod(0o400)
    pair = cluster(
        2,
        audit={
            "signing_key": {"file": {"path": str(key)}},
            "sinks": [{"name": "disk", "file": {"path": str(delivered)}}],
        },
        sweeps={"audit_seal": "* * * * * *"},
    )
    config = pair.replicas[0].config_file
    person = pair.cloud.person()
    pair.grant(pair.owner(), person, seconds=1)

    def exported():
        told = run(latchkey_bin, "audit", "export", "--config", config)
        assert told.returncode == 0, told.stderr
        return '"to":"ended"' in told.stdout and told.stdout

    text = eventually(exported, seconds=30)
    verify = [latchkey_bin, "audit", "verify", "--key", made["public_key"]]
    told = run(*verify, "-", stdin=text)
    assert told.returncode == 0, told.stderr
    made = run(latchkey_bin, "audit", "evidence", "--config", config, "--from", "1h", "--pack", folder)
    assert made.returncode == 0, made.stderr
    assert run(*verify, folder).returncode == 0

    [newest] = pair.postgres.ask(pair.database, "SELECT max(sequence) FROM events")
    lines = eventually(lambda: len(told := delivered.read_text().splitlines()) >= int(newest[0]) and told)
    places = [json.loads(line)["sequence"] for line in lines]
    assert places == list(range(1, len(places) + 1)), "each event once, in order"
    examined = run(latchkey_bin, "doctor", "--config", config, "--output", "json")
    assert examined.returncode == 0, examined.stdout


def test_the_schema_is_brought_up_by_a_command_where_the_connector_may_not(latchkey_bin, tmp_path, postgres, simulator):
    database = f"db_{uuid.uuid4().hex[:12]}"
    postgres.ask("postgres", f"CREATE DATABASE {database}")
    url = f"postgres://latchkey@{postgres.pooler}/{database}"
    connector = Connector(latchkey_bin, simulator, tmp_path, ledger={"kind": "postgres", "url": url, "migrate": False})
    with pytest.raises(AssertionError, match="latchkey migrate"):
        connector.start()
    args = [str(latchkey_bin), "migrate", "--config", str(connector.config_file)]
    first = subprocess.run(args, capture_output=True, text=True, timeout=60, check=True)
    assert "Applied migration 1" in first.stdout
    again = subprocess.run(args, capture_output=True, text=True, timeout=60, check=True)
    assert "up to date" in again.stdout
    connector.start()
    eventually(connector.is_ready, seconds=30)
    assert connector.stop() == 0
