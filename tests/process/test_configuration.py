"""Configuration: every mistake is named with what to write instead, all at once, before anything starts."""

import json
import socket

import pytest
import yaml
from harness import ROOT, connector_config, run, write_key

GOOD_KEY = "essu_" + "Zm9vYmFy" * 8


@pytest.fixture
def config(tmp_path):
    """A good configuration that needs no cloud."""
    write_key(tmp_path / "api-key", GOOD_KEY)
    return connector_config(None, tmp_path)


@pytest.fixture
def check(latchkey_bin, tmp_path):
    """Runs `check-config` on a configuration given as values or as text."""

    def check(config, command="check-config", seconds=30):
        file = tmp_path / "latchkey.yaml"
        if isinstance(config, bytes):
            file.write_bytes(config)
        else:
            file.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
        return run(latchkey_bin, command, "--config", file, seconds=seconds)

    return check


def said(done):
    return done.stdout + done.stderr


def test_a_good_configuration_passes(check, config):
    done = check(config)
    assert done.returncode == 0, said(done)


def test_the_sample_configuration_passes(latchkey_bin):
    done = run(latchkey_bin, "check-config", "--config", ROOT / "docs" / "config.sample.yaml")
    assert done.returncode == 0, said(done)


def test_every_mistake_is_named_at_once_with_what_to_write(check, config):
    config["listen"]["grpc"] = "0.0.0.0:7443"
    config["log"]["filtre"] = "info"
    config["engine"] = {"floor_poll": "1 fortnight", "drain": "99d"}
    config["policy"] = {"max_duration": "2d", "max_total": "1d", "roles": ["deployment-king"]}
    config["integrations"][0]["base_url"] = "http://cloud.example.com"
    config["integrations"].append({"name": "Not A Name", "secret": {"file": {"path": "relative"}}})
    done = check(config)
    assert done.returncode == 64, said(done)
    for place in (
        "listen.grpc",
        "filtre",
        "engine.floor_poll",
        "policy.roles[0]",
        "integrations[0].base_url",
        "integrations[1].name",
    ):
        assert place in said(done), f"{place} is not named in: {said(done)}"
    assert said(done).count("write ") >= 5


