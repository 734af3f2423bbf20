"""A restored, a lost and an unwitnessed ledger, as an operator meets them."""

import json
import shutil
import sqlite3

import pytest
from harness import eventually, never, run

PAIR = "deployment/deployment-viewer/{}"


def witnessed(make_bench, tmp_path):
    """A connector with a witness beside its ledger's folder."""
    return make_bench(witness={"path": str(tmp_path / "witness-volume" / "witness")})


def back_up(bench, to):
    with sqlite3.connect(bench.connector.ledger_file) as ledger:
        ledger.execute("VACUUM INTO ?", (str(to),))
    ledger.close()


def lose_ledger(bench):
    for path in bench.connector.folder.glob("ledger.db*"):
        path.unlink()


def restart(bench):
    bench.start(until_ready=False)
    eventually(lambda: "hold of elastic" in readiness(bench), seconds=30)


def readiness(bench):
    import requests

    return requests.get(f"{bench.connector.http}/readyz", timeout=10).text


def hold_of(bench):
    answer = bench.cli("hold", "--output", "json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def release(bench):
    answer = bench.cli("hold", "release", "--reason", "compared with the console")
    assert answer.returncode == 0, answer.stderr
    eventually(bench.connector.is_ready, seconds=30)


def refused(bench, person, deployment):
    """A grant is refused, with the reason and what to do."""
    answer = bench.cli("grant", person.email, "viewer", "--on", f"deployment/{deployment}", "--for", "5m")
    assert answer.returncode != 0
    assert "latchkey hold" in answer.stderr, answer.stderr


def test_yesterdays_ledger_touches_nothing_that_it_cannot_prove(make_bench, tmp_path):
    bench = witnessed(make_bench, tmp_path)
    cloud, client = bench.cloud, bench.client
    first, second = cloud.deployment("staging"), cloud.deployment("production-search")
    ada, bob = cloud.person(), cloud.person()
    over = client.grant(bob, "viewer", first, seconds=600)
    client.wait_for(over, "ACTIVE")
    back_up(bench, tmp_path / "yesterday.db")
    # Meanwhile one grant ends and its access comes back by another hand; another one is given.
    client.revoke(over.id)
    client.wait_for(over, "ENDED")
    unknown = client.grant(ada, "viewer", second, seconds=8)
    client.wait_for(unknown, "ACTIVE")
    eventually(lambda: "second_look" in [event["kind"] for event in bench.connector.events(bob)], seconds=60)
    standing = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [first]}]}
    cloud.control("POST", f"members/{bob.user_id}/assignments", standing)
    bench.kill()

    lose_ledger(bench)
    shutil.copy(tmp_path / "yesterday.db", bench.connector.ledger_file)
    before = cloud.changes()
    restart(bench)
    assert bench.connector.metric("latchkey_hold", integration="elastic") == 1
    hold = hold_of(bench)
    assert hold["is_held"] and hold["evidence"] == "witness"
    assert [reason["code"] for reason in hold["reasons"]] == ["ledger_behind"]
    assert [(item["user_id"], item["action"]) for item in hold["items"] if item["action"] == "leave"] == [
        (bob.user_id, "leave")
    ]
    refused(bench, ada, first)
    never(lambda: cloud.changes() != before and cloud.removes(bob)[1:], seconds=2)
    assert cloud.held(bob) == {PAIR.format(first)}
    doctor = bench.cli("doctor", "--config", bench.connector.config_file)
    assert doctor.returncode == 1 and "in hold since" in doctor.stdout

    # Still so after a restart.
    bench.kill()
    restart(bench)
    assert hold_of(bench)["is_held"]
    release(bench)
    assert hold_of(bench)["is_held"] is False
    assert bench.connector.metric("latchkey_hold", integration="elastic") == 0
    fresh = bench.client.grant(ada, "viewer", first, seconds=2)
    bench.client.wait_for(fresh, "ENDED", seconds=60)
    assert cloud.held(bob) == {PAIR.format(first)}, "standing access was touched"
    assert len(cloud.removes(bob)) == 1
    released = bench.connector.rows("SELECT body FROM events WHERE kind = 'hold_released'")
    assert len(released) == 1 and "compared with the console" in released[0]["body"]
    assert bench.connector.stop() == 0


