#!/usr/bin/env python3
"""Writes latchkey.json, the Grafana board: `deploy/grafana/board.py > deploy/grafana/latchkey.json`.

Panels are laid out in rows of 24 units, left to right; a row breaks when it is full.
"""

import json
import sys

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'integration=~"$integration"'
RATE = "$__rate_interval"


class Board:
    """Collects panels and places them."""

    def __init__(self):
        self.panels = []
        self.x = self.y = self.height = 0

    def row(self, title):
        self._break()
        self.panels.append(
            {
                "id": len(self.panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        self.y += 1

    def panel(self, kind, title, about, queries, width=8, height=8, **more):
        if self.x + width > 24:
            self._break()
        targets = [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                **({"format": "heatmap"} if kind == "heatmap" else {}),
                **({"instant": True, "range": False} if kind in ("stat", "gauge") else {}),
            }
            for number, (expression, legend) in enumerate(queries)
        ]
        self.panels.append(
            {
                "id": len(self.panels) + 1,
                "type": kind,
                "title": title,
                "description": about,
                "datasource": DATASOURCE,
                "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height},
                "targets": targets,
                **more,
            }
        )
        self.x += width
        self.height = max(self.height, height)

    def _break(self):
        self.y += self.height
        self.x = self.height = 0


def steps(*pairs):
    """Thresholds: a colour from each value on; the first has no value."""
    return {
        "mode": "absolute",
        "steps": [{"color": colour, "value": value} for value, colour in pairs],
    }


def field(unit, thresholds=None, **more):
    defaults = {"unit": unit, "min": 0, **more}
    if thresholds:
        defaults["thresholds"] = thresholds
    return {"defaults": defaults, "overrides": []}


def value(reduce="lastNotNull"):
    return {"reduceOptions": {"calcs": [reduce], "fields": "", "values": False}, "colorMode": "background"}


def series(stacked=False):
    return {
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 5,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "showPoints": "never",
    }


def quantiles(metric):
    return [
        (
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{HERE}}}[{RATE}])))",
            f"{share:g}",
        )
        for share in (0.5, 0.95, 0.99)
    ]


