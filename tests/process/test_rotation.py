"""The rotation of the key: one new key at the end, wherever the connector is killed, and no revocation missed."""

import json

import pytest
from harness import eventually, run

STAGES = ["intended", "creating", "created", "storing", "stored", "switched", "deleting", "done"]


@pytest.fixture
def rotating(make_bench):
    """Makes a pair that looks at its rotation every second and keeps the old key for ten."""

    def make():
        bench = make_bench(start=False, sweeps={"key_rotation": "* * * * * *"})
        config = dict(bench.connector.config)
        [integration] = config["integrations"]
        config["integrations"] = [{**integration, "rotation": {"keep_old": "10s"}}]
        bench.connector.configure(config)
        return bench.start()

    return make


def cli(bench, *words):
    done = run(bench.binary, "--server", f"http://{bench.connector.grpc}", *words, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stage(bench):
    found = bench.connector.rows("SELECT body FROM key_rotations")
    return json.loads(found[0]["body"])["stage"] if found else None


def keys(cloud):
    return {each["id"]: each["key"] for each in cloud.control("GET", "keys")["keys"]}


def wait_until_over(bench):
    eventually(lambda: stage(bench) in ("done", "abandoned"), seconds=90, every=0.2)
    assert stage(bench) == "done", bench.connector.log[-4000:]


def has_one_new_key(bench, before):
    """As many keys as before; the one that is new is stored and in use, and the old one is gone."""
    after = keys(bench.cloud)
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    assert len(gone) == 1 and len(new) == 1, (before.keys(), after.keys())
    assert before[gone.pop()] == bench.cloud.api_key
    assert bench.connector.key_file.read_text() == after[next(iter(new))]
    shown = cli(bench, "key", "show")
    assert shown["key_id"] == next(iter(new))
    # What the connector knows of it comes from answers that it got with it.
    assert shown["sees_owners"] and shown["expires_at"]


def test_a_rotation_leaves_one_new_key_and_misses_no_revocation(rotating):
    bench = rotating()
    cloud, before = bench.cloud, keys(bench.cloud)
    staging = cloud.deployment("staging")
    people = [cloud.person() for _ in range(20)]
    grants = [
        bench.client.grant(person, "viewer", staging, seconds=1 + at) for at, person in enumerate(people)
    ]
    rotation = cli(bench, "key", "rotate", "--reason", "quarterly", "--requester", "ada")
    assert rotation["stage"] in ("switched", "deleting", "done")
    for person, grant in zip(people, grants):
        bench.client.wait_for(grant, "ENDED")
        assert cloud.held(person) == set()
    wait_until_over(bench)
    has_one_new_key(bench, before)
    steps = [json.loads(row["body"]) for row in bench.connector.rows(
        "SELECT body FROM events WHERE kind = 'key_rotation' ORDER BY sequence"
    )]
    assert [step["kind"]["stage"] for step in steps] == STAGES
    assert {(step["kind"]["by"], step["kind"]["reason"]) for step in steps} == {("ada", "quarterly")}
    texts = {key.encode() for key in [*before.values(), *keys(cloud).values()]}
    ledger = b"".join(path.read_bytes() for path in bench.folder.glob("ledger.db*"))
    log = bench.connector.log.encode()
    assert not any(text in ledger or text in log for text in texts)


@pytest.mark.parametrize("at", STAGES[:-1])
def test_a_connector_that_is_killed_in_a_rotation_ends_it_after_the_restart(rotating, at):
    bench = rotating()
    before = keys(bench.cloud)
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=2)
    cli(bench, "key", "rotate", "--reason", "quarterly", "--no-wait")
    # Some stages pass within milliseconds; then it dies at the next one.
    eventually(lambda: STAGES.index(stage(bench)) >= STAGES.index(at), seconds=60, every=0.001)
    bench.kill()
    bench.start()
    wait_until_over(bench)
    has_one_new_key(bench, before)
    bench.client.wait_for(grant, "ENDED")
    assert bench.cloud.held(person) == set()
