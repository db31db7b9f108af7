"""The report as one HTML page that needs no other file and asks no other host."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from rerankd.evaluate import plots
from rerankd.evaluate.markdown import (
    Report,
    Row,
    against_first_rows,
    comparison,
    cost_rows,
    explanation,
    identity_line,
    main_rows,
    measure_rows,
)

_SHOWN_QUERIES = 5

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d9dee3; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f2f4f7; padding: .7rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
"""


def page(report: Report, texts: Mapping[str, Mapping[str, str]]) -> str:
    """The page; ``texts`` holds the queries of every set, for the lists of the most gained and lost."""
    body = [
        "<h1>Evaluation</h1>",
        f"<pre>{html.escape(report['command'])}</pre>",
        f"<p>{html.escape(explanation(report))}</p>",
    ]
    if len(report["systems"]) > 1:
        body += ["<h2>Comparison</h2>", _table(*comparison(report)), _table(*against_first_rows(report))]
    for system in report["systems"]:
        body += _system(system, texts)
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>rerankd evaluate</title>\n"
        f"<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )


def _system(system: Mapping[str, Any], texts: Mapping[str, Mapping[str, str]]) -> list[str]:
    parts = [
        f"<h2>{html.escape(system['label'])}</h2>",
        f"<p>{_code(identity_line(system))}</p>",
        _table(*main_rows(system)),
        plots.gains(system),
        plots.levels(system),
        _table(*measure_rows(system)),
        _table(*cost_rows(system)),
    ]
    for name, found in system["sets"].items():
        parts += [f"<h3>{html.escape(name)}</h3>", plots.queries(name, found), _extremes(found, texts[name])]
    return parts


def _extremes(found: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The queries that gained and lost the most."""
    change = {query: row["reranked"] - row["candidates"] for query, row in found["by_query"].items()}
    ranked = sorted(change, key=lambda query: -change[query])
    gained = [query for query in ranked[:_SHOWN_QUERIES] if change[query] > 0]
    lost = [query for query in reversed(ranked[-_SHOWN_QUERIES:]) if change[query] < 0]
    rows = [
        [
            texts[query],
            *(f"{found['by_query'][query][ranking]:.3f}" for ranking in ("candidates", "reranked", "fused")),
        ]
        for query in [*gained, *lost]
    ]
    return _table(["gained and lost the most", "candidates", "reranked", "fused"], rows)


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = ["<tr>" + "".join(f"<th>{_cell(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _cell(text: str) -> str:
    """Escaped; the Markdown tables mark the best figure of a row with stars."""
    bold = text.startswith("**") and text.endswith("**")
    return f"<b>{html.escape(text[2:-2])}</b>" if bold else html.escape(text)


def _code(text: str) -> str:
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
