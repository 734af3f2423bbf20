"""Secrets with a text of their own, and the search for any trace of them in everything that a connector writes or shows."""

import base64
import json
import pathlib
import urllib.parse

import requests
from harness import run

# Long enough that no other text has it by chance.
SHORTEST = 12


def spellings(secret):
    """The ways in which a text may stand somewhere: itself, its halves, and what encoders make of it."""
    text = secret.strip()
    assert len(text) >= SHORTEST, "too short to be hunted"
    raw = text.encode()
    half = len(text) // 2
    found = {
        "itself": text,
        "in base64": base64.b64encode(raw).decode().rstrip("="),
        "in base64 of URLs": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "in hexadecimal": raw.hex(),
        "in a URL": urllib.parse.quote(text, safe=""),
        "in JSON": json.dumps(text)[1:-1],
        "as a list of bytes": ", ".join(map(str, raw[:24])),
    }
    if half >= 16:
        found |= {"its first half": text[:half], "its second half": text[half:]}
    return {how: spelling.encode() for how, spelling in found.items()}


class Hunt:
    """Remembers secrets by name, and fails where any of them shows."""

    def __init__(self):
        self.secrets = {}

    def add(self, name, secret):
        self.secrets[name] = spellings(secret)
        return secret

    def token(self, name, token):
        """A signed text: as a whole, and each part that is not the same for everybody."""
        _, claims, signature = token.strip().split(".")
        self.add(name, token.strip())
        self.add(f"claims of {name}", claims)
        self.add(f"signature of {name}", signature)
        return token

    def search(self, places):
        """`places` are bytes or texts by name. Answers how many bytes were looked through."""
        assert self.secrets, "nothing to hunt"
        looked, shown = 0, []
        for place, content in places.items():
            content = content.encode() if isinstance(content, str) else content
            looked += len(content)
            for name, ways in self.secrets.items():
                for how, spelling in ways.items():
                    at = content.find(spelling)
                    if at >= 0:
                        around = content[max(0, at - 120) : at + len(spelling) + 40]
                        shown.append(f"{place} shows {name}, {how}: {around!r}")
        assert not shown, "\n".join(shown[:20])
        return looked


def files(folder, without=()):
    """Every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file() and path.name not in without
    }


def living(bench, options=(), printed=()):
    """What a running connector writes and shows: files, pages, process listing, standard output, answers of the API."""
    shown = files(bench.folder, without=("api-key", "simulator.log"))
    for page in ("metrics", "readyz", "healthz"):
        shown[f"/{page}"] = requests.get(f"{bench.connector.http}/{page}", timeout=10).content
    process = pathlib.Path(f"/proc/{bench.connector.process.pid}")
    for name in ("cmdline", "environ", "comm", "maps", "limits"):
        shown[f"/proc/PID/{name}"] = (process / name).read_bytes()
    for thread in (process / "task").iterdir():
        shown[f"/proc/PID/task/{thread.name}/comm"] = (thread / "comm").read_bytes()
    while not bench.connector.process.lines.empty():
        printed.append(bench.connector.process.lines.get_nowait() or "")
    shown["standard output"] = "\n".join([json.dumps(bench.connector.process.ready), *printed])
    server = ["--server", f"http://{bench.connector.grpc}"] if not options else []
    for command in ("integrations", "limits", "list", "receipts", "overdue", "drift", "review list", "hold show", "key show"):
        done = run(bench.binary, *command.split(), "--output", "json", *server, *options)
        shown[f"latchkey {command}"] = done.stdout + done.stderr
    return shown


def offline(bench, folder):
    """What is made of the ledger beside the connector: events, the sealed audit, the evidence of a period."""
    config = ["--config", bench.connector.config_file]
    pack = folder / f"pack-{len(list(folder.glob('pack-*')))}"
    shown = {}
    for words in (
        ["events"],
        ["audit", "export"],
        ["audit", "head"],
        ["audit", "evidence", "--from", "1h", "--pack", pack],
        ["check-config"],
        ["doctor"],
        ["doctor", "--output", "json"],
    ):
        done = run(bench.binary, *words, *config)
        shown["latchkey " + " ".join(map(str, words))] = done.stdout + done.stderr
    return shown | {f"evidence/{name}": content for name, content in files(pack).items()}
