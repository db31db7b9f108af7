"""The report's pictures, as SVG text that stands in the page itself."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

from rerankd.evaluate.errors import extra
from rerankd.evaluate.measures import MAIN
from rerankd.printable import printable

_COLOURS = {"candidates": "#9aa5b1", "reranked": "#2f6fb5", "fused": "#d98218"}
_LOSS = "#b5342f"


def levels(system: Mapping[str, Any]) -> str:
    """The main measure of every set: candidates, reranked and fused side by side."""
    sets = system["sets"]
    figure, axes = _figure(8.0, 0.6 + 0.55 * len(sets))
    height = 0.26
    for offset, (ranking, colour) in enumerate(_COLOURS.items()):
        places = [row + (offset - 1) * height for row in range(len(sets))]
        values = [found[ranking][MAIN] for found in sets.values()]
        axes.barh(places, values, height=height, color=colour, label=ranking)
    axes.set_yticks(range(len(sets)), [printable(name) for name in sets], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(MAIN)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return _svg(figure)


def gains(system: Mapping[str, Any]) -> str:
    """The differences from the candidates with their 95 % intervals."""
    rows = {**system["sets"], **{f"mean, {group.replace('_', ' ')}": row for group, row in system["mean"].items()}}
    figure, axes = _figure(8.0, 0.6 + 0.42 * len(rows))
    for offset, ranking in ((-0.12, "reranked"), (0.12, "fused")):
        found = [row["difference"][ranking][MAIN] for row in rows.values()]
        means = [one["mean"] for one in found]
        reach = [[one["mean"] - one["low"] for one in found], [one["high"] - one["mean"] for one in found]]
        places = [row + offset for row in range(len(rows))]
        axes.errorbar(means, places, xerr=reach, fmt="o", color=_COLOURS[ranking], label=ranking, capsize=3)
    axes.axvline(0, color="#444", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [printable(name) for name in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(f"difference in {MAIN}, 95 % interval")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return _svg(figure)


def queries(name: str, found: Mapping[str, Any]) -> str:
    """Each query's gain or loss, from the best to the worst."""
    change = sorted((row["reranked"] - row["candidates"] for row in found["by_query"].values()), reverse=True)
    figure, axes = _figure(8.0, 1.6)
    edges = [place - 0.5 for place in range(len(change) + 1)]
    # One area each, not one bar a query: a page with thousands of bars is slow to open.
    axes.stairs([max(value, 0.0) for value in change], edges, fill=True, color=_COLOURS["reranked"])
    axes.stairs([min(value, 0.0) for value in change], edges, fill=True, color=_LOSS)
    axes.axhline(0, color="#444", linewidth=0.8)
    axes.set_xlim(-0.5, max(len(change) - 0.5, 0.5))
    axes.set_ylabel(f"Δ {MAIN}")
    axes.set_title(f"{printable(name)}: queries from the most gained to the most lost", fontsize=9, parse_math=False)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Not pyplot: it would keep global state and look for a display.
    figure = extra("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    text = io.StringIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the name stands in the tables too.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
