"""The bill of materials against what it is about: the lock file, the policy of dependencies, the binary itself."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from harness import ROOT


def write(*options):
    command = [sys.executable, str(ROOT / "scripts" / "sbom"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.fixture(scope="module")
def text():
    return write()


@pytest.fixture(scope="module")
def components(text):
    """The crates of the bill, by name and version."""
    found = {(each["name"], each["version"]): each for each in json.loads(text)["components"]}
    assert len(found) > 300
    return found


def crates(components):
    return {key: each for key, each in components.items() if each["purl"].startswith("pkg:cargo/")}


def test_it_is_a_bill_of_the_standard_and_the_same_when_made_again(text, tmp_path):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    write(tmp_path / "bill.json")
    assert (tmp_path / "bill.json").read_text() == text
    document = json.loads(text)
    ours = document["metadata"]["component"]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert (ours["type"], ours["name"], ours["version"]) == ("application", "latchkey", version)
    refs = {ours["bom-ref"], *(each["bom-ref"] for each in document["components"])}
    assert refs == {each["ref"] for each in document["dependencies"]}


def test_a_bill_that_is_none_would_be_noticed(text):
    document = json.loads(text)
    document["components"][0]["scope"] = "sometimes"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


def test_every_crate_that_the_binary_names_is_in_it_as_linked(components, latchkey_bin):
    """Panics name the file they come from: what is linked is told by the binary, whatever cargo says."""
    named = set(re.findall(rb"/registry/src/[^/]+/([\w.+-]+)-(\d+\.\d+\.\d+[\w.+-]*)/", latchkey_bin.read_bytes()))
    named = {(name.decode(), version.decode()) for name, version in named}
    assert len(named) > 100, "paths are in the binary"
    missing = {key for key in named if components.get(key, {}).get("scope") != "required"}
    assert not missing


def test_every_crate_is_that_of_the_lock_file_and_has_a_license(components):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(each["name"], each["version"]): each.get("checksum") for each in lock}
    for key, each in crates(components).items():
        assert [each["alg"] for each in each["hashes"]] == ["SHA-256"], key
        assert each["hashes"][0]["content"] == checksums[key], key
    assert [key for key, each in components.items() if not each.get("licenses")] == []


def test_nothing_that_is_banned_is_in_it(components):
    banned = tomllib.loads((ROOT / "deny.toml").read_text())["bans"]["deny"]
    whole = {each["name"] for each in banned if "version" not in each}
    assert "ring" in whole
    assert not whole & {name for name, _ in components}


def test_c_libraries_inside_crates_are_listed_with_their_version(components):
    inside = {
        part["name"]: part["version"] for each in components.values() for part in each.get("components", [])
    }
    assert set(inside) == {"aws-lc", "sqlite"}
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in inside.values()), inside
