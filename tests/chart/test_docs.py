"""What the pages tell people to write is what the chart and the program take."""

import re

import pytest
import yaml
from harness import ROOT, run

from .render import KUBERNETES, changed, helm, one, template

DOCS = ROOT / "docs"


def blocks(page):
    """The YAML of a page, in order."""
    found = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)
    return [yaml.safe_load(text) for text in found]


def test_the_values_of_the_installation_render_alone():
    values = blocks("install.md")[0]
    done = template(changes=values)
    assert done.returncode == 0, done.stderr
    assert "REGISTRY/latchkey:0.1.0" in done.stdout


def test_the_values_for_control_planes_render_on_top_of_them():
    first, second = blocks("install.md")[:2]
    first["config"] |= second.pop("config")
    objects = changed("smallest", **first, **second)
    assert {each["metadata"]["name"] for each in objects if each["kind"] == "Service"} == {
        "latchkey",
        "latchkey-headless",
    }
    assert one(objects, "Certificate") and one(objects, "Job", "-drain")


def test_the_values_for_several_replicas_render_on_top_of_them():
    [values] = blocks("availability.md")
    objects = changed("smallest", **values)
    assert one(objects, "Deployment")["spec"]["replicas"] == 3
    assert one(objects, "PodDisruptionBudget") and one(objects, "Job", "-migrate")


def test_the_configuration_for_systemd_is_right(latchkey_bin, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(blocks("install.md")[-1]))
    done = run(latchkey_bin, "check-config", "--config", path)
    assert done.returncode == 0, done.stderr
    unit = (ROOT / "deploy" / "systemd" / "latchkey.service").read_text()
    assert "LoadCredential=elastic-api-key:" in unit
    assert "/run/credentials/latchkey.service/elastic-api-key" in path.read_text()


@pytest.mark.parametrize("page", ["install.md", "upgrade.md"])
def test_commands_of_the_pages_exist(page, latchkey_bin):
    text = (DOCS / page).read_text()
    helm_commands = set(re.findall(r"^helm (\w+)", text, re.M))
    assert helm_commands, page
    for command in helm_commands:
        done = helm(command, "--help")
        assert done.returncode == 0, command
        for line in re.findall(rf"^helm {command} (.*)$", text, re.M):
            for option in re.findall(r"--[\w-]+", line):
                assert option in done.stdout, (command, option)
    known = run(latchkey_bin, "--help").stdout
    for command, rest in re.findall(r"(?:-- |`)latchkey ([a-z][\w-]*)(.*)", text):
        if command == "migrate":  # built with the PostgreSQL ledger
            continue
        assert re.search(rf"^  {command}\s", known, re.M), command
        told = run(latchkey_bin, command, "--help").stdout
        for option in re.findall(r"--[\w-]+", rest.split("`")[0]):
            assert option in told, (command, option)


def test_the_page_names_the_oldest_kubernetes_that_the_chart_takes():
    chart = yaml.safe_load((ROOT / "helm" / "latchkey" / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"
    assert f"Kubernetes {KUBERNETES[0]} or later" in (DOCS / "install.md").read_text()
