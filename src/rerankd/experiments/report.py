"""A report for a person: what it says in words and rows, and the plot of each comparison as SVG."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rerankd.experiments.analysis import Comparison, ExperimentReport
from rerankd.experiments.statistics import ALPHA, LEAST_UNITS, SAMPLE_RATIO_ALPHA, Effect

Rows = Sequence[Sequence[str]]
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 300, 64, 36, 28, 28
_INK, _BAND, _LINE, _GRID = "#1f2933", "#c9d8f0", "#2457a6", "#d9dee5"


def verdict(report: ExperimentReport, comparison: Comparison) -> str:
    """What follows, in one sentence."""
    effect, named = comparison.effect, f"{comparison.candidate} against {report.control}"
    if report.sample_ratio_p is not None and report.sample_ratio_p < SAMPLE_RATIO_ALPHA:
        return f"{named}: the split is not what the weights say; find out why before anything else is believed"
    if not math.isfinite(effect.low):
        return f"{named}: nothing can be said before {LEAST_UNITS} units of each"
    if not effect.is_settled:
        return f"{named}: no difference is settled so far; go on, or stop where {reach(effect):.4f} is small enough"
    better = "better" if effect.mean > 0 else "worse"
    return f"{named}: {better}, and settled (p = {effect.p:.2g}, which may be looked at every day)"


def reach(effect: Effect) -> float:
    """Half the width of the interval."""
    return (effect.high - effect.low) / 2


def arm_rows(report: ExperimentReport) -> tuple[Sequence[str], Rows]:
    """One row an arm."""
    head = ("units", "answers", report.measure, "median ms", "first score", "arm")
    rows = [
        (
            f"{arm.units:,}",
            f"{arm.answers:,}",
            number(arm.mean),
            number(arm.median_seconds * 1000, 1),
            number(arm.mean_score, 3),
            arm.name,
        )
        for arm in report.arms
    ]
    return head, rows


def comparison_rows(report: ExperimentReport) -> tuple[Sequence[str], Rows]:
    """One row a candidate."""
    head = ("effect", f"{1 - ALPHA:.0%} interval", "p", "units", "against " + (report.control or "nothing"))
    rows = [
        (
            number(one.effect.mean),
            f"{number(one.effect.low)} to {number(one.effect.high)}",
            f"{one.effect.p:.2g}",
            f"{one.effect.units:,}",
            one.candidate,
        )
        for one in report.comparisons
    ]
    return head, rows


def shadow_rows(report: ExperimentReport) -> tuple[Sequence[str], Rows]:
    """One row a shadow arm and the arm that it was compared with."""
    head = ("answers", "Kendall's tau", "same first", "against", "shadow")
    rows = [
        (f"{one.answers:,}", number(one.mean_tau, 3), f"{one.same_first:.1%}", one.live, one.arm)
        for one in report.shadows
    ]
    return head, rows


def number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def notes(report: ExperimentReport) -> list[str]:
    """What else has to be known, one line each."""
    lines = []
    if report.is_interleaved:
        lines.append("interleaved: the effect is the share of units won less the share lost, from -1 to 1")
    if report.sample_ratio_p is not None:
        is_off = report.sample_ratio_p < SAMPLE_RATIO_ALPHA
        lines.append(
            f"sample ratio: {'MISMATCH, ' if is_off else 'as it should be, '}p = {report.sample_ratio_p:.2g}"
        )
    if report.pinned:
        lines.append(f"{report.pinned:,} answers to pinned keys are left out")
    if report.crossed:
        lines.append(f"{report.crossed:,} units were seen in more than one arm and are left out")
    return lines


def as_json(report: ExperimentReport) -> dict[str, Any]:
    """All figures; what is not finite is null."""
    found: dict[str, Any] = _finite(asdict(report))
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def plot(report: ExperimentReport, comparison: Comparison) -> str:
    """The effect with its confidence sequence at the end of each day, as SVG."""
    days = [(at, effect) for at, effect in comparison.days if math.isfinite(effect.low)]
    title = f"{report.name}: {comparison.candidate} − {report.control}, {report.measure}, {1 - ALPHA:.0%} sequence"
    if not days:
        return _svg(title, [f'<text x="{_LEFT}" y="{_HEIGHT / 2}" fill="{_INK}">too few units so far</text>'])
    low, high = min(0.0, *(effect.low for _, effect in days)), max(0.0, *(effect.high for _, effect in days))
    margin = (high - low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    span = (days[-1][0] - days[0][0]) or 1.0

    def x(at: float) -> float:
        share = (at - days[0][0]) / span if len(days) > 1 else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    upper = [(x(at), y(effect.high)) for at, effect in days]
    lower = [(x(at), y(effect.low)) for at, effect in reversed(days)]
    middle = [(x(at), y(effect.mean)) for at, effect in days]
    marks = []
    for value in _ticks(low, high):
        marks.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                     f'stroke="{_INK if value == 0 else _GRID}"/>')  # fmt: skip
        marks.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{_INK}">{value:g}</text>')
    every = max(1, math.ceil(len(days) / 7))
    for place in range((len(days) - 1) % every, len(days), every):
        # A day's end is the next day's beginning; its own name is wanted.
        name = time.strftime("%d %b", time.gmtime(days[place][0] - 1))
        marks.append(f'<text x="{x(days[place][0]):.1f}" y="{_HEIGHT - 12}" text-anchor="middle" '
                     f'fill="{_INK}">{name}</text>')  # fmt: skip
    bars = [
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y(effect.low):.1f}" y2="{y(effect.high):.1f}" '
        f'stroke="{_BAND}" stroke-width="6"/>'
        for at, effect in (days if len(days) == 1 else [])
    ]
    dots = [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{_LINE}"/>' for px, py in middle]
    return _svg(
        title,
        [
            f'<polygon points="{_points([*upper, *lower])}" fill="{_BAND}"/>',
            *bars,
            *marks,
            f'<polyline points="{_points(middle)}" fill="none" stroke="{_LINE}" stroke-width="2"/>',
            *dots,
        ],
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two others, 0 among them."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(step for factor in (1, 2, 5, 10) if (step := factor * power) >= rough)
    return [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _svg(title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
            f"<title>{html.escape(title)}</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            f'<text x="{_LEFT}" y="18" fill="{_INK}" font-size="13">{html.escape(title)}</text>',
            "</svg>",
            "",
        ]
    )
