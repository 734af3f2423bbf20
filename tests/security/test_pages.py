"""docs/threat-model.md and docs/controls.md name their proofs, and they exist."""

import re

import pytest
from harness import ROOT, run

DOCS = ROOT / "docs"
ROW = re.compile(r"^\| ([ST]\d+) \|(.*)\|$", re.M)
PROOF = re.compile(r"`((?:tests|src)/[\w/.-]+\.(?:rs|py))::(\w+)`")
PLACE = re.compile(r"`((?:src|tests|scripts|helm|deploy)/[\w/.-]+)`")
STATES = ("proven", "built, not proven", "not built")


def proofs(text):
    """The tests that a text names, as (file, name)."""
    return PROOF.findall(text)


def exists(path, name):
    """Whether that file has a test of that name: one that the test runner takes for one."""
    file = ROOT / path
    if not file.is_file():
        return False
    text = file.read_text()
    if path.endswith(".py"):
        return name.startswith("test_") and bool(re.search(rf"^def {name}\(", text, re.M))
    attributes = r"(?:\s*(?:#\[[^\]]*\]|///[^\n]*|//[^\n]*))*"
    return bool(re.search(rf"#\[(?:\w+::)?test\b[^\]]*\]{attributes}\s*(?:async )?fn {name}\(", text))


def rows():
    return ROW.findall((DOCS / "threat-model.md").read_text())


def test_every_threat_has_one_row():
    numbers = [number for number, _ in rows()]
    assert [each for each in numbers if each[0] == "S"] == [f"S{number}" for number in range(1, 45)]
    own = [each for each in numbers if each[0] == "T"]
    assert own == [f"T{number}" for number in range(1, len(own) + 1)]


def test_every_state_is_one_of_three_and_fits_its_proof():
    for number, text in rows():
        _, _, proof, state = (cell.strip() for cell in text.split("|"))
        word = state.split(":")[0].strip()
        assert word in STATES, (number, state)
        # What is not built has no proof, and the page says what is missing of what is not proven.
        assert bool(proofs(proof)) == (word != "not built"), number
        assert word != "built, not proven" or ":" in state, number


@pytest.mark.parametrize("page", ["threat-model.md", "controls.md"])
def test_every_test_and_every_place_that_a_page_names_exists(page):
    text = (DOCS / page).read_text()
    named = proofs(text)
    assert len(named) > 10, "the page names its proofs"
    assert text.count("::") == len(named), "each in one spelling"
    assert [f"{path}::{name}" for path, name in named if not exists(path, name)] == []
    assert [place for place in PLACE.findall(text) if not (ROOT / place).exists()] == []


def test_every_control_has_a_command_and_a_proof():
    text = (DOCS / "controls.md").read_text()
    table = re.findall(r"^\| \*\*(.+?)\*\*[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.M)
    assert {"AC-2(2)", "AC-2(3)", "AC-6", "AC-6(5)", "CC6.1", "CC6.2", "CC6.3", "A.5.15", "A.5.18", "A.8.2"} <= {
        control for control, *_ in table
    }
    for control, does, command, proof in table:
        assert does.strip() and "`" in command and proofs(proof), control


def test_commands_that_an_auditor_is_told_exist(latchkey_bin):
    told = re.findall(r"`latchkey ([^`]*)`", (DOCS / "controls.md").read_text())
    assert len(told) > 5
    for command in told:
        # What stands before the first option or the first name in capitals is the command.
        words = re.split(r" (?:--|[A-Z])", command)[0].split()
        done = run(latchkey_bin, *words, "--help")
        assert done.returncode == 0, command
        for option in re.findall(r"--[\w-]+", command):
            assert option in done.stdout, (command, option)


def test_a_proof_that_does_not_exist_would_be_noticed():
    assert exists("tests/security/test_pages.py", "test_every_threat_has_one_row")
    assert exists("src/api/gate.rs", "every_method_of_the_surface_is_in_the_table")
    assert not exists("src/api/gate.rs", "allows"), "a function is no test"
    assert not exists("tests/security/test_pages.py", "rows")
    assert not exists("tests/security/nowhere.py", "test_every_threat_has_one_row")
