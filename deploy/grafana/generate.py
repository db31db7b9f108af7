"""Writes `dashboard.json`: what an operator looks at, top to bottom in the order in which one asks.

    python deploy/grafana/generate.py            # write it
    python deploy/grafana/generate.py --check    # fail where it differs from what is committed

Every panel is a row of `PANELS`. A test holds their queries to the metrics that the server declares and to the
recording rules of `deploy/prometheus/rules.yml`, and another asks a real Prometheus for their data.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboard.json"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: PromQL by legend, and the unit in Grafana's own words."""

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


PANELS = (
    Row(
        "Are callers served?",
        (
            Panel("Requests", "reqps", {"{{endpoint}}": "rerankd:requests:rate5m"}),
            Panel(
                "Failed and refused",
                "percentunit",
                {
                    "failed (5xx)": "rerankd:errors:ratio5m",
                    "{{code}}": "sum by (code) (rate(reranker_rejections_total[5m]))"
                    " / ignoring(code) group_left sum(rate(reranker_requests_total[5m]))",
                },
                "Shares of all requests.",
            ),
            Panel(
                "Time to answer",
                "s",
                {
                    "p50": "rerankd:request_duration_seconds:p50_5m",
                    "p99": "rerankd:request_duration_seconds:p99_5m",
                },
            ),
        ),
    ),
    Row(
        "Is there room?",
        (
            Panel("Tokens that wait", "short", {"{{model}} {{instance}}": "reranker_queue_tokens"}),
            Panel("Wait for the first batch, p99", "s", {"{{model}}": "rerankd:queue_wait_seconds:p99_5m"}),
            Panel(
                "Engine at work",
                "percentunit",
                {"{{model}} {{instance}}": "rerankd:engine:utilisation5m"},
                "Share of the time that a forward pass runs. Near 1 the queue grows: add replicas.",
            ),
        ),
    ),
    Row(
        "How fast is the engine?",
        (
            Panel("Tokens computed", "short", {"{{model}}": "rerankd:tokens:rate5m"}, "A second."),
            Panel("Pairs scored", "short", {"{{model}}": "rerankd:pairs:rate5m"}, "A second."),
            Panel(
                "Pairs of a batch, mean",
                "short",
                {
                    "{{model}}": "sum by (model) (rate(reranker_batch_pairs_sum[5m]))"
                    " / sum by (model) (rate(reranker_batch_pairs_count[5m]))"
                },
            ),
        ),
    ),
    Row(
        "Is anything wrong?",
        (
            Panel(
                "Failed passes and pairs",
                "short",
                {
                    "passes, {{kind}}": "sum by (kind) (increase(reranker_engine_failures_total[5m]))",
                    "pairs, {{code}}": "sum by (code) (increase(reranker_failed_pairs_total[5m]))",
                    "dropped, {{reason}}": "sum by (reason) (increase(reranker_dropped_pairs_total[5m]))",
                },
                "In five minutes.",
            ),
            Panel(
                "Score cache",
                "percentunit",
                {"hits": "rerankd:cache_hits:ratio5m"},
                "Share of pairs that were answered without the engine.",
            ),
            Panel("Truncated documents", "percentunit", {"truncated": "rerankd:truncated_pairs:ratio5m"}),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model of the dashboard."""
    panels: list[dict[str, Any]] = []
    for number, row in enumerate(PANELS):
        top = number * (_HEIGHT + 1)
        panels.append(
            {"type": "row", "id": len(panels) + 1, "title": row.title, "gridPos": _place(0, top, 24, 1), "panels": []}
        )
        for column, panel in enumerate(row.panels):
            place = _place(column * _WIDTH, top + 1, _WIDTH, _HEIGHT)
            panels.append({"id": len(panels) + 1, "gridPos": place, **_graph(panel)})
    return {
        "uid": "rerankd",
        "title": "rerankd",
        "tags": ["rerankd"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "panels": panels,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _graph(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = json.dumps(dashboard(), indent=2) + "\n"
    if not parser.parse_args().check:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"{FILE.name} is not what generate.py writes")


if __name__ == "__main__":
    main()