MALFORMED = {
    "empty": "",
    "only a comment": "# nothing\n",
    "a list": "- a\n- b\n",
    "a text": "hello",
    "two documents": "listen: {}\n---\nlisten: {}\n",
    "a duplicate key": "log: {filter: info}\nlog: {filter: debug}\n",
    "a tab": "listen:\n\tgrpc: 127.0.0.1:1\n",
    "an open bracket": "integrations: [",
    "a tag": "integrations: !!python/object:os.system x\n",
    "aliases that blow up": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi")),
    "deep nesting": "integrations: " + "[" * 5000 + "]" * 5000,
    "not text": b"\xff\xfe\x00\x01",
    "a null section": "listen:\nintegrations: []\n",
    "a variable": "integrations: ${HOME}\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_yaml_is_refused_with_a_remedy(check, name):
    for command in ("check-config", "serve", "doctor"):
        done = check(MALFORMED[name], command)
        assert done.returncode == 64, (command, said(done))
        assert "latchkey.yaml" in said(done) and "write" in said(done), (command, said(done))
        assert "panicked" not in said(done)


def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(check, config):
    for wrong in (GOOD_KEY, {"value": GOOD_KEY}, {"file": GOOD_KEY}, {"env": {"name": GOOD_KEY}}):
        config["integrations"][0]["secret"] = wrong
        done = check(config)
        assert done.returncode == 64, said(done)
        assert "integrations[0].secret" in said(done) and GOOD_KEY not in said(done), said(done)
    config["integrations"][0]["secret"] = {"env": {"name": "A"}, "file": {"path": "/x"}}
    assert check(config).returncode == 64


def test_a_missing_file_is_named(latchkey_bin, tmp_path):
    for command in ("check-config", "serve", "doctor"):
        done = run(latchkey_bin, command, "--config", tmp_path / "absent.yaml")
        assert done.returncode == 64 and "absent.yaml" in said(done), said(done)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7443"])
def test_a_listener_that_others_can_reach_is_refused(check, config, address):
    config["listen"]["grpc"] = address
    done = check(config, "serve")
    assert done.returncode == 64, said(done)
    assert "listen.grpc" in said(done) and "127.0.0.1" in said(done)
    assert not done.stdout.strip()


def test_health_and_metrics_may_be_asked_for_from_other_machines(check, config):
    config["listen"]["http"] = "0.0.0.0:0"
    done = check(config, "check-config")
    assert done.returncode == 0, said(done)


def test_an_address_in_use_is_named(check, config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config["listen"]["grpc"] = address
        done = check(config, "serve")
    assert done.returncode not in (0, -9) and address in said(done), said(done)
    assert "panicked" not in said(done)


def test_a_ledger_that_cannot_be_opened_is_named(check, config, tmp_path):
    (tmp_path / "garbage.db").write_bytes(b"this is no database, not at all " * 100)
    under_a_file = tmp_path / "api-key" / "ledger.db"
    for path, named in ((under_a_file, under_a_file.parent), (tmp_path / "garbage.db",) * 2, (tmp_path,) * 2):
        config["ledger"]["path"] = str(path)
        done = check(config, "serve")
        assert done.returncode not in (0, -9), said(done)
        assert str(named) in said(done) and "ledger" in said(done), said(done)
        assert "panicked" not in said(done)


def test_the_schema_is_json_schema_that_names_every_section(latchkey_bin):
    done = run(latchkey_bin, "schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    assert {"listen", "log", "ledger", "limits", "policy", "engine", "integrations"} <= set(schema["properties"])


# --- doctor -------------------------------------------------------------------------------------


def integration(simulator, config, **changes):
    # A short budget, so that doctor gives up on a dead address within a test.
    quick = {"upstream": {"read_budget": "2s", "read_attempt": "1s"}}
    config["integrations"][0] = {**config["integrations"][0], "base_url": simulator.base_url, **quick, **changes}


def test_doctor_is_content_with_a_good_installation(simulator, check, config, tmp_path):
    integration(simulator, config)
    write_key(tmp_path / "api-key", simulator.api_key)
    done = check(config, "doctor")
    assert done.returncode == 0, said(done)
    assert simulator.api_key not in said(done)


def doctor_faults(simulator, config, folder):
    """Each fault with words of its remedy."""
    key = folder / "api-key"
    owner = next(each for each in simulator.control("GET", "keys")["keys"] if each["key"] == simulator.api_key)

    def put(text):
        write_key(key, text)

    viewer = {"role_assignments": {"deployment": [{"role_id": "deployment-viewer", "all": True}]}}
    html = {"action": {"type": "garbage_html"}}
    return {
        "no key file": (key.unlink, "mount the secret"),
        "an empty key": (lambda: put(""), "store"),
        "a whole header": (lambda: put("ApiKey abc"), "only the key"),
        "a wrong key": (lambda: put(GOOD_KEY), "key"),
        "a key without the owner role": (
            lambda: simulator.control("POST", f"keys/{owner['id']}/reduce", viewer),
            "Organization owner",
        ),
        "an expired key": (lambda: simulator.control("POST", f"keys/{owner['id']}/expire"), "key"),
        "nobody at the address": (lambda: integration(simulator, config, base_url="http://127.0.0.1:9"), "base_url"),
        "something else at the address": (lambda: simulator.faults(html), "base_url"),
        "another organization": (lambda: integration(simulator, config, organization_id="42"), "organization_id"),
    }


@pytest.mark.parametrize(
    "fault",
    [
        "no key file",
        "an empty key",
        "a whole header",
        "a wrong key",
        "a key without the owner role",
        "an expired key",
        "nobody at the address",
        "something else at the address",
        "another organization",
    ],
)
def test_doctor_names_the_remedy(simulator, check, config, tmp_path, fault):
    integration(simulator, config)
    write_key(tmp_path / "api-key", simulator.api_key)
    begin, words = doctor_faults(simulator, config, tmp_path)[fault]
    begin()
    done = check(config, "doctor", seconds=60)
    assert done.returncode not in (0, -9), said(done)
    assert words in said(done), said(done)
    assert "panicked" not in said(done) and simulator.api_key not in said(done) and GOOD_KEY not in said(done)
    assert simulator.changes() == {}, "doctor changed something"
