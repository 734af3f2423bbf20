"""What the image holds is assembled without Docker, and runs on a read-only root as an unprivileged user."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
import requests
import yaml
from harness import ROOT, Process, connector_config, eventually, write_key

SCRIPT = ROOT / "scripts" / "image-root"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
USER = 65532
# Runs a command inside: the root is read-only, only the two volumes and /tmp can be written, nothing can be gained.
INSIDE = r"""
set -eu
root="$1" state="$2"; shift 2
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --bind "$state/config" "$root/etc/latchkey"
mount --bind "$state/ledger" "$root/var/lib/latchkey"
mount --bind "$state/witness" "$root/var/lib/latchkey-witness"
mount --bind "$state/tmp" "$root/tmp"
mount -o remount,bind,ro "$root"
if [ "$(id -u)" = 0 ] && [ "$(awk 'NR==1 {print $3}' /proc/self/uid_map)" -gt 65532 ]; then
    exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
        chroot --userspec=65532:65532 --groups= "$root" "$@"
fi
exec setpriv --no-new-privs chroot "$root" "$@"
"""

# The same where mounting is not allowed, as in most containers: nothing of the root belongs to the user, so it is
# read-only to it; the volumes are folders of it.
INSIDE_WITHOUT_MOUNTS = r"""
set -eu
root="$1" state="$2"; shift 2
for pair in config:etc/latchkey ledger:var/lib/latchkey witness:var/lib/latchkey-witness tmp:tmp; do
    rm -rf "$root/${pair#*:}"
    cp -a "$state/${pair%%:*}" "$root/${pair#*:}"
    rm -rf "$state/${pair%%:*}"
    ln -s "$root/${pair#*:}" "$state/${pair%%:*}"
done
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
    chroot --userspec=65532:65532 --groups= "$root" "$@"
