"""What the stored answers of an experiment say, and what they said at the end of each day before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.experiments.interleaving import winner
from rerankd.experiments.statistics import Effect, difference_of_arms, mean_of_units, sample_ratio_p
from rerankd.experiments.store import Agreement, Answer

Measure: TypeAlias = Literal["clicked", "used", "reciprocal_rank"]
"""Of an answer: 1 where a document was clicked, or used, else 0; or 1 / the place of the first that was clicked."""

MEASURES: tuple[Measure, ...] = ("clicked", "used", "reciprocal_rank")
INTERLEAVED = "+"
"""Stands between the names of two arms whose rankings are one."""
_DAY = 86_400.0

Liked: TypeAlias = Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm so far."""

    name: str
    units: int
    answers: int
    mean: float
    """Of the measure, over units."""
    median_seconds: float
    mean_score: float
    """Of the first document."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the control, day by day; the last one counts."""

    candidate: str
    days: Sequence[tuple[float, Effect]]
    """Time of the end of each day, in seconds since 1970, and the effect by then."""

    @property
    def effect(self) -> Effect:
        return self.days[-1][1]


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """How far a shadow arm agrees with a live one."""

    arm: str
    live: str
    answers: int
    mean_tau: float
    same_first: float
    """Share of answers whose first document is the same."""


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """An experiment so far.

    Attributes:
        sample_ratio_p: None where nothing is split, or nobody said by which weights.
        pinned: answers of keys that an operator gave an arm; left out.
        crossed: units that were seen in two arms, as after a change of weights; left out.
    """

    name: str
    measure: Measure
    control: str
    arms: Sequence[ArmFigures]
    comparisons: Sequence[Comparison]
    sample_ratio_p: float | None
    shadows: Sequence[ShadowFigures] = ()
    pinned: int = 0
    crossed: int = 0
    is_interleaved: bool = False


@dataclass(slots=True)
class _Arm:
    """Sums by unit, in the order of their first answers."""

    totals: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, answer: Answer, value: float) -> None:
        row = self.totals.setdefault(answer.unit, [0.0, 0.0])
        row[0] += value
        row[1] += 1
        self.seconds.append(answer.seconds)
        if answer.score is not None:
            self.scores.append(answer.score)

    def values(self) -> NDArray[np.float64]:
        """The mean of each unit, float64, shape (units,): a unit counts once, however often it asks."""
        rows = np.array(list(self.totals.values()), dtype=np.float64).reshape(-1, 2)
        means: NDArray[np.float64] = rows[:, 0] / np.maximum(rows[:, 1], 1)
        return means

    def figures(self, name: str) -> ArmFigures:
        values = self.values()
        return ArmFigures(
            name,
            len(values),
            len(self.seconds),
            float(values.mean()) if len(values) else float("nan"),
            float(np.median(self.seconds)) if self.seconds else float("nan"),
            float(np.mean(self.scores)) if self.scores else float("nan"),
        )


def analyse(
    name: str,
    answers: Iterable[tuple[Answer, Liked]],
    agreements: Sequence[Agreement],
    weights: Mapping[str, float],
    measure: Measure = "clicked",
) -> ExperimentReport:
    """The report of one experiment.

    Args:
        answers: in the order of time.
        weights: of the arms that answer, the control first; empty where the settings are not at hand, and then the
            arms are those that were seen and the sample ratio is not looked at.
    """
    kept, pinned, crossed = _usable(answers)
    seen = list(dict.fromkeys(answer.arm for answer, _ in kept))
    if any(INTERLEAVED in arm for arm in seen):
        both = next(arm for arm in seen if INTERLEAVED in arm)
        return _interleaved(name, both, kept, _shadows(agreements), pinned, measure)
    order = list(dict.fromkeys([*weights, *sorted(seen)]))
    arms = {arm: _Arm() for arm in order}
    days: dict[str, list[tuple[float, Effect]]] = {arm: [] for arm in order[1:]}

    def close(at: float) -> None:
        control = arms[order[0]].values()
        for arm, rows in days.items():
            rows.append((at, difference_of_arms(control, arms[arm].values())))

    for end, of_day in _by_day(kept):
        for answer, liked in of_day:
            arms[answer.arm].add(answer, value_of(answer, liked, measure))
        close(end)
    if not kept:
        close(time.time())
    ratio = None
    if weights and len(order) > 1:
        ratio = sample_ratio_p([len(arms[arm].totals) for arm in order], [weights.get(arm, 0.0) for arm in order])
    return ExperimentReport(
        name,
        measure,
        order[0] if order else "",
        [arms[arm].figures(arm) for arm in order],
        [Comparison(arm, rows) for arm, rows in days.items()],
        ratio,
        _shadows(agreements),
        pinned,
        crossed,
    )


def value_of(answer: Answer, liked: Liked, measure: Measure) -> float:
    """The measure of one answer; an answer without feedback counts as 0."""
    if measure == "used":
        return float(bool(liked.get("used")))
    clicked = liked.get("clicked", frozenset())
    if measure == "clicked":
        return float(bool(clicked))
    return next((1 / place for place, index in enumerate(answer.ranked, start=1) if index in clicked), 0.0)


def _interleaved(
    name: str,
    both: str,
    kept: Sequence[tuple[Answer, Liked]],
    shadows: Sequence[ShadowFigures],
    pinned: int,
    measure: Measure,
) -> ExperimentReport:
    control, candidate = both.split(INTERLEAVED)
    kind = "used" if measure == "used" else "clicked"
    arm, days = _Arm(), []
    for end, of_day in _by_day(kept):
        for answer, liked in of_day:
            if answer.arm == both and answer.teams is not None:
                ranked = answer.ranked[: len(answer.teams)]
                arm.add(answer, winner(answer.teams, liked.get(kind, frozenset()), ranked, candidate, control))
        days.append((end, mean_of_units(arm.values())))
    return ExperimentReport(
        name,
        measure,
        control,
        [arm.figures(both)],
        [Comparison(candidate, days)],
        None,
        shadows,
        pinned,
        is_interleaved=True,
    )


def _usable(answers: Iterable[tuple[Answer, Liked]]) -> tuple[list[tuple[Answer, Liked]], int, int]:
    """Answers without those of pinned keys, and without those of units that were in two arms; and how many were."""
    every = list(answers)
    unpinned = [row for row in every if not row[0].pinned]
    seen: dict[str, set[str]] = {}
    for answer, _ in unpinned:
        seen.setdefault(answer.unit, set()).add(answer.arm)
    crossed = {unit for unit, arms in seen.items() if len(arms) > 1}
    kept = [row for row in unpinned if row[0].unit not in crossed]
    return kept, len(every) - len(unpinned), len(crossed)


def _by_day(rows: Sequence[tuple[Answer, Liked]]) -> list[tuple[float, list[tuple[Answer, Liked]]]]:
    """The answers of each day (UTC) with the time of its end."""
    days: dict[float, list[tuple[Answer, Liked]]] = {}
    for row in rows:
        days.setdefault((row[0].at // _DAY + 1) * _DAY, []).append(row)
    return list(days.items())


def _shadows(agreements: Sequence[Agreement]) -> list[ShadowFigures]:
    pairs: dict[tuple[str, str], list[Agreement]] = {}
    for row in agreements:
        pairs.setdefault((row.arm, row.live), []).append(row)
    return [
        ShadowFigures(
            arm,
            live,
            len(rows),
            float(np.mean([row.tau for row in rows])),
            float(np.mean([row.same_first for row in rows])),
        )
        for (arm, live), rows in pairs.items()
    ]
