"""The key: read by the AWS SDK, rotated while running, healed without a restart, and shown nowhere."""

import json
import pathlib
import re

import boto3
import grpc
import pytest
import requests
from grpc_client.protocol import refusal_of
from harness import Bench, eventually, run, write_key

from .test_rotation import cli, keys, meddled, wait_until_over, with_rotation

NAME = "latchkey/elastic"
REGION = "eu-central-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing-id",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def secrets_manager(moto_url):
    """A client of the played Secrets Manager, emptied before each test."""
    requests.post(f"{moto_url}/moto-api/reset", timeout=10)
    return boto3.client(
        "secretsmanager",
        endpoint_url=moto_url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def aws_bench(make_bench, moto_url):
    """Makes a pair whose key is in Secrets Manager, logging at the most verbose level."""

    def make(**options):
        bench = make_bench(start=False, log={"filter": "trace"}, **options)
        config = dict(bench.connector.config)
        [integration] = config["integrations"]
        source = {"secret_id": NAME, "region": REGION, "endpoint_url": moto_url}
        config["integrations"] = [{**integration, "secret": {"aws_secrets_manager": source}}]
        bench.connector.configure(config)
        bench.connector.key_file.unlink()
        return bench

    return make


def new_key(cloud):
    made = cloud.control("POST", "keys", {"description": "rotated"})
    return made["id"], made["key"]


def key_id(cloud, key):
    return next(each["id"] for each in cloud.control("GET", "keys")["keys"] if each["key"] == key)


def works(bench):
    """A whole grant: given, verified, taken away."""
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    assert bench.client.state_word(grant) == "ACTIVE", grant
    bench.client.wait_for(grant, "ENDED")
    assert bench.cloud.held(person) == set()


def places(bench):
    """Everything that the connector writes or shows, by name."""
    shown = {path.name: path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()}
    # The key file itself, and the other side's own log, are not the connector's words.
    for name in ("api-key", "simulator.log"):
        shown.pop(name, None)
    for page in ("metrics", "readyz", "healthz"):
        shown[f"/{page}"] = requests.get(f"{bench.connector.http}/{page}", timeout=10).content
    shown["cmdline"] = pathlib.Path(f"/proc/{bench.connector.process.pid}/cmdline").read_bytes()
    shown["environ"] = pathlib.Path(f"/proc/{bench.connector.process.pid}/environ").read_bytes()
    pb = bench.protocol
    shown["integrations"] = str(
        bench.client.connector.ListIntegrations(pb.ListIntegrationsRequest(), timeout=10)
    ).encode()
    return shown


def assert_hidden(bench, *keys):
    for name, content in places(bench).items():
        for key in keys:
            for part in (key, key.split("_", 1)[-1], key[-24:]):
                assert part.encode() not in content, f"{name} shows the key"


def test_the_key_is_read_from_secrets_manager_and_a_rotation_heals_by_itself(secrets_manager, aws_bench):
    made = None

    def store(key):
        nonlocal made
        text = json.dumps({"api_key": key})
        if made is None:
            made = secrets_manager.create_secret(Name=NAME, SecretString=text)
        else:
            secrets_manager.put_secret_value(SecretId=NAME, SecretString=text)

    bench = aws_bench()
    cloud = bench.cloud
    old = cloud.api_key
    store(old)
    bench.start(CREDENTIALS)
    works(bench)

    # Somebody holds access while the key changes below it.
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=3)
    _, new = new_key(cloud)
    store(new)
    cloud.control("DELETE", f"keys/{key_id(cloud, old)}")
    bench.client.wait_for(grant, "ENDED", seconds=40)
    assert cloud.held(person) == set()
    eventually(lambda: _grants_again(bench), seconds=30, every=0.5)
    works(bench)
    assert any(call.get("status") == 401 for call in cloud.calls()), "the old key was never refused"
    assert_hidden(bench, old, new)


def _grants_again(bench):
    pb = bench.protocol
    [found] = bench.client.connector.ListIntegrations(pb.ListIntegrationsRequest(), timeout=10).integrations
    return found.health == pb.INTEGRATION_HEALTH_OK


