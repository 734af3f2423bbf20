"""Torn and flipped bytes in the ledger: it works with nothing lost, or it is refused by name; never in between.

Row F51 of docs/faults.md.
"""

import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from harness import Connector, eventually

FLIPS, LOG_FLIPS, CUTS = 36, 16, 10
AT_ONCE = 4
HEADER, FRAME = 32, 24 + 4096


@pytest.fixture(scope="module")
def original(latchkey_bin, tmp_path_factory, protocol):
    """A ledger that was killed with its log beside it: open grants, ended ones, standing access."""
    from harness import Bench

    bench = Bench(latchkey_bin, tmp_path_factory.mktemp("original"), protocol)
    cloud, client = bench.cloud, bench.client
    targets = [cloud.deployment(name) for name in ("staging", "production-search", "production-logging")]
    for _ in range(3):
        over = client.grant(cloud.person(), "viewer", targets[0], seconds=1)
        client.wait_for(over, "ENDED")
    # Written back into the file, so that both the file and the log hold grants.
    assert bench.connector.stop() == 0
    bench.start()
    people = [cloud.person() for _ in range(8)]
    for number, person in enumerate(people):
        bench.client.grant(person, "viewer", targets[number % 3], seconds=3600 * (1 + number))
    bench.original = {grant.id: grant for grant in all_grants(bench.protocol, bench.client)}
    bench.kill()
    yield bench
    bench.close()


def all_grants(protocol, client):
    return client.access.ListGrants(protocol.ListGrantsRequest(page_size=100), timeout=10).grants


def told(grant):
    """What a caller was told of a grant and must find again."""
    granted = sorted(each.assignment.SerializeToString(deterministic=True) for each in grant.assignments)
    return (grant.id, grant.state, grant.expires_at.seconds, grant.request_id, grant.user_id, grant.role, granted)


def damaged(original, folder, change):
    """A connector on a copy of the ledger, with the change made to it."""
    folder.mkdir(parents=True)
    connector = Connector(original.binary, original.cloud, folder)
    for suffix in ("", "-wal"):
        source = original.connector.ledger_file.with_name(f"ledger.db{suffix}")
        shutil.copy(source, folder / source.name)
    change(folder)
    return connector


def outcome(original, connector):
    """`refused`, or what the connector shows; anything else is a failure."""
    files = {path: path.read_bytes() for path in connector.folder.glob("ledger.db*") if not path.name.endswith(".lock")}
    try:
        connector.start()
    except AssertionError as error:
        said = connector.log
        assert "panicked" not in said, said
        assert "ledger" in said and ("is damaged" in said or "not a Latchkey ledger" in said), f"{error}"
        assert "docs/ledger.md" in said or "set the ledger path" in said, said
        assert connector.ledger_file.read_bytes() == files[connector.ledger_file], "a damaged file is kept as it is"
        return "refused"
    client = original.protocol.client(connector.grpc)
    try:
        shown = {}
        try:
            shown = {grant.id: grant for grant in all_grants(original.protocol, client)}
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INTERNAL, error
        missing = {}
        for grant_id, grant in original.original.items():
            try:
                found = shown.get(grant_id) or client.get(grant_id)
            except grpc.RpcError as error:
                # A row that cannot be read is said to be one.
                missing[grant_id] = error.code()
                continue
            if told(found) != told(grant):
                missing[grant_id] = "other"
        assert "panicked" not in connector.log
        return missing
    finally:
        client.close()
        connector.kill()


def sweep(original, folder, changes):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = {
            name: pool.submit(
                lambda name=name, change=change: outcome(original, damaged(original, folder / str(name), change))
            )
            for name, change in changes.items()
        }
    wrong = {name: each.exception() for name, each in played.items() if each.exception() is not None}
    assert not wrong, wrong
    return {name: each.result() for name, each in played.items()}


def flip(name, at, bit=4):
    def change(folder):
        path = folder / name
        bytes_ = bytearray(path.read_bytes())
        bytes_[at] ^= 1 << bit
        path.write_bytes(bytes_)

    return change


def cut(name, length):
    def change(folder):
        with open(folder / name, "r+b") as file:
            file.truncate(length)

    return change


def size(original, suffix=""):
    return original.connector.ledger_file.with_name(f"ledger.db{suffix}").stat().st_size


