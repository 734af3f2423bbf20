"""What the chart makes of its values, object by object."""

import json

import pytest
import yaml
from harness import ROOT

from .render import (
    CHART,
    NAMESPACE,
    VALUES,
    changed,
    configuration,
    connector,
    helm,
    matrix,
    one,
    pods,
    rendered,
)


def kinds(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def annotations(each):
    return each["metadata"].get("annotations", {})


# --- rollout ---


def test_sqlite_replaces_its_pod_and_postgres_adds_one_first():
    assert one(rendered("smallest"), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    spec = one(rendered("ha"), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert not kinds(rendered("smallest"), "StatefulSet") + kinds(rendered("ha"), "StatefulSet")


def test_replicas_are_spread_and_lost_one_at_a_time():
    spec, _ = connector(rendered("ha"))
    keys = [each["topologyKey"] for each in spec["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    labels = one(rendered("ha"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    for each in spec["topologySpreadConstraints"]:
        assert each["labelSelector"]["matchLabels"].items() <= labels.items()
    budget = one(rendered("ha"), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items()
    assert one(rendered("everything"), "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert not kinds(rendered("smallest"), "PodDisruptionBudget"), "one replica must be evictable"


@pytest.mark.parametrize(
    ("drain", "seconds"), [("25s", 25), ("1m 30s", 90), ("1500ms", 2), ("1h", 3600), ("2m", 120)]
)
def test_the_grace_is_longer_than_the_drain_limit(drain, seconds):
    spec, _ = connector(changed("smallest", config={"engine": {"drain": drain}}))
    assert spec["terminationGracePeriodSeconds"] == seconds + 10


def test_the_grace_of_replicas_covers_the_pause_before_the_end():
    spec, container = connector(rendered("ha", "1.30"))
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 5
    assert spec["terminationGracePeriodSeconds"] == 40
    spec, container = connector(rendered("ha", "1.29"))
    assert "lifecycle" not in container and spec["terminationGracePeriodSeconds"] == 35


def test_a_changed_configuration_or_law_makes_new_pods():
    def sums(**changes):
        deployment = one(changed("smallest", **changes), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    law = {"policies": {"a.cedar": "permit(principal, action, resource);"}}
    made = {sums(), sums(config={"policy": {"max_duration": "1h"}}), sums(law=law)}
    assert len(made) == 3
    assert sums(podAnnotations={"a": "b"}) == sums()


def test_probes_ask_what_the_connector_answers_and_can_be_changed():
    _, container = connector(rendered("smallest"))
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    _, container = connector(rendered("everything"))
    assert container["startupProbe"]["failureThreshold"] == 300
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("name", matrix())
def test_ports_are_those_of_the_configuration(name):
    objects = rendered(name)
    _, container = connector(objects)
    listen = configuration(objects)["listen"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {each: int(listen[each].rpartition(":")[2]) for each in ("grpc", "http")}
    headless = one(objects, "Service", "-headless")["spec"]["ports"]
    assert {port["name"]: port["port"] for port in headless}["http"] == ports["http"]


# --- configuration ---


def test_numbers_and_texts_arrive_as_they_were_written():
    _, staging, _ = configuration(rendered("everything"))["integrations"]
    assert staging["upstream"]["max_members_bytes"] == 268435456
    text = one(rendered("everything"), "ConfigMap", "-config")["data"]["config.yaml"]
    assert "max_members_bytes: 268435456\n" in text
    assert configuration(rendered("ha"))["integrations"][0]["organization_id"] == "198583657190"


def test_what_the_user_says_wins_over_what_the_chart_fills_in():
    said = {"ledger": {"path": "/data/ledger/l.db"}, "witness": {"path": "/data/witness/w"}, "log": {"format": "text"}}
    objects = changed("smallest", config=said)
    config = configuration(objects)
    assert config["ledger"] == {"kind": "sqlite", "path": "/data/ledger/l.db"}
    assert config["witness"] == said["witness"] and config["log"] == said["log"]
    mounts = {mount["name"]: mount["mountPath"] for mount in connector(objects)[1]["volumeMounts"]}
    assert mounts["ledger"] == "/data/ledger" and mounts["witness"] == "/data/witness"


def test_every_file_of_the_configuration_is_mounted():
    def paths(value):
        if isinstance(value, dict):
            for each in value.values():
                yield from paths(each)
        elif isinstance(value, list):
            for each in value:
                yield from paths(each)
        elif isinstance(value, str) and value.startswith("/"):
            yield value

    for name in matrix():
        mounts = [mount["mountPath"] for mount in connector(rendered(name))[1]["volumeMounts"]]
        for path in paths(configuration(rendered(name))):
            assert any(path == mount or path.startswith(mount + "/") for mount in mounts), (name, path, mounts)


def test_grpc_stays_on_loopback_until_callers_can_be_told_apart():
    assert configuration(rendered("smallest"))["listen"]["grpc"] == "127.0.0.1:7443"
    assert [each["metadata"]["name"] for each in kinds(rendered("smallest"), "Service")] == ["latchkey-headless"]
    assert configuration(rendered("sqlite-mtls"))["listen"]["grpc"] == "0.0.0.0:7443"
    assert len(kinds(rendered("sqlite-mtls"), "Service")) == 2


# --- ledger and witness ---


def test_ledger_and_witness_have_volumes_of_their_own_that_outlive_the_release():
    claims = kinds(rendered("smallest"), "PersistentVolumeClaim")
    assert [each["metadata"]["name"] for each in claims] == ["latchkey-ledger", "latchkey-witness"]
    assert all(annotations(each)["helm.sh/resource-policy"] == "keep" for each in claims)
    assert not kinds(rendered("ha"), "PersistentVolumeClaim")
    ledger = one(rendered("sqlite-mtls"), "PersistentVolumeClaim", "-ledger")["spec"]
    assert ledger["storageClassName"] == "fast" and ledger["accessModes"] == ["ReadWriteOncePod"]


def test_claims_that_exist_are_used():
    objects = changed(
        "smallest", ledger={"volume": {"existingClaim": "mine"}}, witness={"volume": {"existingClaim": "other"}}
    )
    assert not kinds(objects, "PersistentVolumeClaim")
    volumes = connector(objects)[0]["volumes"]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]
    assert claims == ["mine", "other"]


def test_without_a_witness_there_is_neither_volume_nor_setting():
    objects = changed("smallest", witness={"mode": "none"})
    assert "witness" not in configuration(objects)
    assert len(kinds(objects, "PersistentVolumeClaim")) == 1


# --- callers ---


def test_operators_reach_replicas_that_are_not_ready():
    for name in matrix():
        assert one(rendered(name), "Service", "-headless")["spec"]["publishNotReadyAddresses"] is True
    assert one(rendered("ha"), "Service", "latchkey")["spec"]["publishNotReadyAddresses"] is False
    assert one(rendered("sqlite-mtls"), "Service", "latchkey")["spec"]["publishNotReadyAddresses"] is True
    assert one(rendered("everything"), "Service", "connector")["spec"]["publishNotReadyAddresses"] is True


def test_the_certificate_names_the_services():
    certificate = one(rendered("ha"), "Certificate")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    spec = certificate["spec"]
    assert spec["issuerRef"] == {"name": "internal", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    for service in kinds(rendered("ha"), "Service"):
        assert f"{service['metadata']['name']}.{NAMESPACE}.svc" in spec["dnsNames"]
    volumes = {each["name"]: each for each in connector(rendered("ha"))[0]["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == spec["secretName"]
    assert not kinds(rendered("sqlite-mtls"), "Certificate")


# --- identity ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aws-irsa", {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/latchkey"}),
        ("aws-pod-identity", {}),
        ("gke", {"iam.gke.io/gcp-service-account": "latchkey@access.iam.gserviceaccount.com"}),
        (
            "aks",
            {
                "azure.workload.identity/client-id": "11111111-2222-3333-4444-555555555555",
                "azure.workload.identity/tenant-id": "66666666-7777-8888-9999-000000000000",
            },
        ),
        ("gke-secret-manager", {}),
        ("aks-key-vault", {"azure.workload.identity/client-id": "11111111-2222-3333-4444-555555555555"}),
        ("smallest", {}),
    ],
)
def test_the_service_account_carries_the_identity_of_the_cloud(name, expected):
    account = one(rendered(name), "ServiceAccount")
    assert annotations(account) == expected
    assert account["automountServiceAccountToken"] is False
    labels = one(rendered(name), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels.get("azure.workload.identity/use") == ("true" if name.startswith("aks") else None)


def test_a_role_reads_the_named_secrets_and_nothing_else():
    objects = rendered("kubernetes-secret")
    roles = {each["metadata"]["namespace"]: each for each in kinds(objects, "Role")}
    assert set(roles) == {NAMESPACE, "staging"}
    for role in roles.values():
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["elastic-key"], "verbs": ["get"]}
        ]
    for binding in kinds(objects, "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "latchkey", "namespace": NAMESPACE}]
    for name in matrix():
        wanted = name in {"kubernetes-secret", "everything"}
        assert bool(kinds(rendered(name), "Role")) == wanted, name
        assert not kinds(rendered(name), "ClusterRole"), name


# --- network ---


def test_the_way_out_is_open_for_what_the_configuration_names():
    def out(name, **changes):
        rules = one(changed(name, **changes), "NetworkPolicy", "")["spec"]["egress"] if changes else None
        policy = [each for each in kinds(rendered(name), "NetworkPolicy") if not annotations(each)][0]
        rules = rules or policy["spec"]["egress"]
        return {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]}

    assert out("smallest") == {53, 443}
    assert out("ha") == {53, 443, 5432}
    assert out("vault") == {53, 443, 8200}
    assert out("kubernetes-secret") == {53, 443, 6443}
    assert out("everything") == {53, 443, 6443, 6432, 12443, 3128, 8200, 8443, 9243}


def test_metadata_services_are_reached_only_where_they_are_the_identity():
    def blocks(name):
        policy = [each for each in kinds(rendered(name), "NetworkPolicy") if not annotations(each)][0]
        rules = policy["spec"]["egress"]
        return {to["ipBlock"]["cidr"] for rule in rules for to in rule.get("to", []) if "ipBlock" in to}

    assert blocks("aws-pod-identity") == {"169.254.170.23/32", "fd00:ec2::23/128"}
    assert blocks("gke") == blocks("gke-secret-manager") == {"169.254.169.252/32", "169.254.169.254/32"}
    assert blocks("smallest") == blocks("aws-irsa") == blocks("aks-key-vault") == set()


def test_only_named_callers_reach_grpc():
    policy = one(rendered("sqlite-mtls"), "NetworkPolicy")["spec"]
    grpc = next(rule for rule in policy["ingress"] if rule["ports"][0]["port"] == 7443)
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "portal"}}} in grpc["from"]
    assert len(grpc["from"]) == 2, "and the hooks of the chart"
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    closed = one(rendered("smallest"), "NetworkPolicy")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in closed] == [7480]


# --- hooks ---


def test_the_schema_is_migrated_before_the_new_pods_and_by_its_own_role():
    objects = rendered("everything")
    job = one(objects, "Job", "-migrate")
    assert annotations(job)["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate", "--config", "/etc/latchkey/config/config.yaml"]
    config = configuration(objects, "-migrate")
    assert config["ledger"]["url"] == "postgres://latchkey_owner@db.example.com:5432/latchkey"
    secret = next(each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == "postgres")
    assert secret["secret"]["secretName"] == "latchkey-postgres-owner"
    policy = one(objects, "NetworkPolicy", "-migrate")
    for needed in (one(objects, "ConfigMap", "-migrate"), policy):
        assert annotations(needed)["helm.sh/hook"] == annotations(job)["helm.sh/hook"]
        assert int(annotations(needed)["helm.sh/hook-weight"]) < int(annotations(job)["helm.sh/hook-weight"])
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert 5432 in [port["port"] for port in policy["spec"]["egress"][0]["ports"]]
    # Nothing that exists only after the installation.
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]
    assert not kinds(rendered("smallest"), "Job"), "a SQLite ledger is migrated by the connector"


def test_uninstalling_drains_first():
    job = one(rendered("ha"), "Job", "-drain")
    assert annotations(job)["helm.sh/hook"] == "pre-delete"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][:2] == ["drain", "--yes"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env["LATCHKEY_SERVER"] == f"https://latchkey-headless.{NAMESPACE}.svc:7443"
    assert job["spec"]["activeDeadlineSeconds"] >= 4 * 15 * 60
    left = [each["metadata"]["name"] for each in kinds(changed("ha", drain={"enabled": False}), "Job")]
    assert left == ["latchkey-migrate"]


def test_the_sweep_never_overlaps_itself():
    job = one(rendered("everything"), "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    [container] = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    config = "/etc/latchkey/config/config.yaml"
    assert container["args"] == ["sweep", "--config", config, "--timeout", "5m", "--unless-running"]
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 5 * 60
    assert not kinds(rendered("ha"), "CronJob")


def test_the_test_hook_examines_and_calls():
    pod = one(rendered("ha"), "Pod")
    assert annotations(pod)["helm.sh/hook"] == "test"
    assert [each["args"][0] for each in pod["spec"]["containers"]] == ["doctor", "integrations"]
    assert [each["args"][0] for each in one(rendered("smallest"), "Pod")["spec"]["containers"]] == ["doctor"]
    assert not kinds(changed("smallest", test={"enabled": False}), "Pod")


# --- monitoring ---


def test_rules_and_board_are_those_of_deploy():
    pairs = {
        "latchkey.rules.yaml": "prometheus/latchkey.rules.yaml",
        "latchkey.dashboard.json": "grafana/latchkey.json",
    }
    for ours, theirs in pairs.items():
        same = (CHART / "files" / ours).read_bytes() == (ROOT / "deploy" / theirs).read_bytes()
        assert same, f"run scripts/manifests, which copies deploy/{theirs}"


def test_the_rules_arrive_with_an_address_of_the_runbook():
    rule = one(rendered("everything"), "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    source = yaml.safe_load((ROOT / "deploy" / "prometheus" / "latchkey.rules.yaml").read_text())
    text = json.dumps(source["groups"]).replace('"docs/runbook.md', '"https://git.example.com/latchkey/docs/runbook.md')
    assert rule["spec"] == {"groups": json.loads(text)}


def test_the_board_arrives_as_it_is():
    board = one(rendered("everything"), "ConfigMap", "-dashboard")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["latchkey.json"]) == json.loads(
        (ROOT / "deploy" / "grafana" / "latchkey.json").read_text()
    )


def test_the_monitor_finds_the_service_that_has_every_replica():
    objects = rendered("everything")
    monitor = one(objects, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    found = [
        each
        for each in kinds(objects, "Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert [each["metadata"]["name"] for each in found] == ["latchkey-connector-headless"]
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}


# --- the rest ---


def test_images_are_named_by_digest_where_one_is_given():
    for _, _, spec in pods(rendered("everything")):
        for container in spec["containers"]:
            assert container["image"].startswith("images.example.com/access/latchkey@sha256:")
    _, container = connector(rendered("smallest"))
    assert container["image"] == "latchkey/latchkey:0.1.0"


def test_the_version_is_that_of_the_program():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    cargo = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in cargo


def test_extra_objects_are_templates():
    names = {each["metadata"]["name"] for each in kinds(rendered("everything"), "ConfigMap")}
    assert {"latchkey-extra", "latchkey-text"} <= names


def test_names_stay_short_enough():
    done = changed("everything", fullnameOverride="a" * 200)
    assert all(len(each["metadata"]["name"]) <= 63 for each in done)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smallest", ["kubectl --namespace access exec deployment/latchkey -- latchkey integrations", "drain --yes"]),
        ("ha", ["latchkey.access.svc:7443", "latchkey-headless.access.svc:7443", "helm uninstall --timeout 15m"]),
        ("sqlite-mtls", ["stay until you delete their claims"]),
    ],
)
def test_notes_name_the_next_command(name, words):
    done = helm(
        "install", "latchkey", CHART, "--dry-run=client", "--namespace", NAMESPACE, "--values", VALUES / f"{name}.yaml"
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for word in [*words, "helm --namespace access test latchkey"]:
        assert word in notes, notes


def test_every_value_is_explained():
    """Each paragraph of the file says something about its keys."""
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {"global", *yaml.safe_load(text)} == set(schema["properties"])
    for block in text.split("\n\n"):
        assert "# " in block, f"nothing explains {block!r}"


def test_the_schema_knows_every_key_of_the_values():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(values, schema, place):
        if schema.get("additionalProperties") is not False:
            return
        assert set(values) <= set(schema["properties"]), place
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][key], f"{place}.{key}")

    compare(values, schema, "")
