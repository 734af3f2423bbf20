"""Access that does not go away: overdue, forgotten by two people, swept without a connector; and the receipts of it."""

import json
from datetime import timedelta

from grpc_client.protocol import time_of
from harness import eventually, now, run

REMOVE = "role_assignments.remove"
REFUSED = {"match": {"kind": REMOVE}, "action": {"type": "fail", "status": 403}}


def cli(bench, *words, seconds=60):
    return run(bench.binary, "--server", f"http://{bench.connector.grpc}", *words, seconds=seconds)


def receipt(bench, grant):
    done = cli(bench, "receipt", grant.id, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_overdue_access_is_named_forgotten_by_two_people_and_watched_for(make_bench):
    bench = make_bench(sweeps={"drift": "* * * * * *"})
    cloud, client, person = bench.cloud, bench.client, bench.cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=2)
    cloud.faults(REFUSED)
    client.wait_for(grant, "REVOKING")

    def blocked():
        done = cli(bench, "overdue", "--grace", "1s", "--output", "json")
        found = [each for each in json.loads(done.stdout) if each["blocked_code"]]
        return (done.returncode, found[0]) if found else None

    code, late = eventually(blocked, seconds=40)
    assert code == 8
    assert (late["user_id"], late["grant_ids"]) == (person.user_id, [grant.id])
    assert late["last_error"]["message"] and late["attempts"] > 0

    def forget(who):
        named = ("--member", person.user_id, "--role", late["role"], "--on", late["target"])
        done = cli(
            bench, "forget", *named, "--reason", "gone", "--requester", who, "--yes", "--output", "json"
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert forget("ada")["state"] == "proposed"
    assert forget("ada")["state"] == "proposed", "one person is not two"
    assert client.state(grant) == "REVOKING"
    done = forget("grace")
    assert (done["state"], done["ended_grant_ids"]) == ("forgotten", [grant.id])
    assert client.state(grant) == "ENDED"

    proof = receipt(bench, grant)
    assert proof["assurance"] == "given_up"
    line = proof["lines"][0]
    assert line["fate"] == "forgotten" and line["removed"]["refused"] > 0
    assert (line["given_up"]["by"], line["given_up"]["confirmed_by"]) == ("ada", "grace")

    # It is not ours any more: nothing removes it, and it is reported as long as it is there.
    cloud.faults()

    def drift(kind):
        found = bench.connector.rows("SELECT subject, body FROM events WHERE kind = 'drift'")
        return [row for row in found if person.user_id in row["subject"] and kind in row["body"]]

    eventually(lambda: drift("forgotten_still_present"), seconds=20)
    assert cloud.held(person)
    assert cli(bench, "overdue", "--grace", "1s").returncode == 0
    cloud.control("PUT", f"members/{person.user_id}/assignments", {"role_assignments": {}})
    eventually(lambda: drift("forgotten_gone"), seconds=20)
    assert len(drift("forgotten_still_present")) == 1, "reported once a day"


def test_a_receipt_proves_an_ordinary_end_and_is_closed_by_the_second_look(make_bench):
    bench = make_bench()
    cloud, client, person = bench.cloud, bench.client, bench.cloud.person()
    grant = client.grant(person, "viewer", cloud.deployment("staging"), seconds=1)
    early = cli(bench, "receipt", grant.id)
    assert early.returncode in (0, 5), early.stderr
    client.wait_for(grant, "ENDED")
    proof = receipt(bench, grant)
    line = proof["lines"][0]
    assert line["fate"] == "removed" and line["gone_at"] and line["removed"]["done_at"]
    assert proof["before"]["assignments"] == [] and proof["after"]["assignments"] == []
    assert 0 <= proof["due_to_gone_milliseconds"] < 10_000
    assert "Elastic documents" in " ".join(proof["notes"])
    words = cli(bench, "receipt", grant.id).stdout
    assert "Seen gone" in words and person.user_id in words
    listed = json.loads(cli(bench, "receipts", "--output", "json").stdout)
    assert [each["grant_id"] for each in listed] == [grant.id]


def test_a_sweep_removes_what_a_dead_connector_left(make_bench):
    bench = make_bench()
    cloud, client = bench.cloud, bench.client
    late, later = cloud.person(), cloud.person()
    grant = client.grant(late, "viewer", cloud.deployment("staging"), seconds=2)
    stays = client.grant(later, "viewer", cloud.deployment("staging"), seconds=3600)
    config = bench.connector.config_file
    beside = run(bench.binary, "sweep", "--config", config)
    assert beside.returncode == 5 and "a connector runs" in beside.stderr, beside.stderr
    assert "latchkey overdue" in beside.stderr

    end = time_of(client.get(grant).expires_at)
    bench.kill()
    eventually(lambda: now() > end + timedelta(milliseconds=200))
    assert cloud.held(late)

    shown = run(bench.binary, "sweep", "--config", config, "--dry-run", "--output", "json")
    assert shown.returncode == 0, shown.stderr
    planned = json.loads(shown.stdout)["planned"]
    assert [(each["member"], each["method"]) for each in planned] == [(f"user:{late.user_id}", "DELETE")]
    assert cloud.removes(late) == []

    cloud.faults((REMOVE, {"type": "fail", "status": 503}))
    failed = run(bench.binary, "--timeout", "3s", "sweep", "--config", config, "--output", "json")
    assert failed.returncode == 8, failed.stdout + failed.stderr
    assert [each["member"] for each in json.loads(failed.stdout)["left"]] == [f"user:{late.user_id}"]
    cloud.faults()

    done = run(bench.binary, "sweep", "--config", config, "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    swept = json.loads(done.stdout)
    assert (swept["members"], swept["left"]) == (1, [])
    assert cloud.held(late) == set()
    assert cloud.held(later), "what is not due is left alone"

    everything = run(
        bench.binary, "sweep", "--config", config, "--all", "--reason", "the cluster is lost", "--requester", "ada"
    )
    assert everything.returncode == 0, everything.stdout + everything.stderr
    assert cloud.held(later) == set()

    bench.start()
    assert client_state(bench, grant) == client_state(bench, stays) == "ENDED"
    assert receipt(bench, grant)["lines"][0]["fate"] == "removed"
    proof = receipt(bench, stays)
    assert (proof["end"]["reason"], proof["end"]["by"]) == ("revoked", "ada")


def client_state(bench, grant):
    return bench.client.state(grant)
