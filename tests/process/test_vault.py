"""The key in a real OpenBao server: read by AppRole and by token, over sealing, rotation and revoked logins."""

import pytest
from harness import eventually, run

from .openbao import OpenBao
from .test_rotation import cli, keys, meddled, rotation_of, stage, wait_until_over, with_rotation
from .test_secrets import assert_hidden, key_id, new_key, works


@pytest.fixture
def openbao(tmp_path):
    folder = tmp_path / "openbao"
    folder.mkdir()
    server = OpenBao(folder)
    yield server
    server.close()


@pytest.fixture
def vault_bench(make_bench, openbao):
    """Makes a pair whose key is in OpenBao, logging at the most verbose level."""

    def make(**login):
        bench = make_bench(start=False, log={"filter": "trace"})
        config = dict(bench.connector.config)
        [integration] = config["integrations"]
        config["integrations"] = [{**integration, "secret": openbao.source(**login)}]
        bench.connector.configure(config)
        bench.connector.key_file.unlink()
        openbao.put(bench.cloud.api_key)
        return bench

    return make


def test_the_key_is_read_by_approle_and_a_sealed_store_costs_no_revocation(openbao, vault_bench):
    bench = vault_bench()
    bench.start()
    works(bench)
    person = bench.cloud.person()
    grant = bench.client.grant(person, "editor", bench.cloud.deployment("staging"), seconds=2)
    openbao.seal()
    bench.client.wait_for(grant, "ENDED", seconds=30)
    assert bench.cloud.held(person) == set()
    openbao.unseal()
    works(bench)
    assert_hidden(bench, bench.cloud.api_key, openbao.secret_id_file.read_text())


def test_a_rotation_while_the_store_is_sealed_heals_when_it_is_unsealed(openbao, vault_bench):
    bench = vault_bench()
    bench.start()
    cloud, old = bench.cloud, bench.cloud.api_key
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=2)
    _, new = new_key(cloud)
    openbao.put(new)
    openbao.seal()
    cloud.control("DELETE", f"keys/{key_id(cloud, old)}")
    bench.client.wait_for(grant, "REVOKING", seconds=20)
    assert cloud.held(person)
    openbao.unseal()
    bench.client.wait_for(grant, "ENDED", seconds=60)
    assert cloud.held(person) == set()
    assert_hidden(bench, old, new)


def test_a_start_with_the_store_sealed_heals_when_it_is_unsealed(openbao, vault_bench):
    bench = vault_bench()
    openbao.seal()
    bench.start(until_ready=False)
    openbao.unseal()
    eventually(lambda: _works(bench), seconds=60, every=0.5)


def _works(bench):
    try:
        works(bench)
    except Exception:  # whatever a connector without a key answers
        return False
    return True


def test_doctor_names_the_remedy_for_each_fault_of_the_login(openbao, vault_bench):
    bench = vault_bench()

    def doctor():
        found = run(bench.binary, "doctor", "--config", bench.connector.config_file, seconds=60)
        said = found.stdout + found.stderr
        assert bench.cloud.api_key not in said
        return found.returncode, said

    code, said = doctor()
    assert code == 0, said

    openbao.secret_id_file.write_text("not-a-secret-id")
    code, said = doctor()
    assert code != 0 and "secret id" in said and "not-a-secret-id" not in said
    made = openbao.issue()
    assert doctor()[0] == 0
    openbao.call("POST", "auth/approle/role/latchkey/secret-id/destroy", {"secret_id": made["secret_id"]})
    assert "issue a new secret id" in doctor()[1]
    openbao.issue()

    openbao.call("PUT", "sys/policies/acl/latchkey", {"policy": 'path "kv/data/other" { capabilities = ["read"] }'})
    code, said = doctor()
    assert code != 0 and 'path "kv/data/latchkey/elastic"' in said

    openbao.call("DELETE", "kv/data/latchkey/elastic")
    openbao.call("PUT", "sys/policies/acl/latchkey", {"policy": 'path "kv/*" { capabilities = ["read"] }'})
    code, said = doctor()
    assert code != 0 and "kv put" in said

    openbao.seal()
    code, said = doctor()
    assert code != 0 and "unseal" in said


