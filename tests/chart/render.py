"""Renders the chart with helm, and finds its way in what comes out."""

import functools
import os
import shutil
import subprocess
import tempfile

import yaml
from harness import ROOT

CHART = ROOT / "helm" / "latchkey"
VALUES = ROOT / "tests" / "chart" / "values"
NAMESPACE = "access"
# Kubernetes versions that manifests are made for and checked against: the oldest that the chart takes to the newest.
KUBERNETES = ("1.27", "1.29", "1.30", "1.32", "1.34", "1.37")


# Dozens of renderings are read; the C reader is tenfold as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def objects_of(text):
    return [each for each in yaml.load_all(text, Loader=_LOADER) if each]


def matrix():
    """Every set of values, by name."""
    return sorted(path.stem for path in VALUES.glob("*.yaml"))


@functools.cache
def _helm():
    found = shutil.which("helm")
    assert found, "helm is missing: run through scripts/test, or put helm 4 on the path"
    home = tempfile.mkdtemp(prefix="latchkey-helm-")
    return found, {**os.environ, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}


def helm(*args, stdin=None):
    """Runs helm to its end."""
    program, env = _helm()
    return subprocess.run(
        [program, *map(str, args)], capture_output=True, text=True, timeout=60, input=stdin, env=env, check=False
    )


def template(name=None, changes=None, kubernetes=None, extra=()):
    """Runs `helm template` with a set of values and changes laid over it."""
    args = ["template", "latchkey", CHART, "--namespace", NAMESPACE, *extra]
    if name:
        args += ["--values", VALUES / f"{name}.yaml"]
    if kubernetes:
        args += ["--kube-version", kubernetes]
    if changes is not None:
        args += ["--values", "-"]
    return helm(*args, stdin=None if changes is None else yaml.safe_dump(changes))


@functools.cache
def text(name, kubernetes=None):
    """What helm prints for a set of values."""
    done = template(name, kubernetes=kubernetes)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return done.stdout


def rendered(name, kubernetes=None):
    """The objects of a set of values."""
    return objects_of(text(name, kubernetes))


def changed(name, **changes):
    """The objects of a set of values with changes laid over it."""
    done = template(name, changes)
    assert done.returncode == 0, done.stderr
    return objects_of(done.stdout)


def one(objects, kind, suffix=""):
    """The only object of a kind whose name ends so."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, f"{len(found)} of {kind} …{suffix}"
    return found[0]


def pods(objects):
    """Every pod that the objects make: its name, its labels, its spec."""
    for each in objects:
        name, spec = f"{each['kind']}/{each['metadata']['name']}", each.get("spec")
        if each["kind"] == "Pod":
            yield name, each["metadata"]["labels"], spec
        elif each["kind"] in {"Deployment", "Job"}:
            yield name, spec["template"]["metadata"]["labels"], spec["template"]["spec"]
        elif each["kind"] == "CronJob":
            pod = spec["jobTemplate"]["spec"]["template"]
            yield name, pod["metadata"]["labels"], pod["spec"]


def connector(objects):
    """The pod of the connector and its only container."""
    spec = one(objects, "Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container


def configuration(objects, suffix="-config"):
    """The connector's configuration as it is mounted."""
    return yaml.safe_load(one(objects, "ConfigMap", suffix)["data"]["config.yaml"])


