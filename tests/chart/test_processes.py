"""What the chart renders is run: the container's command, environment and files as a process on this machine.

Paths of the container are moved below a folder, listeners to free loopback ports and Elastic Cloud to the simulator;
everything else is as rendered.
"""

import json
import pathlib
import re
import shlex
import time

import boto3
import pytest
import requests
import yaml
from harness import ROOT, Process, eventually, run

from .render import changed, connector, matrix, one, rendered


def entrypoint():
    """What the image runs, by its Dockerfile."""
    last = re.findall(r"^ENTRYPOINT (\[.*\])$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)[-1]
    return json.loads(last)


@pytest.mark.parametrize("name", matrix())
def test_the_program_takes_the_configuration_as_it_is_rendered(name, latchkey_bin, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(one(rendered(name), "ConfigMap", "-config")["data"]["config.yaml"])
    told = run(latchkey_bin, "check-config", "--config", path)
    assert told.returncode == 0, told.stderr


class Pod:
    """A container of the chart, as a process below `folder`."""

    def __init__(self, binary, folder, objects, spec, container, secrets):
        self.binary, self.folder, self.container = binary, pathlib.Path(folder), container
        self.secrets = secrets
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            self._mount(self.inside(mount["mountPath"]), volumes[mount["name"]], objects)

    def inside(self, path):
        return self.folder / path.lstrip("/")

    def _mount(self, target, volume, objects):
        target.mkdir(parents=True)
        if "configMap" in volume:
            files = one(objects, "ConfigMap", volume["configMap"]["name"])["data"]
        elif "secret" in volume:
            files = self.secrets[volume["secret"]["secretName"]]
        else:
            return
        # As the kubelet does it: files are links into a folder that is replaced as a whole.
        real = target / "..2026_01_01"
        real.mkdir()
        (target / "..data").symlink_to(real.name)
        for name, text in files.items():
            (real / name).write_text(text)
            (real / name).chmod(0o440)
            (target / name).symlink_to(f"..data/{name}")

    def configure(self, cloud, change=None):
        """Moves what the configuration names to this machine."""
        path = self.inside("/etc/latchkey/config/config.yaml")
        config = yaml.safe_load(path.read_text())
        for each in ("grpc", "http"):
            config["listen"][each] = "127.0.0.1:0"
        for integration in config["integrations"]:
            integration["base_url"] = cloud.base_url
            if change:
                change(integration)
        text = re.sub(r"(?<=: )/(?=[a-z])", f"{self.folder}/", yaml.safe_dump(config))
        path.resolve().chmod(0o600)
        path.write_text(text)

    def env(self):
        """The rendered environment, and nothing of this machine's."""
        found = {}
        for each in self.container.get("env", []):
            if "valueFrom" in each:
                reference = each["valueFrom"]["secretKeyRef"]
                found[each["name"]] = self.secrets[reference["name"]][reference["key"]]
            else:
                found[each["name"]] = re.sub(r"^/(?=etc/)", f"{self.folder}/", each["value"])
        return found

    def command(self):
        program, *rest = entrypoint()
        assert program == "/usr/local/bin/latchkey"
        args = [re.sub(r"^/(?=etc/)", f"{self.folder}/", arg) for arg in self.container["args"]]
        return [str(self.binary), *rest, *args]

    def start(self, extra=None):
        pairs = {**self.env(), **(extra or {})}
        clean = ["env", "-i", *(f"{name}={value}" for name, value in pairs.items())]
        self.process = Process([*clean, *self.command()], self.folder / "log")
        return self.process.ready

    def log(self):
        return (self.folder / "log").read_text()


def passes(probe, http):
    """Whether a probe gets its answer within the time that Kubernetes would give it."""
    address = f"http://{http}{probe['httpGet']['path']}"
    assert probe["httpGet"]["port"] == "http"

    def asked():
        return requests.get(address, timeout=probe["timeoutSeconds"]).status_code == 200

    return eventually(asked, seconds=probe["failureThreshold"] * probe["periodSeconds"] + 10)


@pytest.fixture
def make_pod(latchkey_bin, tmp_path, simulator):
    """Makes the connector's pod of a set of values, with Secrets of that content."""
    made = []

    def make(objects, secrets, change=None):
        spec, container = connector(objects)
        made.append(Pod(latchkey_bin, tmp_path / f"pod-{len(made)}", objects, spec, container, secrets))
        made[-1].configure(simulator, change)
        return made[-1]

    yield make
    for pod in made:
        if hasattr(pod, "process"):
            pod.process.kill()


def runs(pod, extra=None):
    """Starts a pod, and looks at its probes, its metrics and its end."""
    ready = pod.start(extra)
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert passes(pod.container[name], ready["http"]), (name, pod.log())
    metrics = requests.get(f"http://{ready['http']}/metrics", timeout=10).text
    assert "latchkey_integration_up" in metrics
    line = json.loads(pod.log().splitlines()[0])
    assert line["level"].lower() == "info", "logs are lines of JSON"
    return ready


def test_the_smallest_values_serve_and_pass_their_probes(make_pod, simulator, latchkey_bin):
    objects = rendered("smallest")
    pod = make_pod(objects, {"elastic-key": {"api-key": simulator.api_key}})
    ready = runs(pod)
    assert pod.inside("/var/lib/latchkey/ledger.db").is_file()
    assert pod.inside("/var/lib/latchkey-witness/witness").is_file()
    answer = run(latchkey_bin, "integrations", env={"LATCHKEY_SERVER": f"http://{ready['grpc']}"})
    assert answer.returncode == 0 and "production" in answer.stdout, answer.stderr
    grace = connector(objects)[0]["terminationGracePeriodSeconds"]
    began = time.monotonic()
    assert pod.process.stop() == 0
    assert time.monotonic() - began < grace


def test_a_key_in_the_environment_serves_and_passes_its_probes(make_pod, simulator):
    changes = {
        "config": {"integrations": [{"name": "production", "secret": {"env": {"name": "ELASTIC_API_KEY"}}}]},
        "extraEnv": [
            {"name": "ELASTIC_API_KEY", "valueFrom": {"secretKeyRef": {"name": "elastic-key", "key": "api-key"}}}
        ],
        "secretMounts": [],
    }
    runs(make_pod(changed("smallest", **changes), {"elastic-key": {"api-key": simulator.api_key}}))


def test_a_key_in_aws_is_read_with_the_role_of_the_service_account(make_pod, simulator, moto_url, tmp_path):
    client = boto3.client(
        "secretsmanager",
        endpoint_url=moto_url,
        region_name="eu-west-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_secret(Name="latchkey/elastic", SecretString=simulator.api_key)
    objects = rendered("aws-irsa")
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJsYXRjaGtleSJ9.")
    # What EKS adds to a pod whose ServiceAccount has this annotation.
    role = one(objects, "ServiceAccount")["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    added = {
        "AWS_ROLE_ARN": role,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    runs(make_pod(objects, {}), added)


def test_readiness_fails_and_liveness_holds_without_the_key(make_pod, simulator):
    pod = make_pod(rendered("smallest"), {"elastic-key": {"api-key": "essu_wrong"}})
    ready = pod.start()
    assert passes(pod.container["livenessProbe"], ready["http"])
    assert requests.get(f"http://{ready['http']}/readyz", timeout=10).status_code == 503


def test_the_test_hook_finds_nothing_wrong_with_a_right_pod_and_says_what_is_wrong_with_another(
    latchkey_bin, tmp_path, simulator
):
    objects = rendered("smallest")
    spec = one(objects, "Pod")["spec"]
    for key, code in ((simulator.api_key, 0), ("essu_wrong", 1)):
        secrets = {"elastic-key": {"api-key": key}}
        pod = Pod(latchkey_bin, tmp_path / f"pod-{code}", objects, spec, spec["containers"][0], secrets)
        pod.configure(simulator)
        program, *args = pod.command()
        done = run(program, *args)
        assert done.returncode == code, shlex.join(args) + done.stdout + done.stderr


def test_the_drain_hook_leaves_nothing_behind(make_pod, simulator, latchkey_bin):
    """The command of the hook against the connector of a chart; only the address is another."""
    pod = make_pod(rendered("smallest"), {"elastic-key": {"api-key": simulator.api_key}})
    ready = runs(pod)
    server = {"LATCHKEY_SERVER": f"http://{ready['grpc']}"}
    person = simulator.person()
    given = run(
        latchkey_bin, "grant", person.email, "viewer", "--on", "deployment/staging", "--for", "45m",
        "--reason", "INC-1", env=server,
    )  # fmt: skip
    assert given.returncode == 0, given.stderr
    assert simulator.held(person)
    [hook] = one(rendered("ha"), "Job", "-drain")["spec"]["template"]["spec"]["containers"]
    done = run(latchkey_bin, *hook["args"], env=server, seconds=120)
    assert done.returncode == 0, done.stderr
    assert simulator.held(person) == set()


@pytest.mark.parametrize("name", matrix())
def test_every_command_that_a_pod_runs_exists(name, latchkey_bin):
    known = run(latchkey_bin, "--help").stdout
    for each in rendered(name):
        if each["kind"] in {"Pod", "Job", "CronJob"}:
            spec = each["spec"]
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            spec = spec.get("template", {}).get("spec", spec)
            for container in spec["containers"]:
                command = container["args"][0]
                assert re.search(rf"^  {command}\s", known, re.M), command
                told = run(latchkey_bin, command, "--help").stdout
                for option in (word for word in container["args"] if word.startswith("--")):
                    assert option in told, (command, option)


def test_variables_of_the_hooks_are_those_of_the_command_line(latchkey_bin):
    told = run(latchkey_bin, "drain", "--help").stdout
    known = set(re.findall(r"\[env: (\w+)", told))
    [hook] = one(rendered("everything"), "Job", "-drain")["spec"]["template"]["spec"]["containers"]
    used = {each["name"] for each in hook["env"]}
    assert {"LATCHKEY_SERVER", "LATCHKEY_REQUESTER", "LATCHKEY_TLS_CA"} <= used
    assert used <= known