def lines(board, title, about, queries, unit, stacked=False, **more):
    board.panel(
        "timeseries",
        title,
        about,
        queries,
        fieldConfig=field(unit, custom=series(stacked)),
        options={"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        **more,
    )


def build():
    board = Board()

    board.row("Promise")
    board.panel(
        "stat",
        "Oldest access past its end",
        "How long the oldest access that is due to go has been due. Red once it is past the objective.",
        [(f"max(latchkey_oldest_overdue_seconds{{{HERE}}})", "")],
        width=4,
        height=6,
        fieldConfig=field("s", steps((None, "green"), (30, "yellow"), (60, "red"))),
        options=value(),
    )
    late = f'increase(latchkey_revocations_total{{{HERE},outcome="late"}}[${{window}}s])'
    every = f"increase(latchkey_revocations_total{{{HERE}}}[${{window}}s])"
    board.panel(
        "gauge",
        "Error budget left",
        "Of the revocations that may be late within the window of the objective, the share that is left.",
        [
            (
                f"clamp_min(1 - (sum({late}) / sum({every})) / (1 - scalar(max(latchkey_objective_ratio))), 0)"
                f" or vector(1)",
                "",
            )
        ],
        width=4,
        height=6,
        fieldConfig=field("percentunit", steps((None, "red"), (0.1, "yellow"), (0.5, "green")), max=1),
        options={"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    )
    board.panel(
        "stat",
        "In time",
        "Share of the revocations within the window that were verified gone in time.",
        [(f'sum(increase(latchkey_revocations_total{{{HERE},outcome="on_time"}}[${{window}}s])) / sum({every})', "")],
        width=4,
        height=6,
        fieldConfig=field("percentunit", steps((None, "red"), (0.99, "yellow"), (0.999, "green")), decimals=3, max=1),
        options=value(),
    )
    board.panel(
        "stat",
        "Members not begun",
        "Members whose removal is due and not sent.",
        [(f"sum(latchkey_overdue_members{{{HERE}}})", "")],
        width=4,
        height=6,
        fieldConfig=field("short", steps((None, "green"), (100, "yellow"), (10000, "red"))),
        options=value(),
    )
    board.panel(
        "stat",
        "Blocked removals",
        "Removals that Elastic Cloud refuses; each needs a person.",
        [(f"sum(latchkey_blocked_removals{{{HERE}}})", "")],
        width=4,
        height=6,
        fieldConfig=field("short", steps((None, "green"), (1, "red"))),
        options=value(),
    )
    board.panel(
        "stat",
        "Members in drift",
        "Members of whom the last sweep saw something else than expected.",
        [(f"sum(latchkey_drift_open{{{HERE}}})", "")],
        width=4,
        height=6,
        fieldConfig=field("short", steps((None, "green"), (1, "yellow"))),
        options=value(),
    )
    board.panel(
        "heatmap",
        "Due to verified gone",
        "Every revocation that Latchkey sent, by how long after its end access was verified gone.",
        [(f"sum by (le) (increase(latchkey_revocation_seconds_bucket{{{HERE}}}[{RATE}]))", "{{le}}")],
        width=12,
        options={
            "calculate": False,
            "yAxis": {"unit": "s"},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "cellGap": 1,
        },
    )
    lines(
        board,
        "Due to verified gone, quantiles",
        "The promise in three numbers, with the objective as a line.",
        [*quantiles("latchkey_revocation_seconds"), ("max(latchkey_objective_revocation_seconds)", "objective")],
        "s",
        width=12,
    )
    lines(
        board,
        "Due to sent",
        "The part of it that Latchkey and its rate budget take.",
        quantiles("latchkey_revocation_lateness_seconds"),
        "s",
    )
    lines(
        board,
        "Sent to verified",
        "The part of it that Elastic Cloud and the proof by reading take.",
        quantiles("latchkey_revocation_verified_seconds"),
        "s",
    )
    lines(
        board,
        "Oldest access past its end, by integration",
        "A saw-tooth is normal; a line that climbs is not.",
        [(f"latchkey_oldest_overdue_seconds{{{HERE}}}", "{{integration}}")],
        "s",
    )

    board.row("Grants")
    lines(
        board,
        "Grants by state",
        "Grants that have not ended.",
        [(f"sum by (state) (latchkey_grants{{{HERE}}})", "{{state}}")],
        "short",
        stacked=True,
    )
    lines(
        board,
        "Grants ended, by cause",
        "A rise of superseded means that somebody else takes roles away.",
        [(f"sum by (cause) (increase(latchkey_grants_ended_total{{{HERE}}}[{RATE}]))", "{{cause}}")],
        "short",
        stacked=True,
    )
    lines(
        board,
        "To be given to verified there",
        "How long people wait for access.",
        quantiles("latchkey_activation_seconds"),
        "s",
    )
    lines(
        board,
        "Assignments owned",
        "What is Latchkey's to remove, second looks included.",
        [(f"latchkey_owned_assignments{{{HERE}}}", "{{integration}}")],
        "short",
        width=12,
    )
    lines(
        board,
        "Drift",
        "Differences that somebody else made, by kind.",
        [(f"sum by (kind) (increase(latchkey_drift_total{{{HERE}}}[{RATE}]))", "{{kind}}")],
        "short",
        width=12,
    )

    board.row("Elastic Cloud")
    lines(
        board,
        "Calls by operation",
        "Calls a second that ended.",
        [(f"sum by (operation) (rate(latchkey_upstream_requests_total{{{HERE}}}[{RATE}]))", "{{operation}}")],
        "reqps",
        stacked=True,
    )
    lines(
        board,
        "Calls that are not done",
        "Unknown outcomes are read back; refusals say why in the next panel.",
        [
            (
                f'sum by (outcome) (rate(latchkey_upstream_requests_total{{{HERE},outcome!="done"}}[{RATE}]))',
                "{{outcome}}",
            )
        ],
        "reqps",
        stacked=True,
    )
    lines(
        board,
        "Refusals and 429",
        "Why calls had no effect, and answers that said to slow down.",
        [
            (f"sum by (reason) (rate(latchkey_upstream_refusals_total{{{HERE}}}[{RATE}]))", "{{reason}}"),
            (f"sum(rate(latchkey_upstream_throttled_total{{{HERE}}}[{RATE}]))", "429"),
        ],
        "reqps",
    )
    lines(
        board,
        "Rate budget",
        "What the budget allows, and what is called.",
        [
            (f"latchkey_upstream_rate_per_second{{{HERE}}}", "allowed {{integration}}"),
            (f"sum by (integration) (rate(latchkey_upstream_requests_total{{{HERE}}}[{RATE}]))", "called {{integration}}"),
        ],
        "reqps",
    )
    lines(
        board,
        "Wait for a turn, 99 %",
        "By priority: removals wait least, listings most.",
        [
            (
                "histogram_quantile(0.99, sum by (le, priority)"
                f" (rate(latchkey_upstream_rate_limit_wait_seconds_bucket{{{HERE}}}[{RATE}])))",
                "{{priority}}",
            )
        ],
        "s",
    )
    lines(
        board,
        "Time of a call, 99 %",
        "From the first byte to the last answer, repetitions included.",
        [
            (
                "histogram_quantile(0.99, sum by (le, operation)"
                f" (rate(latchkey_upstream_request_seconds_bucket{{{HERE}}}[{RATE}])))",
                "{{operation}}",
            )
        ],
        "s",
    )

    board.row("Key and clock")
    board.panel(
        "stat",
        "Integration up",
        "1 unless there is no key, or the last call that says something of it failed.",
        [(f"latchkey_integration_up{{{HERE}}}", "{{integration}}")],
        width=6,
        height=6,
        fieldConfig=field("short", steps((None, "red"), (1, "green"))),
        options=value(),
    )
    board.panel(
        "stat",
        "Key expires in",
        "Where Elastic Cloud told when.",
        [(f"latchkey_key_expires_in_seconds{{{HERE}}}", "{{integration}}")],
        width=6,
        height=6,
        fieldConfig=field("s", steps((None, "red"), (259200, "orange"), (1209600, "yellow"), (2592000, "green"))),
        options=value(),
    )
    board.panel(
        "stat",
        "Key loaded, and sees owners",
        "Both 1: the key is there and sees what an owner sees.",
        [
            (f"latchkey_key_loaded{{{HERE}}}", "{{integration}} loaded"),
            (f"latchkey_key_sees_owners{{{HERE}}}", "{{integration}} sees owners"),
        ],
        width=6,
        height=6,
        fieldConfig=field("short", steps((None, "red"), (1, "green"))),
        options=value(),
    )
    lines(
        board,
        "Clock of Elastic Cloud minus ours",
        "Ends are decided by our clock.",
        [(f"latchkey_upstream_clock_skew_seconds{{{HERE}}}", "{{integration}}")],
        "s",
        width=6,
        height=6,
    )

    board.row("Ledger and process")
    board.panel(
        "stat",
        "Ledger can be written",
        "0: grants are refused, removals go on without a record.",
        [("min(latchkey_ledger_writable)", "")],
        width=4,
        height=6,
        fieldConfig=field("short", steps((None, "red"), (1, "green"))),
        options=value(),
    )
    board.panel(
        "stat",
        "Version",
        "What runs.",
        [("latchkey_build_info", "{{version}}")],
        width=4,
        height=6,
        fieldConfig=field("short"),
        options={**value(), "textMode": "name", "colorMode": "none"},
    )
    lines(
        board,
        "Due, not begun",
        "How long the oldest due member has been waiting for its turn.",
        [(f"latchkey_oldest_due_seconds{{{HERE}}}", "{{integration}}")],
        "s",
        height=6,
    )
    lines(
        board,
        "Sweeps",
        "Runs by outcome; what fails is named.",
        [
            (f'sum(increase(latchkey_sweeps_total{{outcome="done"}}[{RATE}]))', "done"),
            (f'sum by (sweep, outcome) (increase(latchkey_sweeps_total{{outcome!="done"}}[{RATE}]))', "{{sweep}} {{outcome}}"),
        ],
        "short",
        height=6,
    )
    lines(
        board,
        "gRPC calls",
        "By status.",
        [(f"sum by (code) (rate(latchkey_grpc_requests_total[{RATE}]))", "{{code}}")],
        "reqps",
        stacked=True,
        width=12,
    )
    lines(
        board,
        "gRPC connections",
        "Open, and closed for a reason of ours.",
        [
            ("sum(latchkey_grpc_connections)", "open"),
            (f"sum by (why) (increase(latchkey_grpc_connections_shed_total[{RATE}]))", "shed: {{why}}"),
        ],
        "short",
        width=12,
    )

    return {
        "uid": "latchkey",
        "title": "Latchkey",
        "description": "Whether access ends when it should, and what keeps it from that.",
        "tags": ["latchkey"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                    "refresh": 1,
                },
                {
                    "name": "integration",
                    "label": "Integration",
                    "type": "query",
                    "datasource": DATASOURCE,
                    "definition": "label_values(latchkey_key_loaded, integration)",
                    "query": {"qryType": 1, "query": "label_values(latchkey_key_loaded, integration)", "refId": "A"},
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
                    "refresh": 2,
                    "sort": 1,
                    "hide": 0,
                },
                {
                    "name": "window",
                    "label": "Window of the objective, in seconds",
                    "type": "query",
                    "datasource": DATASOURCE,
                    "definition": "query_result(max(latchkey_objective_window_seconds))",
                    "query": {
                        "qryType": 3,
                        "query": "query_result(max(latchkey_objective_window_seconds))",
                        "refId": "A",
                    },
                    "regex": "/ ([0-9]+) /",
                    "includeAll": False,
                    "multi": False,
                    "current": {"selected": True, "text": "2592000", "value": "2592000"},
                    "refresh": 2,
                    "hide": 2,
                },
            ]
        },
        "panels": board.panels,
    }


if __name__ == "__main__":
    json.dump(build(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