def test_the_key_shows_nowhere_whatever_goes_wrong(secrets_manager, aws_bench):
    bench = aws_bench()
    cloud, key = bench.cloud, bench.cloud.api_key
    secrets_manager.create_secret(Name=NAME, SecretString=key)
    bench.start(CREDENTIALS)
    works(bench)
    # An upstream that repeats the key to us, as a proxy's error page might.
    cloud.faults({"action": {"type": "fail", "status": 401, "message": f"key {key} is unknown", "html": True}})
    person = cloud.person()
    refusal = bench.client.refused(
        bench.client.grant, person.email, "viewer", cloud.deployment("staging"), timeout=40
    )
    assert key not in refusal.text
    cloud.faults({"action": {"type": "redirect", "location": f"http://127.0.0.1:9/{key}"}})
    refusal = bench.client.refused(
        bench.client.grant, person.email, "viewer", cloud.deployment("staging"), timeout=40
    )
    assert key not in refusal.text
    cloud.faults()
    assert_hidden(bench, key)


def test_a_secret_that_is_missing_at_first_heals_when_it_appears(secrets_manager, aws_bench):
    bench = aws_bench()
    bench.start(CREDENTIALS, until_ready=False)
    assert requests.get(f"{bench.connector.http}/healthz", timeout=10).status_code == 200
    person = bench.cloud.person()
    refusal = bench.client.refused(
        bench.client.grant, person.email, "viewer", bench.cloud.deployment("staging"), timeout=30
    )
    assert refusal.code in ("UNAVAILABLE", "FAILED_PRECONDITION"), refusal
    secrets_manager.create_secret(Name=NAME, SecretString=bench.cloud.api_key)
    eventually(lambda: _can_read(bench), seconds=40, every=0.5)
    works(bench)


def _can_read(bench):
    pb = bench.protocol
    try:
        return bench.client.directory.ListMembers(pb.ListMembersRequest(), timeout=10).members
    except grpc.RpcError:
        return None


def test_doctor_names_the_remedy_for_each_fault_of_the_store(secrets_manager, aws_bench):
    bench = aws_bench()
    config = bench.connector.config_file

    def doctor(env=CREDENTIALS):
        return run(bench.binary, "doctor", "--config", config, env=env, seconds=60)

    missing = doctor()
    assert missing.returncode != 0
    said = missing.stdout + missing.stderr
    assert NAME in said and "create the secret" in said

    for text, words in [
        ('{"other": "x"}', "api_key"),
        ("ApiKey essu_abc", "Authorization"),
        ('"essu_abc"', "quotes"),
    ]:
        if secrets_manager.list_secrets()["SecretList"]:
            secrets_manager.put_secret_value(SecretId=NAME, SecretString=text)
        else:
            secrets_manager.create_secret(Name=NAME, SecretString=text)
        found = doctor()
        assert found.returncode != 0
        assert words in found.stdout + found.stderr, (text, found)
        assert "essu_abc" not in found.stdout + found.stderr

    nobody = doctor({"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"})
    assert nobody.returncode != 0
    assert "AWS_ACCESS_KEY_ID" in nobody.stdout + nobody.stderr

    secrets_manager.put_secret_value(SecretId=NAME, SecretString=bench.cloud.api_key)
    fine = doctor()
    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert bench.cloud.api_key not in fine.stdout + fine.stderr


def test_a_replaced_key_file_is_taken_up_without_a_restart(make_bench):
    bench = make_bench(log={"filter": "trace"})
    cloud, old = bench.cloud, bench.cloud.api_key
    works(bench)
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=2)
    # The old key is revoked first: for a while there is none that works.
    _, new = new_key(cloud)
    cloud.control("DELETE", f"keys/{key_id(cloud, old)}")
    bench.client.wait_for(grant, "REVOKING")
    assert cloud.held(person)
    write_key(bench.connector.key_file, new)
    bench.client.wait_for(grant, "ENDED", seconds=40)
    assert cloud.held(person) == set()
    works(bench)
    assert_hidden(bench, old, new)


