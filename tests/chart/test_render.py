"""Every set of values renders into objects that Kubernetes takes, and into those that were reviewed."""

import difflib
import functools
import json
import os
import re
import tarfile

import jsonschema
import pytest
import yaml
from harness import ROOT
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from . import render
from .render import CHART, KUBERNETES, VALUES, helm, matrix, one, rendered

SNAPSHOTS = ROOT / "tests" / "chart" / "snapshots"
# Kept whole; the others are kept as what differs from the first.
WHOLE = ("smallest", "ha", "sqlite-mtls", "everything")
# Kinds that are no part of Kubernetes: test_objects.py looks at them.
FOREIGN = {"Certificate", "PrometheusRule", "SecretProviderClass", "ServiceMonitor"}
RENEW = "run the tests with UPDATE_SNAPSHOTS=1 and review what changes"


@pytest.mark.parametrize("name", [None, *matrix()])
def test_the_chart_passes_strict_lint(name):
    done = helm("lint", "--strict", CHART, *(["--values", VALUES / f"{name}.yaml"] if name else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@functools.cache
def definitions(version):
    """The definitions of a version, looked through once: they have megabytes."""
    contents = schema_contents(f"kubernetes-json-schema/v{full(version)}-local-strict/_definitions.json", version)
    return (Resource.from_contents(contents) @ Registry()).crawl()


@functools.cache
def full(version):
    """The release whose schemas stand for 1.30, such as 1.30.14."""
    [found] = {each for each in all_versions() if major_minor(each) == version}
    return found


@functools.cache
def validator(kind, api, version):
    """The strict schema of a kind as kubernetes-validate ships it; that package would read it anew for each object."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    place = f"kubernetes-json-schema/v{full(version)}-local-strict/{kind.lower()}-{group}.json"
    schema = schema_contents(place, version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ definitions(version))


@functools.cache
def taken(text, version):
    """Checks an object; many are the same in several sets of values."""
    each = json.loads(text)
    validator(each["kind"], each["apiVersion"], version).validate(each)
    return version


@pytest.mark.parametrize("name", matrix())
def test_kubernetes_takes_every_object(name):
    for version in KUBERNETES if name in WHOLE else (KUBERNETES[0], KUBERNETES[-1]):
        objects = rendered(name, version)
        assert {each["kind"] for each in objects} >= {"Deployment", "Service", "ConfigMap", "NetworkPolicy"}
        for each in objects:
            if each["kind"] not in FOREIGN:
                assert taken(json.dumps(each, sort_keys=True), version) == version


def test_a_property_that_kubernetes_does_not_know_would_be_noticed():
    deployment = one(rendered("smallest"), "Deployment")
    broken = yaml.safe_load(yaml.safe_dump(deployment))
    broken["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(jsonschema.ValidationError, match="readOnly"):
        taken(json.dumps(broken), KUBERNETES[-1])


class Readable(yaml.SafeDumper):
    """Writes texts of several lines as such."""


Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def short(text):
    """The objects as text, without what is a copy of files that have tests of their own."""
    objects = render.objects_of(text)
    for each in objects:
        if each["kind"] == "PrometheusRule":
            each["spec"] = {"groups": ["… files/latchkey.rules.yaml"]}
        if each["metadata"]["name"].endswith("-dashboard"):
            each["data"] = {"latchkey.json": "… files/latchkey.dashboard.json"}
    ordered = sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))
    return yaml.dump_all(ordered, Dumper=Readable, sort_keys=True, width=120)


@pytest.mark.parametrize("name", matrix())
def test_what_is_rendered_was_reviewed(name):
    text = short(render.text(name, "1.32"))
    path = SNAPSHOTS / f"{name}.yaml"
    if name not in WHOLE:
        base = short(render.text("smallest", "1.32"))
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