"""


def may_mount():
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    if os.environ.get("LATCHKEY_NO_MOUNTS"):
        return None
    return alone if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0 else None


@pytest.fixture(scope="module")
def image(tmp_path_factory, latchkey_bin):
    """The assembled contents, and what the script said about them."""
    root = tmp_path_factory.mktemp("image") / "root"
    done = subprocess.run([SCRIPT, root, latchkey_bin], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture
def inside(image, tmp_path):
    """The command line that runs a program inside, and the folder with its volumes."""
    root, _ = image
    for name in ("config", "ledger", "witness", "tmp"):
        (tmp_path / name).mkdir()
        if os.geteuid() == 0:
            shutil.chown(tmp_path / name, USER, USER)
    # The folders above belong to this user alone.
    for folder in (*root.parents, *tmp_path.parents):
        if folder.owner() == pathlib.Path.home().owner() and tempfile.gettempdir() in map(str, folder.parents):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    if alone := may_mount():
        return [*alone, "sh", "-c", INSIDE, "sh", root, tmp_path], tmp_path
    assert os.geteuid() == 0, "neither namespaces nor root: there is no way to try another root"
    own = tmp_path / "root"
    shutil.copytree(root, own, symlinks=True)
    return ["sh", "-c", INSIDE_WITHOUT_MOUNTS, "sh", own, tmp_path], tmp_path


def test_it_holds_the_binary_its_libraries_and_certificates_and_nothing_else(image):
    root, told = image
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    libraries = {name for name in files if re.search(r"\.so(\.|$)", name)}
    assert {pathlib.Path(name).name for name in libraries} >= {"libc.so.6", "libm.so.6", "libgcc_s.so.1"}
    assert files - libraries == {
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/local/bin/latchkey",
    }
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 100
    binary = root / "usr/local/bin/latchkey"
    headers = subprocess.run(["readelf", "-S", binary], capture_output=True, text=True, check=True).stdout
    assert ".symtab" not in headers and ".debug_info" not in headers, "stripped"
    for path in root.rglob("*"):
        assert not path.stat().st_mode & 0o6000, f"{path} gives rights away"
    assert int(re.search(r"(\d+)  in all", told)[1]) == sum(
        path.stat().st_size for path in root.rglob("*") if path.is_file()
    )


def test_a_binary_with_a_library_that_the_base_has_not_is_refused(tmp_path):
    # This interpreter, or what it is linked with, asks for libraries beyond those of the base.
    binary = next(
        path
        for path in map(shutil.which, ("git", "openssl", "curl", "apt-get", sys.executable))
        if path and re.search(r"lib(z|crypto|apt-pkg|python)", _needed(path))
    )
    done = subprocess.run([SCRIPT, tmp_path / "root", binary], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "is asked for and is neither of libc6 nor of libgcc-s1" in done.stderr


def _needed(path):
    return subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=False).stdout


def test_it_runs_and_says_its_version(inside):
    command, _ = inside
    version = [*command, "/usr/local/bin/latchkey", "--version"]
    done = subprocess.run(version, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("latchkey ")


def test_it_serves_on_a_read_only_root_as_an_unprivileged_user(inside, image, simulator, capsys):
    command, state = inside
    config = connector_config(simulator, pathlib.Path("/var/lib/latchkey"))
    config["integrations"][0]["secret"]["file"]["path"] = "/etc/latchkey/api-key"
    config["witness"] = {"path": "/var/lib/latchkey-witness/witness"}
    (state / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    write_key(state / "config" / "api-key", simulator.api_key)
    if os.geteuid() == 0:
        shutil.chown(state / "config" / "api-key", USER, USER)
    [entry] = set(re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.M))
    [rest] = set(re.findall(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.M))
    args = [arg.replace("/config/config.yaml", "/config.yaml") for arg in json.loads(rest)]
    began = time.monotonic()
    process = Process([*command, *json.loads(entry), *args], state / "log")
    took = time.monotonic() - began
    try:
        url = f"http://{process.ready['http']}"
        eventually(lambda: requests.get(f"{url}/readyz", timeout=5).status_code == 200, seconds=30)
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        if os.geteuid() == 0:
            assert re.search(rf"^Uid:\t{USER}\t{USER}\t{USER}\t{USER}$", status, re.M), status
            assert re.search(r"^CapEff:\t0+$", status, re.M) and re.search(r"^CapPrm:\t0+$", status, re.M)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
        assert (state / "ledger" / "ledger.db").is_file() and (state / "witness" / "witness").is_file()
        if may_mount():
            mounts = pathlib.Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
            whole = next(line.split() for line in mounts if line.split()[4] == "/")
            assert "ro" in whole[5].split(","), whole
        assert process.stop() == 0
    finally:
        process.kill()
    weight = int(re.search(r"(\d+)  in all", image[1])[1])
    with capsys.disabled():
        print(f"\nimage: {weight / 2**20:.1f} MiB with this build, serving {took * 1000:.0f} ms after exec")


def test_the_dockerfile_passes_its_linter():
    linter = pathlib.Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_builds_with_the_compiler_of_the_project():
    text = DOCKERFILE.read_text()
    channel = re.search(r'^channel = "(.+)"$', (ROOT / "rust-toolchain.toml").read_text(), re.M)[1]
    assert f"ARG RUST={channel}\n" in text
    assert re.findall(r"^FROM (\S+)", text, re.M)[-1] == "scratch"
    assert f"USER {USER}:{USER}" in text.rpartition("FROM")[2]


def test_whoever_starts_the_binary_bounds_what_the_c_library_keeps():
    # What is measured is what is shipped.
    assert "MALLOC_ARENA_MAX=2" in DOCKERFILE.read_text().rpartition("FROM")[2]
    unit = (ROOT / "deploy" / "systemd" / "latchkey.service").read_text()
    assert "Environment=MALLOC_ARENA_MAX=2\n" in unit
    stage = (ROOT / "src" / "cli" / "bench" / "stage.rs").read_text()
    assert '.env("MALLOC_ARENA_MAX", "2")' in stage


def test_the_context_of_the_build_has_what_the_build_reads():
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:].split("/")[0] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    assert {"Cargo.toml", "Cargo.lock", "src", "proto", "build.rs", "rust-toolchain.toml", "scripts"} <= kept
    # What the sources include from elsewhere.
    for path in (ROOT / "src").rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\("((?:\.\./)+[^"]+)"\)', path.read_text()):
            found = (path.parent / name).resolve().relative_to(ROOT)
            assert found.parts[0] in kept, f"{path} includes {found}"