def test_a_key_from_the_environment_works_and_is_not_repeated(make_bench):
    bench = make_bench(start=False, log={"filter": "trace"})
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    config["integrations"] = [{**integration, "secret": {"env": {"name": "ELASTIC_KEY_FOR_TEST"}}}]
    bench.connector.configure(config)
    bench.start({"ELASTIC_KEY_FOR_TEST": bench.cloud.api_key})
    works(bench)
    for name, content in places(bench).items():
        if name != "environ":
            assert bench.cloud.api_key.encode() not in content, name


@pytest.mark.parametrize("what", ["wrong", "reduced"])
def test_a_key_that_may_not_grant_is_named_as_the_fault(make_bench, what):
    bench: Bench = make_bench()
    cloud = bench.cloud
    if what == "wrong":
        write_key(bench.connector.key_file, "essu_" + "A" * 60)
        cloud.control("DELETE", f"keys/{key_id(cloud, cloud.api_key)}")
        words, codes = r"key", ("UNAVAILABLE", "FAILED_PRECONDITION")
    else:
        viewer = {"deployment": [{"role_id": "deployment-viewer", "all": True}]}
        cloud.control("POST", f"keys/{key_id(cloud, cloud.api_key)}/reduce", {"role_assignments": viewer})
        words, codes = r"organization-admin", ("UNAVAILABLE", "FAILED_PRECONDITION", "PERMISSION_DENIED", "NOT_FOUND")
    person = cloud.person()
    try:
        grant = bench.client.grant(person.email, "viewer", cloud.deployment("staging"), timeout=40)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert refusal.code in codes and re.search(words, refusal.message), refusal
    else:
        # A filtered list may show the member; the key turns out to be unable before anything was added.
        assert bench.client.reason_word(grant) == "ACTIVATION_FAILED", grant
        assert re.search(words, grant.last_error.message), grant
    assert cloud.held(person) == set() and cloud.changes() == {}

    doctor = run(bench.binary, "doctor", "--config", bench.connector.config_file)
    said = doctor.stdout + doctor.stderr
    assert doctor.returncode != 0 and re.search(r"organization-admin|key", said), said


# --- rotation ---


@pytest.fixture
def rotating(secrets_manager, aws_bench):
    """A running pair whose key is in a JSON secret beside something else."""
    bench = with_rotation(aws_bench())
    text = json.dumps({"api_key": bench.cloud.api_key, "owner": "platform"})
    secrets_manager.create_secret(Name=NAME, SecretString=text)
    return bench.start(CREDENTIALS)


def current(secrets_manager, stage="AWSCURRENT"):
    return secrets_manager.get_secret_value(SecretId=NAME, VersionStage=stage)


def test_a_rotation_writes_a_new_version_to_secrets_manager_under_a_token_of_its_own(secrets_manager, rotating):
    bench = rotating
    cloud, old = bench.cloud, bench.cloud.api_key
    before = current(secrets_manager)["VersionId"]
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=2)
    cli(bench, "key", "rotate", "--reason", "quarterly")
    wait_until_over(bench)
    [new] = keys(cloud).values()
    found = current(secrets_manager)
    assert json.loads(found["SecretString"]) == {"api_key": new, "owner": "platform"} and new != old
    assert re.fullmatch("latchkey-rotation-[0-9a-f]{20}-1", found["VersionId"]), found
    assert current(secrets_manager, "AWSPREVIOUS")["VersionId"] == before
    bench.client.wait_for(grant, "ENDED")
    assert cloud.held(person) == set()
    works(bench)
    assert_hidden(bench, old, new)


def test_a_version_that_somebody_else_puts_meanwhile_wins(secrets_manager, rotating):
    theirs = meddled(rotating, lambda key: secrets_manager.put_secret_value(SecretId=NAME, SecretString=key))
    assert current(secrets_manager)["SecretString"] == theirs
    works(rotating)
