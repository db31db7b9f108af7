"""The reliability of probabilities as a plot: what was said against what came true, before and after."""

from __future__ import annotations

from collections.abc import Sequence

from rerankd.evaluate.calibration import CalibrationFit, Reliability

_SIZE, _LEFT, _TOP, _WIDTH = 340, 52, 28, 440
_BEFORE, _AFTER, _INK, _GRID = "#b3541e", "#2457a6", "#1f2933", "#d9dee5"


def reliability_plot(found: CalibrationFit) -> str:
    """SVG: a point a bin, larger where it has more pairs, and the diagonal on which all would lie."""
    parts = [f'<rect width="100%" height="100%" fill="white"/>{_grid()}']
    parts += [_curve(found.before, _BEFORE), _curve(found.after, _AFTER)]
    words = (
        ("before", found.before, _BEFORE),
        (f"after ({found.calibration.method})", found.after, _AFTER),
    )
    for row, (name, one, colour) in enumerate(words):
        parts.append(
            f'<text x="{_LEFT + 10}" y="{_TOP + 18 + 16 * row}" fill="{colour}">{name}: ECE {one.ece:.3f}</text>'
        )
    height = _TOP + _SIZE + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img"><title>Reliability</title>{"".join(parts)}</svg>\n'
    )


def _grid() -> str:
    parts = []
    for step in range(6):
        value = step / 5
        parts.append(
            f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(value)}" y2="{_y(value)}" stroke="{_GRID}"/>'
            f'<text x="{_LEFT - 6}" y="{_y(value) + 4}" text-anchor="end" fill="{_INK}">{value:g}</text>'
            f'<text x="{_x(value)}" y="{_TOP + _SIZE + 16}" text-anchor="middle" fill="{_INK}">{value:g}</text>'
        )
    parts.append(
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="{_INK}" stroke-dasharray="4 4"/>'
    )
    parts.append(
        f'<text x="{_x(0.5)}" y="{_TOP + _SIZE + 36}" text-anchor="middle" fill="{_INK}">probability said</text>'
        f'<text x="{_LEFT}" y="16" fill="{_INK}">share that was relevant</text>'
    )
    return "".join(parts)


def _curve(one: Reliability, colour: str) -> str:
    most = max(pairs for _, _, pairs in one.bins)
    points = " ".join(f"{_x(said):.1f},{_y(true):.1f}" for said, true, _ in one.bins)
    dots = "".join(
        f'<circle cx="{_x(said):.1f}" cy="{_y(true):.1f}" r="{2 + 5 * (pairs / most) ** 0.5:.1f}" fill="{colour}" '
        f'fill-opacity="0.75"><title>{pairs} pairs</title></circle>'
        for said, true, pairs in one.bins
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>{dots}'


def _x(value: float) -> float:
    return _LEFT + value * _SIZE


def _y(value: float) -> float:
    return _TOP + (1 - value) * _SIZE


def bin_rows(found: CalibrationFit) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The methods that were tried, one row each."""
    head = ("ECE", "log loss", "on held-back queries")
    rows = [(f"{found.before.ece:.4f}", f"{found.before.log_loss:.4f}", "the model's own scores")]
    rows += [(f"{one.ece:.4f}", f"{one.log_loss:.4f}", name) for name, one in found.held_back.items()]
    return head, rows