def test_a_flipped_byte_of_the_file_is_harmless_or_named(original, tmp_path):
    chance = random.Random(51)
    # Bytes 18 and 19 only say how the file may be opened: SQLite calls such a file read-only, and so do we.
    places = [16, 60, 100] + [chance.randrange(100, size(original)) for _ in range(FLIPS)]

    def settled(at, bit):
        def change(folder):
            # What stands in the log is not read from the file: the log goes into it first.
            with closing(sqlite3.connect(folder / "ledger.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            flip("ledger.db", at, bit)(folder)

        return change

    found = sweep(original, tmp_path, {at: settled(at, chance.randrange(8)) for at in places})
    for at, missing in found.items():
        if missing == "refused":
            continue
        # Nothing is another than it was; a row that cannot be read is an error, not an absence.
        assert all(code is grpc.StatusCode.INTERNAL for code in missing.values()), (at, missing)
    assert "refused" in found.values() or any(found.values()), "no flip met anything: the test tests nothing"


def test_a_flipped_byte_of_the_log_is_named(original, tmp_path):
    chance = random.Random(52)
    length = size(original, "-wal")
    frames = (length - HEADER) // FRAME
    assert frames >= 10, "the log holds commits"
    places = [0, 5, 17, 25] + [chance.randrange(HEADER, HEADER + (frames - 4) * FRAME) for _ in range(LOG_FLIPS)]
    found = sweep(original, tmp_path, {at: flip("ledger.db-wal", at, chance.randrange(8)) for at in places})
    for at, missing in found.items():
        log = (tmp_path / str(at) / "connector.log").read_text()
        assert missing == "refused" or not missing or "ends in a commit that cannot be read" in log, (at, missing)
    assert list(found.values()).count("refused") >= len(places) // 2, found


def test_a_torn_file_is_refused_and_a_torn_log_is_an_earlier_moment(original, tmp_path):
    chance = random.Random(53)
    file, log = size(original), size(original, "-wal")
    changes = {f"file-{at}": cut("ledger.db", at) for at in sorted(chance.randrange(1, file) for _ in range(CUTS))}
    changes |= {f"log-{at}": cut("ledger.db-wal", at) for at in sorted(chance.randrange(log) for _ in range(CUTS))}
    found = sweep(original, tmp_path, changes)
    for name, missing in found.items():
        if name.startswith("log"):
            # As after a crash at that moment: what is shown was so once.
            assert missing != "refused", name
            allowed = {grpc.StatusCode.NOT_FOUND, "other"}
            assert set(missing.values()) <= allowed, (name, missing)
        else:
            assert missing == "refused" or not missing, (name, missing)
    assert "refused" in found.values()


def test_a_body_that_was_changed_is_found_by_the_check_beside_the_work(original, tmp_path):
    """A changed end is a valid text: only its checksum tells."""
    person = next(iter(original.original.values()))

    def change(folder):
        import sqlite3

        with sqlite3.connect(folder / "ledger.db") as ledger:
            # As rot would: past every constraint, trigger and index.
            ledger.execute("PRAGMA writable_schema=ON")
            ledger.execute("DROP TRIGGER grants_version_rises")
            changed = ledger.execute(
                "UPDATE grants SET body = replace(body, 'deployment-viewer', 'deployment-editor') WHERE id = ?",
                (person.id,),
            )
            assert changed.rowcount == 1
        ledger.close()

    connector = damaged(original, tmp_path / "changed", change)
    connector.start()
    try:
        eventually(lambda: "Ledger is damaged" in connector.log, seconds=20)
        assert person.id in connector.log
        eventually(lambda: not connector.is_ready(), seconds=5)
        client = original.protocol.client(connector.grpc)
        refusal = client.refused(client.get, person.id)
        assert refusal.code == "INTERNAL", refusal
        # Everybody else is served.
        others = [grant for grant in original.original if grant != person.id]
        assert all(client.get(each).id == each for each in others)
        client.close()
    finally:
        connector.kill()


def test_something_else_in_the_place_of_the_ledger_is_refused(original, tmp_path):
    def text(folder):
        (folder / "ledger.db").write_bytes(b"this is not a database, whatever its name says\n" * 200)
        (folder / "ledger.db-wal").unlink()

    connector = damaged(original, tmp_path / "text", text)
    assert outcome(original, connector) == "refused"
    done = subprocess.run(
        [original.binary, "serve", "--config", connector.config_file], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1 and "is damaged" in done.stderr and "restore" in done.stderr