def test_a_lost_ledger_is_rebuilt_from_the_audit_and_the_witness(make_bench, tmp_path):
    bench = witnessed(make_bench, tmp_path)
    cloud, client = bench.cloud, bench.client
    first = cloud.deployment("staging")
    ada = cloud.person()
    config = bench.connector.config_file

    def export(name):
        exported = run(bench.binary, "events", "--config", config)
        assert exported.returncode == 0, exported.stderr
        (tmp_path / name).write_text(exported.stdout)

    export("old.jsonl")
    grant = client.grant(ada, "viewer", first, seconds=600)
    client.wait_for(grant, "ACTIVE")
    assert bench.connector.stop() == 0
    export("events.jsonl")
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])["sequence"]
    for after, code in ((last - 1, 0), (last, 0), (last + 1, 5)):
        told = run(bench.binary, "events", "--config", config, "--after", str(after))
        assert (told.returncode, len(told.stdout.splitlines())) == (code, 1 if after < last else 0), told.stderr
    assert f"no event {last + 1} yet: the newest is {last}" in told.stderr and "--after 0" in told.stderr
    lose_ledger(bench)

    witness = tmp_path / "witness-volume" / "witness"
    old = run(bench.binary, "adopt", "--config", config, "--from", tmp_path / "old.jsonl", "--from", witness, "--output", "json")
    assert old.returncode == 0, old.stderr
    assert json.loads(old.stdout)["in_hold"] is True
    assert "later events than the export" in json.loads(old.stdout)["left_out"][-1]
    lines = (tmp_path / "old.jsonl").read_text().splitlines()
    other = [json.loads(line) for line in lines]
    other[0]["sequence"], other[1]["sequence"] = other[1]["sequence"], other[0]["sequence"]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in other))
    mixed = run(
        bench.binary, "adopt", "--config", config, "--from", tmp_path / "old.jsonl", "--from", tmp_path / "other.jsonl"
    )
    assert mixed.returncode == 1 and "exports of two ledgers" in mixed.stderr
    args = ["adopt", "--config", config, "--from", tmp_path / "events.jsonl", "--from", witness]
    shown = run(bench.binary, *args, "--output", "json")
    assert shown.returncode == 0, shown.stderr
    shown = json.loads(shown.stdout)
    assert [one["source"] for one in shown["assignments"]] == ["audit+witness"]
    assert not shown["is_written"] and not bench.connector.ledger_file.exists()
    written = run(bench.binary, *args, "--write", "--output", "json")
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["in_hold"] is False
    again = run(bench.binary, *args, "--write")
    assert again.returncode == 1 and "not empty" in again.stderr

    before = cloud.changes()
    bench.start()
    back = bench.client.get(grant.id)
    assert bench.client.state(back) == "ACTIVE"
    assert cloud.changes() == before
    bench.client.revoke(grant.id)
    bench.client.wait_for(grant, "ENDED", seconds=60)
    assert cloud.held(ada) == set()
    assert bench.connector.stop() == 0


@pytest.mark.parametrize("fate", ["missing", "damaged", "ledger"])
def test_what_one_of_the_two_still_knows_is_taken_away(make_bench, tmp_path, fate):
    bench = witnessed(make_bench, tmp_path)
    cloud, client = bench.cloud, bench.client
    first = cloud.deployment("staging")
    ada = cloud.person()
    grant = client.grant(ada, "viewer", first, seconds=4)
    client.wait_for(grant, "ACTIVE")
    bench.kill()
    witness = tmp_path / "witness-volume" / "witness"
    if fate == "missing":
        witness.unlink()
    elif fate == "damaged":
        content = bytearray(witness.read_bytes())
        content[40] ^= 1
        witness.write_bytes(content)
    else:
        lose_ledger(bench)
    restart(bench)
    reasons = {"missing": "witness_missing", "damaged": "witness_damaged", "ledger": "other_ledger"}
    assert [reason["code"] for reason in hold_of(bench)["reasons"]] == [reasons[fate]]
    refused(bench, ada, first)
    if fate == "ledger":
        # The witness knows the end that was fixed before the first byte: two minutes later than the real one.
        assert cloud.held(ada) == {PAIR.format(first)}
        answer = bench.cli("revoke-all", "--member", ada.email, "--yes")
        assert answer.returncode == 0, answer.stderr
    eventually(lambda: cloud.held(ada) == set(), seconds=60)
    release(bench)
    fresh = bench.client.grant(ada, "viewer", first, seconds=1)
    bench.client.wait_for(fresh, "ENDED", seconds=60)
    assert bench.connector.stop() == 0
