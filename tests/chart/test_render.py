"""Every set of values renders into objects that Kubernetes takes, and into those that were reviewed."""

import difflib
import functools
import json
import os
import tarfile

import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml
from harness import ROOT

from . import render
from .render import CHART, KUBERNETES, VALUES, helm, matrix, one, rendered

SNAPSHOTS = ROOT / "tests" / "chart" / "snapshots"
# Kept whole; the others are kept as what differs from the first.
WHOLE = ("smallest", "ha", "sqlite-mtls", "everything")
# Kinds that are no part of Kubernetes: test_objects.py looks at them.
FOREIGN = {"Certificate", "ServiceMonitor", "PrometheusRule"}
RENEW = "run the tests with UPDATE_SNAPSHOTS=1 and review what changes"


@pytest.mark.parametrize("name", [None, *matrix()])
def test_the_chart_passes_strict_lint(name):
    done = helm("lint", "--strict", CHART, *(["--values", VALUES / f"{name}.yaml"] if name else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@pytest.fixture(autouse=True)
def read_once(monkeypatch):
    """Reads each schema once: the definitions have megabytes."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", SCHEMAS)


SCHEMAS = functools.cache(kubernetes_validate.utils.schema_contents)


@functools.cache
def taken(text, version):
    """Checks an object; many are the same in several sets of values."""
    return kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("name", matrix())
def test_kubernetes_takes_every_object(name):
    for version in KUBERNETES:
        objects = rendered(name, version)
        assert {each["kind"] for each in objects} >= {"Deployment", "Service", "ConfigMap", "NetworkPolicy"}
        for each in objects:
            if each["kind"] not in FOREIGN:
                assert taken(json.dumps(each, sort_keys=True), version) == version


def test_a_property_that_kubernetes_does_not_know_would_be_noticed():
    deployment = one(rendered("smallest"), "Deployment")
    broken = yaml.safe_load(yaml.safe_dump(deployment))
    broken["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


def short(objects):
    """The objects as text, without what is a copy of files that have tests of their own."""
    for each in objects:
        if each["kind"] == "PrometheusRule":
            each["spec"] = {"groups": ["… files/latchkey.rules.yaml"]}
        if each["metadata"]["name"].endswith("-dashboard"):
            each["data"] = {"latchkey.json": "… files/latchkey.dashboard.json"}
    ordered = sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))
    return yaml.safe_dump_all(ordered, sort_keys=True, width=120)


@pytest.mark.parametrize("name", matrix())
def test_what_is_rendered_was_reviewed(name):
    text = short(yaml.safe_load_all(render._rendered(name, "1.32")))
    path = SNAPSHOTS / f"{name}.yaml"
    if name not in WHOLE:
        base = short(yaml.safe_load_all(render._rendered("smallest", "1.32")))
        lines = difflib.unified_diff(base.splitlines(), text.splitlines(), "smallest", name, n=4, lineterm="")
        text = "\n".join(lines) + "\n"
        path = path.with_suffix(".diff")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), f"{path.name} is missing: {RENEW}"
    assert text == path.read_text(), f"{path.name} differs: {RENEW}"


def test_there_is_no_snapshot_of_values_that_are_gone():
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(matrix())


def test_the_package_holds_the_chart_and_nothing_else(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        names = {name.removeprefix("latchkey/") for name in archive.getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "templates/deployment.yaml"} <= names
    assert not [name for name in names if name.startswith(("ci/", "tests/"))]
