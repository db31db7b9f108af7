"""The scaling plots, each with the memory beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_POINTS = 3
"""Fewer are no curve."""

Record = Mapping[str, Any]
Curves = dict[str, list[tuple[float, float, float]]]
"""By engine: x, what was measured, memory in MB."""


def draw(records: Sequence[Record], folder: Path) -> list[str]:
    """Write every plot that these records have the figures for; returns the names of the files."""
    engines = [record for record in records if record.get("kind") == "engine"]
    loads = [load for record in records if record.get("kind") == "serve" for load in record["loads"]]
    documents = _curves(engines, "documents", "tail", lambda seconds, result: 1e3 * seconds / result["documents"])
    lengths = _curves(engines, "tail", "documents", lambda seconds, result: 1e6 * seconds / result["tokens"])
    plots = {
        "documents.svg": (documents, "documents per request", "milliseconds per document"),
        "lengths.svg": (lengths, "tokens per document, prompt included", "milliseconds per 1,000 tokens"),
        "concurrency.svg": (_concurrency(loads), "requests at once", "documents per second"),
    }
    written = []
    for name, (curves, x, y) in plots.items():
        if curves:
            _plot(curves, x, y, folder / name)
            written.append(name)
    return written


def _curves(records: Iterable[Record], varied: str, fixed: str, value: Callable[[float, Record], float]) -> Curves:
    """Of each record whose workloads differ in ``varied`` alone, one curve an engine."""
    curves: Curves = {}
    for record in records:
        results = record["results"]
        points = len({result[varied] for result in results})
        if points < _LEAST_POINTS or len({result[fixed] for result in results}) > 1:
            continue
        for result in results:
            for row in result["rows"]:
                if not row["void"]:
                    x = result[varied] + (result["prefix"] if varied == "tail" else 0)
                    point = (x, value(min(row["seconds"]), result), row["peak_mb_over_idle"])
                    curves.setdefault(row["engine"], []).append(point)
    return curves


def _concurrency(loads: Iterable[Record]) -> Curves:
    curves: Curves = {}
    for load in loads:
        if load["concurrency"] and not load["void"]:
            point = (load["concurrency"], load["pairs_per_second"], load["peak_mb"] or float("nan"))
            curves.setdefault(f"{load['server']}, {load['payload']}", []).append(point)
    return {name: points for name, points in curves.items() if len(points) >= _LEAST_POINTS}


def _plot(curves: Curves, x: str, y: str, file: Path) -> None:
    # The object interface: pyplot would keep every figure and choose a window system.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Fixed names and no date: the same figures give the same file.
    with rc_context({"svg.hashsalt": "rerankd"}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        speed, memory = figure.subplots(1, 2)
        for name, points in curves.items():
            across, measured, megabytes = zip(*sorted(points), strict=True)
            speed.plot(across, measured, marker="o", label=name)
            memory.plot(across, megabytes, marker="o", label=name)
        _label(speed, x, y)
        _label(memory, x, "peak MB over idle" if "at once" not in x else "peak MB")
        speed.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
