"""docs/faults.md names its proofs, and they exist."""

import re

from harness import ROOT

ROW = re.compile(r"^\| (F\d+) \|(.*)\|$", re.M)
PROOF = re.compile(r"`((?:tests|src)/[\w/.]+)::(\w+)`")
# What a row may say instead of a test: it belongs to a part with a suite of its own.
ELSEWHERE = ("`tests/simulation`", "`tests/storm`", "replicas")


def test_every_fault_has_a_row_and_every_proof_exists():
    rows = {number: text.rsplit("|", 1)[1] for number, text in ROW.findall((ROOT / "docs" / "faults.md").read_text())}
    assert list(rows) == [f"F{number}" for number in range(1, 63)]
    wrong = []
    for number, proof in rows.items():
        named = PROOF.findall(proof)
        if not named and not any(word in proof for word in ELSEWHERE):
            wrong.append(f"{number} has no proof")
        for path, name in named:
            file = ROOT / path
            found = file.is_file() and re.search(rf"\b(?:def|fn) {name}\(", file.read_text())
            if not found:
                wrong.append(f"{number}: {path} has no test {name}")
    assert not wrong, wrong
