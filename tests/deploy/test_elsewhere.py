"""Compose, plain manifests, the systemd unit and the Terraform modules: each checked as far as it can be without the
thing that it is for."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import hcl2
import pytest
import yaml
from harness import ROOT, Process, Simulator, run

DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(sys.executable).parent


# --- compose ---


@pytest.fixture(scope="module")
def compose():
    """The file as docker-compose itself understands it."""
    done = subprocess.run(
        [TOOLS / "docker-compose", "--file", DEPLOY / "compose.yaml", "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"DATABASE_PASSWORD": "x", "HOME": "/nonexistent", "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def test_compose_has_every_part_and_takes_no_privileges(compose):
    assert set(compose["services"]) == {"simulator", "postgres", "migrate", "latchkey", "prometheus", "grafana"}
    for name in ("simulator", "migrate", "latchkey"):
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name, service in compose["services"].items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert not service.get("privileged"), name


def test_compose_stops_the_connector_with_enough_time(compose):
    config = yaml.safe_load((DEPLOY / "compose" / "latchkey.yaml").read_text())
    assert "engine" not in config, "the drain limit is the default of 25 s"
    assert compose["services"]["latchkey"]["stop_grace_period"] == "35s"


def test_compose_mounts_files_that_exist_where_programs_look_for_them(compose):
    for each in [*compose["configs"].values(), *(s for s in compose["secrets"].values() if "file" in s)]:
        assert pathlib.Path(each["file"]).is_file(), each
    connector = compose["services"]["latchkey"]
    targets = {each["target"] for each in connector["configs"]}
    assert targets == {"/etc/latchkey/config/config.yaml"}
    config = yaml.safe_load((DEPLOY / "compose" / "latchkey.yaml").read_text())
    secrets = {f"/run/secrets/{each['source']}" for each in connector["secrets"]}
    assert {config["ledger"]["password_file"], config["integrations"][0]["secret"]["file"]["path"]} == secrets
    prometheus = yaml.safe_load((DEPLOY / "compose" / "prometheus.yaml").read_text())
    targets = {each["target"] for each in compose["services"]["prometheus"]["configs"]}
    assert set(prometheus["rule_files"]) <= targets
    [[target]] = [each["targets"] for each in prometheus["scrape_configs"][0]["static_configs"]]
    assert target == f"simulator:{config['listen']['http'].rpartition(':')[2]}"
    assert connector["network_mode"] == "service:simulator"


def test_the_simulator_of_compose_plays_its_world_and_takes_its_key(compose, latchkey_bin, tmp_path):
    command = compose["services"]["simulator"]["command"]
    assert command[:2] == ["simulate", "--listen"] and command[3:] == ["--world", "/etc/latchkey/world.yaml"]
    config = yaml.safe_load((DEPLOY / "compose" / "latchkey.yaml").read_text())
    assert config["integrations"][0]["base_url"] == f"http://{command[2]}"
    world = DEPLOY / "compose" / "world.yaml"
    process = Process([latchkey_bin, "simulate", "--listen", "127.0.0.1:0", "--world", world], tmp_path / "log")
    try:
        key = (DEPLOY / "compose" / "elastic-api-key").read_text().strip()
        assert process.ready["api_key"] == key
        assert Simulator(process).member("ada.fischer@example.com")
        # The configuration is right but for what this machine is not: its addresses and its ledger.
        config["listen"]["http"] = "127.0.0.1:0"
        config["ledger"] = {"path": str(tmp_path / "ledger.db")}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        done = run(latchkey_bin, "check-config", "--config", tmp_path / "config.yaml")
        assert done.returncode == 0, done.stderr
    finally:
        process.kill()


# --- plain manifests ---


def test_the_manifests_are_what_the_chart_renders(tmp_path):
    assert shutil.which("helm"), "helm is missing: run through scripts/test, or put helm 4 on the path"
    done = subprocess.run(
        [ROOT / "scripts" / "manifests", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {
        path.name: path.read_text()
        for path in (DEPLOY / "manifests").glob("*.yaml")
        if not path.name.endswith(".values.yaml")
    }
    assert made == kept, "run scripts/manifests"


# --- systemd ---


@pytest.fixture(scope="module")
def unit(latchkey_bin, tmp_path_factory):
    """The unit with the program where it is on this machine."""
    path = tmp_path_factory.mktemp("unit") / "latchkey.service"
    text = (DEPLOY / "systemd" / "latchkey.service").read_text()
    path.write_text(text.replace("/usr/local/bin/latchkey", str(latchkey_bin)))
    return path


def analyze(*args):
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: install systemd"
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_the_unit(unit):
    done = analyze("verify", str(unit))
    ours = [line for line in done.stderr.splitlines() if "latchkey" in line]
    assert done.returncode == 0 and not ours, done.stderr


def test_the_unit_is_hardened_as_far_as_a_network_service_can_be(unit):
    done = analyze("security", "--offline=true", "--no-pager", "--json=short", str(unit))
    assert done.returncode == 0, done.stderr
    # What is left open, each for a reason: it talks over the network, wherever the customer's servers are, with name
    # services over a local socket; it runs in the root of the machine, which it sees read-only; its private mounts
    # come with those settings; the device is what systemd lets every service without clock rights read.
    left = {
        "RootDirectoryOrRootImage",
        "PrivateMounts",
        "RestrictAddressFamilies_AF_UNIX",
        "RestrictAddressFamilies_AF_INET_INET6",
        "PrivateNetwork",
        "DeviceAllow",
        "IPAddressDeny",
        # It raises the limit of open files for itself and forbids itself core dumps.
        "SystemCallFilter_resources",
    }
    found = {each["json_field"] for each in json.loads(done.stdout) if each["set"] is False and each["exposure"]}
    assert found <= left, found - left


def test_the_unit_ends_the_connector_with_enough_time_and_starts_it_for_ever():
    text = (DEPLOY / "systemd" / "latchkey.service").read_text()
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    assert int(said["TimeoutStopSec"]) > 25
    assert said["Restart"] == "always" and said["StartLimitIntervalSec"] == "0"
    assert said["StateDirectory"].split() == ["latchkey", "latchkey-witness"]


# --- Terraform ---


CLOUDS = ("aws", "azure", "google")


def module(cloud="aws"):
    """A module, all files as one; python-hcl2 reads what Terraform would, without its providers."""
    whole = {}
    for path in sorted((DEPLOY / "terraform" / cloud).glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text()).items():
            if isinstance(blocks, list):
                whole.setdefault(kind, []).extend(blocks)
    return bare(whole)


def bare(value):
    """Without the quotes that the parser leaves around texts."""
    if isinstance(value, dict):
        return {bare(name): bare(each) for name, each in value.items() if not str(name).startswith("__")}
    if isinstance(value, list):
        return [bare(each) for each in value]
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"' else value


def named(blocks):
    """Blocks of two labels by `type.name`."""
    found = {}
    for block in blocks:
        for kind, inner in block.items():
            for name, body in inner.items():
                assert f"{kind}.{name}" not in found
                found[f"{kind}.{name}"] = body
    return found


def test_the_role_may_read_one_secret_and_nothing_else():
    data = named(module()["data"])
    statements = data["aws_iam_policy_document.read"]["statement"]
    allowed = {each["sid"]: each for each in statements}
    assert allowed["ReadTheKey"]["actions"] == ["secretsmanager:GetSecretValue"]
    assert "aws_secretsmanager_secret.elastic.arn" in str(allowed["ReadTheKey"]["resources"])
    assert "aws_kms_key.this.arn" in str(allowed["DecryptTheKey"]["resources"])
    assert {each["variable"] for each in allowed["DecryptTheKey"]["condition"]} == {
        "kms:ViaService",
        "kms:EncryptionContext:SecretARN",
    }
    assert set(allowed) == {"ReadTheKey", "DecryptTheKey"}
    [dynamic] = data["aws_iam_policy_document.read"]["dynamic"]
    assert "var.allow_rotation" in str(dynamic["statement"]["for_each"])
    # What the program calls.
    source = (ROOT / "src" / "secrets" / "aws.rs").read_text()
    calls = set(re.findall(r"^\s*\.((?:get|put|describe|update|list)_\w*secret\w*)\(\)", source, re.M))
    assert "get_secret_value" in calls
    assert calls <= {"get_secret_value", "put_secret_value", "update_secret_version_stage"}, calls


def test_only_the_service_account_of_the_release_gets_the_role():
    data = named(module()["data"])
    text = json.dumps(data["aws_iam_policy_document.trust"])
    assert "system:serviceaccount:${var.namespace}:${var.service_account}" in text
    assert ":sub" in text and ":aud" in text and "sts.amazonaws.com" in text
    assert "StringLike" not in text, "no patterns in who may be whom"


def test_the_key_is_never_in_the_state_and_never_deleted_by_accident():
    resources = named(module()["resource"])
    assert not [name for name in resources if name.startswith("aws_secretsmanager_secret_version")]
    for name in ("aws_secretsmanager_secret.elastic", "aws_kms_key.this"):
        [lifecycle] = resources[name]["lifecycle"]
        assert lifecycle["prevent_destroy"] is True, name
    assert resources["aws_kms_key.this"]["enable_key_rotation"] is True


def test_google_gives_one_reader_one_secret():
    resources = named(module("google")["resource"])
    read = resources["google_secret_manager_secret_iam_member.read"]
    assert read["role"] == "roles/secretmanager.secretAccessor"
    assert "google_secret_manager_secret.elastic.secret_id" in read["secret_id"] and "local.reader" in read["member"]
    pods = resources["google_service_account_iam_member.pods"]
    assert pods["role"] == "roles/iam.workloadIdentityUser"
    assert "google_service_account.this[0]" in pods["service_account_id"]
    # One ServiceAccount of Kubernetes, whichever of the two ways.
    assert pods["member"].endswith("[${var.namespace}/${var.service_account}]")
    [local] = module("google")["locals"]
    assert local["subject"].endswith("/subject/${local.pods}")
    assert local["pods"] == "ns/${var.namespace}/sa/${var.service_account}"
    # Nothing of a whole project or of everybody, and no key that could be carried away.
    assert {name.split(".")[0] for name in resources} == {
        "google_secret_manager_secret",
        "google_secret_manager_secret_iam_member",
        "google_service_account",
        "google_service_account_iam_member",
    }
    [lifecycle] = resources["google_secret_manager_secret.elastic"]["lifecycle"]
    assert lifecycle["prevent_destroy"] is True


def test_azure_gives_one_reader_one_secret():
    resources = named(module("azure")["resource"])
    read = resources["azurerm_role_assignment.read"]
    assert read["role_definition_name"] == "Key Vault Secrets User"
    assert read["scope"] == "${azurerm_key_vault.this.id}/secrets/${var.secret_name}"
    assert "azurerm_user_assigned_identity.this.principal_id" in read["principal_id"]
    pods = resources["azurerm_federated_identity_credential.pods"]
    assert pods["subject"] == "system:serviceaccount:${var.namespace}:${var.service_account}"
    assert pods["audience"] == ["api://AzureADTokenExchange"] and "var.oidc_issuer_url" in pods["issuer"]
    vault = resources["azurerm_key_vault.this"]
    assert vault["rbac_authorization_enabled"] is True and "access_policy" not in vault
    assert vault["purge_protection_enabled"] is True
    assert vault["network_acls"][0]["default_action"] == "Deny"
    assert vault["lifecycle"][0]["prevent_destroy"] is True
    # No secret, no key and no password: the state would hold them.
    assert set(resources) == {
        "azurerm_key_vault.this",
        "azurerm_user_assigned_identity.this",
        "azurerm_federated_identity_credential.pods",
        "azurerm_role_assignment.read",
    }


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_reference_of_the_module_leads_somewhere(cloud):
    whole = module(cloud)
    known = {f"data.{name}" for name in named(whole.get("data", []))} | set(named(whole["resource"]))
    variables = {name for block in whole["variable"] for name in block}
    text = json.dumps(whole)
    used = set(re.findall(r"\bvar\.(\w+)", text))
    assert used <= variables, used - variables
    assert variables <= used, f"never used: {variables - used}"
    local = {name for block in whole.get("locals", []) for name in block}
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local
    ours = {"aws": "aws", "azure": "azurerm", "google": "google"}[cloud]
    assert f"{ours}_" in text
    for kind, name in re.findall(rf"(?<![\w.])({ours}_\w+)\.(\w+)", re.sub(rf"data\.{ours}_\w+\.\w+", "", text)):
        assert f"{kind}.{name}" in known, f"{kind}.{name}"
    for kind, name in re.findall(rf"data\.({ours}_\w+)\.(\w+)", text):
        assert f"data.{kind}.{name}" in known, f"data.{kind}.{name}"
    for block in whole["variable"]:
        for name, body in block.items():
            assert body["description"] and body["type"], name


# What the chart and the configuration call it, and what the program calls at the cloud.
TOLD = {
    "aws": ("cloudIdentity", "eksPodIdentity", "roleArn", "aws_secrets_manager", "secret_id"),
    "azure": ("cloudIdentity", "aks", "clientId", "tenantId", "azure_key_vault", "vault_url"),
    "google": ("cloudIdentity", "gke", "serviceAccount", "google_secret_manager", "project"),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_module_suits_the_chart(cloud):
    outputs = {name: body for block in module(cloud)["output"] for name, body in block.items()}
    for key in TOLD[cloud]:
        assert key in json.dumps(outputs["helm_values"]), key
    schema = json.loads((ROOT / "helm" / "latchkey" / "values.schema.json").read_text())
    assert {"eks", "eksPodIdentity", "gke", "aks"} <= set(schema["properties"]["cloudIdentity"]["properties"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_module_is_formatted_as_terraform_would(cloud):
    """Equals signs of neighbouring lines of one block stand below each other, indented by two."""
    for path in sorted((DEPLOY / "terraform" / cloud).glob("*.tf")):
        lines = path.read_text().splitlines()
        assert path.read_text().endswith("}\n"), path
        for number, line in enumerate(lines, 1):
            assert line == line.rstrip() and "\t" not in line, f"{path}:{number}"
            assert (len(line) - len(line.lstrip())) % 2 == 0, f"{path}:{number}"
        for number, (above, below) in enumerate(zip(lines, lines[1:], strict=False), 1):
            one, other = (re.match(r"( *)[\w\"]+ *(?==[^=])", line) for line in (above, below))
            # A line that opens a block or a list ends the group.
            if one and other and one[1] == other[1] and not re.search(r"[\[{(]$", above + "\n" + below, re.M):
                assert one.end() == other.end(), f"{path}:{number}"
