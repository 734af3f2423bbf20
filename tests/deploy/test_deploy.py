"""Alerts, runbook and board: they name each other, and only metrics that exist."""

import importlib.util
import itertools
import json
import re

import promql_parser
import pytest
import yaml
from harness import ROOT, eventually, run

RULES = ROOT / "deploy" / "prometheus" / "latchkey.rules.yaml"
BOARD = ROOT / "deploy" / "grafana" / "latchkey.json"
RUNBOOK = ROOT / "docs" / "runbook.md"
# What a scrape adds to every series.
SCRAPED = {"job", "instance"}
# What stands for Grafana's variables while an expression is parsed.
VARIABLES = {"$__rate_interval": "5m", "${window}": "2592000", "$integration": ".*"}


def listed():
    """The metrics of docs/metrics.md: name to (type, labels)."""
    rows = re.findall(r"^\| `(latchkey_\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert len(rows) > 20, rows
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def board():
    return json.loads(BOARD.read_text())


def board_expressions():
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]


def expressions():
    """Every PromQL expression with where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for where, text in board_expressions():
        for variable, value in VARIABLES.items():
            text = text.replace(variable, value)
        yield where, text


def nodes(expression):
    """Every node of a parsed expression."""
    found, waiting = [], [expression]
    while waiting:
        node = waiting.pop()
        found.append(node)
        for name in ("lhs", "rhs", "expr", "param", "vector_selector", "args"):
            inner = getattr(node, name, None)
            waiting.extend(inner if isinstance(inner, list) else [inner] if inner is not None else [])
    return found


def selectors(text):
    return [node for node in nodes(promql_parser.parse(text)) if isinstance(node, promql_parser.VectorSelector)]


@pytest.mark.parametrize(("where", "text"), list(expressions()))
def test_every_expression_parses_and_selects_what_exists(where, text):
    known, recorded = listed(), {rule["record"] for rule in rules() if "record" in rule}
    found = selectors(text)
    assert found, f"{where} selects nothing"
    for selector in found:
        name = selector.name
        if name in recorded:
            assert not selector.matchers.matchers, f"{where}: {name} is recorded by integration"
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        family = base if base != name and known.get(base, ("",))[0] == "histogram" else name
        assert family in known, f"{where}: docs/metrics.md does not list {name}"
        kind, labels = known[family]
        assert kind != "histogram" or base != name, f"{where}: {name} is a histogram"
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= labels | SCRAPED | {"le"}, f"{where}: {name} has no label {used - labels}"


@pytest.mark.parametrize(("where", "text"), list(expressions()))
def test_aggregations_keep_only_labels_that_are_there(where, text):
    known = listed()
    there = {"le"} | SCRAPED
    for selector in selectors(text):
        family = re.sub(r"_(bucket|sum|count)$", "", selector.name)
        there |= known.get(selector.name, known.get(family, ("", {"integration"})))[1]
    for node in nodes(promql_parser.parse(text)):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= there, f"{where}: {node.modifier.labels}"


@pytest.mark.parametrize(("where", "text"), list(expressions()))
def test_counters_are_only_looked_at_over_time(where, text):
    known = listed()
    over_time = {
        id(node.vector_selector)
        for node in nodes(promql_parser.parse(text))
        if isinstance(node, promql_parser.MatrixSelector)
    }
    for selector in selectors(text):
        if known.get(selector.name, ("",))[0] == "counter":
            inside = re.search(rf"(rate|increase)\({selector.name}\b", text)
            assert inside or id(selector) in over_time, f"{where}: {selector.name} alone only rises"


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    for alert in alerts():
        name, notes = alert["alert"], alert["annotations"]
        assert name.startswith("Latchkey"), name
        assert alert["labels"]["severity"] in {"page", "ticket", "info"}, name
        assert {"summary", "description", "action", "runbook_url"} == set(notes), name
        assert all(text.strip() for text in notes.values()), name
        assert notes["runbook_url"] == f"docs/runbook.md#{name.lower()}", name


def sections():
    """The sections of the runbook by heading."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_runbook_and_alerts_name_each_other():
    assert set(sections()) == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize(("name", "text"), sections().items())
