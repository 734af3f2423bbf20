"""`scripts/reproduce` with a compiler that is played: it notices what makes two builds differ. `scripts/test reproduce`
runs it with the real one."""

import os
import re
import subprocess

import pytest
from harness import ROOT

CARGO = """#!/bin/sh
mkdir -p "$CARGO_TARGET_DIR/release"
{ echo a binary; %s; } >"$CARGO_TARGET_DIR/release/latchkey"
"""


@pytest.fixture
def reproduce(tmp_path):
    """Runs it with a build that puts into the binary what a command says."""

    def act(says, *args):
        played = tmp_path / "bin" / "cargo"
        played.parent.mkdir(exist_ok=True)
        played.write_text(CARGO % says)
        played.chmod(0o755)
        env = {**os.environ, "PATH": f"{played.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        env |= {"RUSTFLAGS": "-Ctarget-cpu=native", "CARGO_PROFILE_RELEASE_DEBUG": "true", "CFLAGS": "-march=native"}
        command = [str(ROOT / "scripts" / "reproduce"), *args]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert not list(tmp_path.glob("latchkey-reproduce.*")), "it leaves nothing behind"
        return done

    return act


def test_two_builds_that_are_the_same_give_one_digest(reproduce):
    done = reproduce("date -d @$SOURCE_DATE_EPOCH; umask; locale 2>&1")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
    # Whoever has the digest of a release needs one build.
    again = reproduce("date -d @$SOURCE_DATE_EPOCH; umask; locale 2>&1", done.stdout.strip())
    assert again.returncode == 0 and "second" not in again.stderr, again.stderr
    assert reproduce(":", done.stdout.strip()).returncode == 1


@pytest.mark.parametrize("says", ["date +%s%N", "od -An -N8 -tx8 /dev/urandom"])
def test_what_differs_from_build_to_build_is_noticed(reproduce, says):
    done = reproduce(says)
    assert done.returncode == 1 and "not the same" in done.stderr, done.stderr


@pytest.mark.parametrize("says", ["pwd", 'echo "$CARGO_HOME/registry"', 'echo "$CARGO_TARGET_DIR"'])
def test_a_folder_of_the_machine_in_the_binary_is_noticed(reproduce, says, monkeypatch):
    monkeypatch.setenv("CARGO_HOME", os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"))
    done = reproduce(says)
    assert done.returncode == 1 and "the binary names" in done.stderr, done.stderr


def test_flags_and_profiles_of_the_machine_do_not_reach_the_compiler(reproduce):
    flags = 'echo "$CARGO_ENCODED_RUSTFLAGS" "$CFLAGS" | tr " \\037" "\\n\\n" | sed "s/=.*=/=/" | sort -u'
    known = "--remap-path-prefix=/|-ffile-prefix-map=/"
    done = reproduce(f"env | grep -c -e native -e CARGO_PROFILE; {flags} | grep -v -c -E -e '^({known})'; true")
    assert done.returncode == 0, done.stderr
    expected = "a binary\n0\n0\n"
    digest = subprocess.run(["sha256sum"], input=expected, capture_output=True, text=True, check=True).stdout
    assert done.stdout.split() == [digest.split()[0]]
