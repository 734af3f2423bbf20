"""What becomes of the database under the replicas: late, full, of another time, failed over, restored, behind TLS or a pooler."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from harness import Connector, eventually, run

from . import faults
from .cluster import CLAIM, EAGER, TAKE_OVER, Cluster, Postgres, gone, tool
from .openbao import certificates


@pytest.fixture
def with_server(latchkey_bin, tmp_path, protocol):
    """Makes replicas on a server of their own: `with_server(server, 2)`."""
    made = []

    def make(server, replicas=2, **changes):
        made.append((Cluster(latchkey_bin, tmp_path, protocol, server, replicas, **changes), server))
        return made[-1][0]

    yield make
    for replicas, server in made:
        replicas.close(drop=False)
        server.close()


@pytest.fixture
def under_weather(shim_library, with_server):
    """Replicas on a server whose clock and disk obey the test: `under_weather(2)` answers both."""
    # The server runs as somebody else, and comes as far as this.
    with tempfile.TemporaryDirectory(prefix="latchkey-weather-") as folder:
        os.chmod(folder, 0o755)
        library = pathlib.Path(folder) / "shim.so"
        library.write_bytes(shim_library.read_bytes())
        library.chmod(0o755)
        weather = faults.Shim(library, folder)
        weather.path.chmod(0o666)

        def make(replicas=2, **changes):
            return with_server(Postgres("--weather", library, weather.path), replicas, **changes), weather

        yield make


def test_replicas_that_start_before_their_database_wait_for_it_and_then_do_what_is_due(cluster):
    pair = cluster(2)
    person = pair.cloud.person()
    pair.grant(pair.replicas[0], person, seconds=2)
    for replica in pair.replicas:
        replica.kill()
    pair.postgres.order("stop")
    # A process ends with the thread that started it, so those stay.
    threads = ThreadPoolExecutor(2)
    starting = [threads.submit(replica.start) for replica in pair.replicas]
    try:
        logged = "The database of the ledger cannot be reached yet"
        for replica in pair.replicas:
            eventually(lambda replica=replica: replica.log.count(logged) >= 3, seconds=20)
        assert not any(each.done() for each in starting), "they wait"
        assert pair.cloud.held(person)
    finally:
        pair.postgres.order("start")
    for each in starting:
        each.result(30)
    for replica in pair.replicas:
        pair.meet(replica)
    eventually(lambda: not pair.cloud.held(person), seconds=15)
    assert len(pair.cloud.removes(person)) == 1
    pair.close()
    threads.shutdown()


def storm_of_accepts(pair, people, until):
    """Asks for grants one after the other until `until`; answers those that were answered."""
    answered = []

    def ask():
        for number, person in enumerate(people):
            if until.is_set():
                return
            try:
                replica = pair.replicas[number % len(pair.replicas)]
                answered.append((person, pair.grant(replica, person, 3600, wait="ACCEPTED", timeout=5)))
            except grpc.RpcError:
                # Nobody was told that it exists. As callers do, not all at once: there are only so many people.
                until.wait(0.25)

    asking = threading.Thread(target=ask)
    asking.start()
    return answered, asking


def test_a_stand_by_that_was_waited_for_knows_all_that_was_answered(with_server):
    server = Postgres()
    pair = with_server(server, lines=True, limits=EAGER, people=60)
    standby = server.order("standby")
    server.ask("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
    server.ask("postgres", "SELECT pg_reload_conf()")
    synchronous = "SELECT sync_state FROM pg_stat_replication"
    eventually(lambda: server.ask("postgres", synchronous) == [["sync"]])

    until = threading.Event()
    answered, asking = storm_of_accepts(pair, pair.people, until)
    eventually(lambda: len(answered) >= 15, seconds=30)
    server.order("promote")
    server.server = standby
    for line in pair.lines.values():
        line.lead_to(standby)
    eventually(lambda: len(answered) >= 25, seconds=30)
    until.set()
    asking.join(30)
    client = pair.clients[pair.replicas[0]]
    for person, grant in answered:
        client.wait_for(grant, "ACTIVE", seconds=30)
        assert pair.cloud.held(person)
        client.revoke(grant)
    for _, grant in answered:
        client.wait_for(grant, "ENDED", seconds=30)
    eventually(lambda: gone(pair.cloud, pair.people), seconds=30)


def test_a_stand_by_that_lost_the_last_second_is_named_and_the_audit_that_was_kept_brings_it_back(
    with_server, latchkey_bin, tmp_path
):
    server = Postgres()
    pair = with_server(server, lines=True)
    owner = pair.owner()
    known, forgotten = pair.cloud.person(), pair.cloud.person()
    before = pair.grant(owner, known, seconds=3600)
    standby = server.order("standby")
    received = "SELECT pid FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
    [[sender]] = eventually(lambda: server.ask("postgres", received))
    # From here on the stand-by hears nothing.
    os.kill(int(sender), signal.SIGSTOP)
    lost = pair.grant(owner, forgotten, seconds=3600)
    kept = tmp_path / "events.jsonl"
    kept.write_text(run(latchkey_bin, "events", "--config", pair.replicas[0].config_file).stdout)
    assert lost.id in kept.read_text()
    server.order("promote")
    server.server = standby
    for line in pair.lines.values():
        line.lead_to(standby)
    for replica in pair.replicas:
        eventually(lambda replica=replica: "ledger_went_back" in replica.log, seconds=30)
        eventually(replica.is_ready, seconds=30)
    client = pair.clients[owner]
    assert client.refused(client.get, lost).code == "NOT_FOUND"
    assert client.state(before) == "ACTIVE"
    assert pair.cloud.held(forgotten), "nobody knows of it"

    restore(pair, latchkey_bin, tmp_path, kept, before, lost)
    eventually(lambda: gone(pair.cloud, [known, forgotten]), seconds=30)


def restore(pair, binary, tmp_path, kept, *grants):
    """Rebuilds the ledger from the audit that was kept, puts it into a new database, and revokes these grants."""
    for replica in pair.replicas:
        assert replica.stop() == 0
    home = tmp_path / "rebuilt"
    home.mkdir()
    between = Connector(binary, pair.cloud, home)
    adopted = run(binary, "adopt", "--config", between.config_file, "--from", kept, "--write")
    assert adopted.returncode == 0, adopted.stderr
    pair.database = pair.postgres.make()
    for replica in pair.replicas:
        url = re.sub(r"/db_\w+$", f"/{pair.database}", replica.config["ledger"]["url"])
        replica.configure({**replica.config, "ledger": {**replica.config["ledger"], "url": url}})
    there = pair.replicas[0].config_file
    copied = run(binary, "ledger", "copy", "--from", between.config_file, "--to", there)
    assert copied.returncode == 0, copied.stderr
    for replica in pair.replicas:
        replica.start()
        pair.clients.pop(replica).close()
        pair.clients[replica] = pair.protocol.client(replica.grpc)
    first = pair.replicas[0]
    # It cannot be told what happened after the last event that was kept: an operator looks, and lets it go.
    server = {"LATCHKEY_SERVER": f"http://{first.grpc}"}
    released = run(binary, "hold", "release", "--reason", "compared with the console", env=server)
    assert released.returncode == 0, released.stderr
    for replica in pair.replicas:
        eventually(replica.is_ready, seconds=30)
    for grant in grants:
        pair.clients[first].revoke(grant)
    for grant in grants:
        pair.clients[first].wait_for(grant, "ENDED")


def test_a_database_restored_from_an_older_backup_is_found_by_the_head_that_was_kept_and_rebuilt_from_the_audit(
    with_server, latchkey_bin, tmp_path
):
    server = Postgres()
    made = json.loads(run(latchkey_bin, "audit", "keygen", "--output", "json").stdout)
    key = tmp_path / "audit-key"
    key.write_text(made["signing_key"])
    key.chmod(0o400)
    pair = with_server(
        server, audit={"signing_key": {"file": {"path": str(key)}}}, sweeps={"audit_seal": "* * * * * *"}
    )
    config = pair.replicas[0].config_file
    early, late = pair.cloud.person(), pair.cloud.person()
    first = pair.grant(pair.replicas[0], early, seconds=3600)
    host, port = server.server.split(":")
    backup = subprocess.run(
        [tool("pg_dump"), "-h", host, "-p", port, "-U", "latchkey", pair.database],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    second = pair.grant(pair.replicas[0], late, seconds=3600)

    def sealed():
        told = run(latchkey_bin, "audit", "export", "--config", config).stdout
        return told if second.id in told else None

    eventually(sealed, seconds=20)
    head = run(latchkey_bin, "audit", "head", "--config", config).stdout.strip()
    kept = tmp_path / "events.jsonl"
    kept.write_text(run(latchkey_bin, "events", "--config", config).stdout)
    for replica in pair.replicas:
        replica.kill()

    server.ask("postgres", f"DROP DATABASE {pair.database} WITH (FORCE)")
    server.ask("postgres", f"CREATE DATABASE {pair.database}")
    server.ask(pair.database, backup)
    exported = run(latchkey_bin, "audit", "export", "--config", config).stdout
    verify = [latchkey_bin, "audit", "verify", "-", "--key", made["public_key"], "--head", head]
    cut = run(*verify, stdin=exported)
    assert cut.returncode != 0, "the end that is missing is noticed"
    for replica in pair.replicas:
        replica.start()
    restore(pair, latchkey_bin, tmp_path, kept, first, second)
    eventually(lambda: gone(pair.cloud, [early, late]), seconds=30)


def test_a_full_disk_of_the_database_refuses_grants_in_words_and_all_is_done_when_there_is_room(under_weather):
    pair, weather = under_weather(limits=EAGER, people=200)
    client = pair.clients[pair.replicas[0]]
    due, *others = pair.people
    grant = pair.grant(pair.replicas[0], due, seconds=3600)
    weather.fill_disk()
    refusal = None
    answered = []
    for person in others:
        # Pages that are there still take some.
        try:
            answered.append(pair.grant(pair.replicas[0], person, 3600, wait="ACCEPTED"))
        except grpc.RpcError as error:
            refusal = error
            break
    assert refusal is not None and refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
    assert "full" in refusal.details()
    for replica in pair.replicas:
        assert replica.process.child.poll() is None
    try:
        client.revoke(grant)
    except grpc.RpcError as error:
        print("revocation while full:", error.code(), error.details())
    weather.free_disk()
    eventually(lambda: pair.grant(pair.replicas[1], others[-1], 3600, wait="ACCEPTED"), seconds=10)
    client.revoke(grant)
    for one in (grant, *answered):
        client.revoke(one)
    for one in (grant, *answered):
        client.wait_for(one, "ENDED", seconds=30)
    assert not pair.cloud.held(due)


@pytest.mark.parametrize("jump", (7200, -7200))
def test_a_clock_of_the_database_that_jumps_moves_no_end_and_the_work_goes_on(under_weather, jump):
    pair, weather = under_weather(lines=True)
    early, kept = pair.cloud.person(), pair.cloud.person()
    ends = pair.grant(pair.replicas[0], early, seconds=4)
    stays = pair.grant(pair.replicas[0], kept, seconds=3600)
    weather.move_wall_clock(jump)
    [[now]] = pair.postgres.ask("postgres", "SELECT extract(epoch FROM clock_timestamp())::bigint")
    assert abs(int(now) - time.time() - jump) < 5, "the clock of the database jumped"
    client = pair.clients[pair.replicas[1]]
    client.wait_for(ends, "ENDED", seconds=20)
    assert not pair.cloud.held(early)
    assert pair.cloud.held(kept), "no end comes earlier"
    assert client.state(stays) == "ACTIVE"
    # Whoever owns now can be lost.
    owner = pair.owner()
    (other,) = pair.others(owner)
    owner.kill()
    pair.clients[other].revoke(stays)
    eventually(lambda: pair.is_owner(other), seconds=TAKE_OVER + 2)
    eventually(lambda: not pair.cloud.held(kept), seconds=10)


def test_an_owner_that_is_lost_with_the_clock_of_its_database_is_replaced_within_two_claims(under_weather):
    pair, weather = under_weather()
    person = pair.cloud.person()
    grant = pair.grant(pair.replicas[0], person, seconds=3600)
    owner = pair.owner()
    (other,) = pair.others(owner)
    owner.kill()
    lost_at = time.monotonic()
    # The deadline of the one who is gone lies two hours ahead now.
    weather.move_wall_clock(-7200)
    pair.clients[other].revoke(grant)
    eventually(lambda: not pair.cloud.held(person), seconds=3 * CLAIM)
    took = time.monotonic() - lost_at
    print(f"taken over after {took:.1f} s")
    assert took >= CLAIM, "not before its own claim has run out"
    assert "the clock of the database was set back" in other.log


def test_replicas_behind_a_pooler_share_the_work_and_survive_each_other(cluster):
    pair = cluster(2, pooled=True)
    assert all("pooler=true" in replica.log for replica in pair.replicas)
    people = []
    for replica in pair.replicas:
        person = pair.cloud.person()
        grant = pair.grant(replica, person, seconds=3)
        people.append(person)
        pair.clients[replica].wait_for(grant, "ENDED")
    assert gone(pair.cloud, people)
    owner = pair.owner()
    (other,) = pair.others(owner)
    people = [pair.cloud.person() for _ in range(10)]
    grants = [pair.grant(other, person, seconds=3) for person in people]
    killed_at = time.monotonic()
    owner.kill()
    eventually(lambda: pair.is_owner(other), seconds=TAKE_OVER + 2)
    took = time.monotonic() - killed_at
    assert took <= TAKE_OVER + 0.5, f"take-over took {took:.1f} s"
    for grant in grants:
        pair.clients[other].wait_for(grant, "ENDED")
    assert gone(pair.cloud, people)
    # Stopped in the middle of a transaction, it leaves the pooler's session to others.
    owner.start()
    pair.meet(owner)
    pair.pause(other)
    person = pair.cloud.person()
    grant = pair.grant(owner, person, seconds=2, timeout=30)
    pair.clients[owner].wait_for(grant, "ENDED", seconds=30)
    pair.resume(other)
    eventually(other.is_ready, seconds=15)
    assert len(pair.cloud.removes(person)) == 1


def test_a_database_that_is_not_the_one_hears_no_password(latchkey_bin, tmp_path, simulator, protocol):
    folders = [tmp_path / name for name in ("right", "wrong")]
    for folder in folders:
        folder.mkdir()
    (authority, certificate, key), (stranger, *_) = map(certificates, folders)
    server = Postgres("--tls", certificate, key)
    try:
        database = server.make()
        port = server.server.split(":")[1]

        def connector(name, host, ca_file):
            home = tmp_path / name
            home.mkdir()
            url = f"postgres://latchkey@{host}:{port}/{database}"
            return Connector(
                latchkey_bin, simulator, home, ledger={"kind": "postgres", "url": url, "ca_file": str(ca_file)}
            )

        # The certificate is of this address, not of that name.
        for name, host, ca_file in (("stranger", "127.0.0.1", stranger), ("name", "localhost", authority)):
            asked_at = time.monotonic()
            refused = run(latchkey_bin, "migrate", "--config", connector(name, host, ca_file).config_file)
            assert refused.returncode != 0
            assert "ledger.ca_file" in refused.stderr and "certificate" in refused.stderr, refused.stderr
            assert time.monotonic() - asked_at < 15, "waiting makes no certificate right"
            assert server.ask(database, "SELECT to_regclass('latchkey_schema') IS NULL") == [["t"]]
        subject = connector("subject", "127.0.0.1", authority).start()
        try:
            eventually(subject.is_ready, seconds=30)
            client = protocol.client(subject.grpc)
            person = simulator.person()
            grant = client.grant(person, "deployment-admin", simulator.deployment("staging"), seconds=1)
            client.wait_for(grant, "ENDED")
            client.close()
            sessions = (
                "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                f"WHERE datname = '{database}' AND application_name = 'latchkey'"
            )
            assert server.ask("postgres", sessions) == [["t"]], "every session is encrypted"
        finally:
            subject.kill()
    finally:
        server.close()