def test_a_token_file_is_read_anew_when_the_store_refuses_the_old_one(openbao, vault_bench, tmp_path):
    token_file = tmp_path / "token"

    def issue():
        made = openbao.call("POST", "auth/token/create", {"policies": ["latchkey"]})["auth"]["client_token"]
        token_file.write_text(made)
        return made

    first = issue()
    bench = vault_bench(token={"file": str(token_file)})
    bench.start()
    works(bench)
    cloud, old = bench.cloud, bench.cloud.api_key
    openbao.call("POST", "auth/token/revoke", {"token": first})
    second = issue()
    _, new = new_key(cloud)
    openbao.put(new)
    cloud.control("DELETE", f"keys/{key_id(cloud, old)}")
    eventually(lambda: _works(bench), seconds=60, every=0.5)
    assert_hidden(bench, old, new, first, second)


# --- rotation ---

SECRET = "kv/data/latchkey/elastic"
WRITER = f'path "{SECRET}" {{ capabilities = ["read", "update"] }}'


@pytest.fixture
def rotating(openbao, vault_bench):
    """A running pair that may write the secret: it has more in it than the key, and no write without a version."""

    def make(policy=WRITER):
        bench = with_rotation(vault_bench())
        openbao.call("PUT", "sys/policies/acl/latchkey", {"policy": policy})
        openbao.call("POST", SECRET, {"data": {"api_key": bench.cloud.api_key, "owner": "platform"}})
        openbao.call("POST", "kv/metadata/latchkey/elastic", {"cas_required": True})
        return bench.start()

    return make


def stored(openbao):
    """The secret, and its version."""
    found = openbao.call("GET", SECRET)["data"]
    return found["data"], found["metadata"]["version"]


def test_the_new_key_is_written_with_the_version_that_was_read_and_the_rest_of_the_secret_stays(openbao, rotating):
    bench = rotating()
    cloud, old = bench.cloud, bench.cloud.api_key
    _, before = stored(openbao)
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=2)
    cli(bench, "key", "rotate", "--reason", "quarterly")
    wait_until_over(bench)
    secret, version = stored(openbao)
    # Without `cas` the server refuses, so one version more means one write with the right one.
    assert version == before + 1
    [new] = keys(cloud).values()
    assert secret == {"api_key": new, "owner": "platform"} and new != old
    bench.client.wait_for(grant, "ENDED")
    assert cloud.held(person) == set()
    works(bench)
    assert_hidden(bench, old, new, openbao.secret_id_file.read_text())


def test_a_key_that_somebody_else_stores_meanwhile_wins_and_what_the_rotation_made_is_deleted(openbao, rotating):
    bench = rotating()
    _, version = stored(openbao)

    def put(key):
        body = {"data": {"api_key": key}, "options": {"cas": version}}
        openbao.call("POST", SECRET, body)

    theirs = meddled(bench, put)
    assert stored(openbao) == ({"api_key": theirs}, version + 1)
    works(bench)


def test_a_rotation_that_may_not_write_is_held_up_with_the_remedy_and_goes_on_when_it_may(openbao, rotating):
    bench = rotating(policy=f'path "{SECRET}" {{ capabilities = ["read"] }}')
    before = keys(bench.cloud)
    cli(bench, "key", "rotate", "--reason", "quarterly", "--no-wait")
    held_up = eventually(lambda: rotation_of(bench).get("last_error"), seconds=60, every=0.2)
    assert stage(bench) == "storing" and WRITER.split(" {")[0] in held_up["message"], held_up
    assert '["read", "update"]' in held_up["message"]
    works(bench)
    # A sealed store holds it up as well, and neither costs a key.
    openbao.seal()
    openbao.unseal()
    eventually(lambda: openbao.request("GET", "sys/health").status_code == 200, seconds=60)
    openbao.call("PUT", "sys/policies/acl/latchkey", {"policy": WRITER})
    wait_until_over(bench)
    after = keys(bench.cloud)
    assert len(after) == 1 and not before.keys() & after.keys()
    assert stored(openbao)[0]["api_key"] in after.values()
    works(bench)