def test_a_section_of_the_runbook_has_meaning_weight_three_commands_and_an_end(name, text):
    for part in ("**Meaning.**", "**How bad.**", "**Ends**"):
        assert part in text, f"{name} lacks {part}"
    block = re.search(r"^```\n(.*?)^```$", text, flags=re.M | re.S)
    assert block, name
    commands = block[1].splitlines()
    assert len(commands) == 3 and all(line.startswith("latchkey ") for line in commands), (name, commands)


def runbook_commands():
    text = RUNBOOK.read_text()
    lines = re.findall(r"^latchkey .*$", text, flags=re.M) + re.findall(r"`(latchkey [^`]+)`", text)
    texts = [alert["annotations"]["action"] for alert in alerts()]
    lines += [line for action in texts for line in re.findall(r"`(latchkey [^`]+)`", action)]
    return sorted({line.split("#")[0].strip() for line in lines})


@pytest.mark.parametrize("line", runbook_commands())
def test_commands_of_the_runbook_exist_with_their_options(latchkey_bin, line):
    words = line.split()
    command = list(itertools.takewhile(re.compile("[a-z][a-z-]*").fullmatch, words[1:]))
    told = run(latchkey_bin, *command, "--help")
    assert told.returncode == 0, (line, told.stderr)
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", told.stdout), (line, option)


def test_the_board_is_what_its_generator_writes():
    spec = importlib.util.spec_from_file_location("board", ROOT / "deploy" / "grafana" / "board.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert board() == module.build(), "run deploy/grafana/board.py > deploy/grafana/latchkey.json"


def test_the_board_is_well_formed():
    whole = board()
    assert whole["schemaVersion"] >= 36 and whole["title"] and whole["uid"]
    names = [variable["name"] for variable in whole["templating"]["list"]]
    assert names[:2] == ["datasource", "integration"]
    panels = whole["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {"Promise", "Grants", "Elastic Cloud", "Key and clock", "Ledger and process"} == {
        panel["title"] for panel in panels if panel["type"] == "row"
    }
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, f"{panel['title']} overlaps"
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    for where, text in board_expressions():
        used = set(re.findall(r"\$\{?(\w+)\}?", text)) - {"__rate_interval"}
        assert used <= set(names), f"{where}: {used - set(names)}"


def test_a_real_scrape_shows_the_promise_and_its_objective(make_bench):
    bench = make_bench(service_level={"revocation_within": "90s", "objective": 0.99, "window": "7d"})
    connector, person = bench.connector, bench.cloud.person()
    assert connector.metric("latchkey_revocations_total", outcome="late") == 0
    assert 'outcome="on_time"} 0' in connector.metrics(), "zeros are there before anything counts"
    assert connector.metric("latchkey_objective_revocation_seconds") == 90
    assert connector.metric("latchkey_objective_ratio") == 0.99
    assert connector.metric("latchkey_objective_window_seconds") == 7 * 86400
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    bench.client.wait_for(grant, "ENDED")
    assert connector.metric("latchkey_revocations_total", outcome="on_time", integration="elastic") == 1
    assert connector.metric("latchkey_revocation_seconds_count", integration="elastic") == 1
    assert connector.metric("latchkey_revocation_seconds_bucket", le="60") == 1
    assert connector.metric("latchkey_activation_seconds_count", integration="elastic") == 1
    assert connector.metric("latchkey_ledger_writable") == 1
    # Counted every few seconds.
    eventually(lambda: connector.metric("latchkey_integration_up", integration="elastic") == 1, seconds=30)
    families = {
        line.split()[2] for line in connector.metrics().splitlines() if line.startswith("# TYPE latchkey_")
    }
    assert families <= set(listed()), "a scrape shows nothing that the page does not list"


def test_the_connectors_own_question_about_its_key_is_audited(bench):
    bench.cloud.person()
    rows = bench.connector.rows("SELECT body FROM events WHERE kind = 'call_made'")
    own = [row for row in rows if "GET /users/auth/keys/" in row["body"]]
    asked = [call for call in bench.cloud.calls() if call["kind"].startswith("keys.")]
    assert len(own) == len(asked) >= 1, (own, asked)
