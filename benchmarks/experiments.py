"""Simulated users: do the tests of experiments find a true difference, and none where there is none?

    python benchmarks/experiments.py                  # tables on standard output
    python benchmarks/experiments.py --out results.json

Users ask five times each, and judge rankings of ten documents with known grades. Of some queries nearly all documents
are relevant, of others none, and some users click much more than others. They click by one of two models of the
literature:

* ``position``: a place is looked at with probability 1 / place, and a document that is looked at is clicked by its
  grade (the position-based model, M. Richardson et al., 2007);
* ``cascade``: from the top, each document is clicked by its grade, and a click may end the search (the dependent
  click model, F. Guo et al., 2009).

The control's ranking is noisy; the candidate's has less noise. Two versions of one ranker err alike in part, and
``shared`` is the share of the noise's variance that both have: 0, as if they had nothing to do with each other, and
0.5. A split does not see it, since nobody sees both; interleaving does. A split is judged by the measure of the
report that is the most sensitive here, the reciprocal rank of the first click. Both go through the code that serves:
:mod:`rerankd.experiments` drafts the teams, tests and decides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.experiments.interleaving import team_draft, winner
from rerankd.experiments.statistics import Effect, difference_of_arms, mean_of_units

DOCUMENTS = 10
POWER = 0.8
CHANCES = (0.02, 0.15, 0.5)
"""That a document that is looked at is clicked, by grade."""
RELEVANT = (0.3, 0.6)
"""Of the documents of a query, the share that is relevant: a beta distribution's parameters."""
GREAT = 0.4
"""Of relevant documents, those with the highest grade."""
KEENNESS = (0.5, 0.5)
"""How much of these chances a user has: a beta distribution's parameters."""
GO_ON = 0.3
"""After a click, in the cascade model."""
ASKS = 5
"""Queries of one user."""
DAYS = 20
SHARED = (0.0, 0.5)

Values: TypeAlias = NDArray[np.float64]
Test: TypeAlias = Callable[[int], Effect]
"""The effect after so many users."""


@dataclass(frozen=True, slots=True)
class World:
    """How users click, and how well the two arms rank: the deviation of the noise on each grade."""

    clicks: str
    control: float
    candidate: float
    shared: float
    """Of the noise's variance, what is the same in both arms."""


def grades_of(queries: int, source: np.random.Generator) -> NDArray[np.int64]:
    """Grades of the documents of each query, shape (queries, documents)."""
    share = source.beta(*RELEVANT, (queries, 1))
    relevant = source.random((queries, DOCUMENTS)) < share
    great = source.random((queries, DOCUMENTS)) < GREAT
    grades: NDArray[np.int64] = relevant.astype(np.int64) + (relevant & great)
    return grades


def orders(world: World, grades: NDArray[np.int64], source: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rankings of control and candidate, best first, shapes (queries, documents)."""
    common = math.sqrt(world.shared) * source.normal(0, 1, grades.shape)
    own = math.sqrt(1 - world.shared)
    return [
        np.argsort(-(grades + noise * (common + own * source.normal(0, 1, grades.shape))), axis=1)
        for noise in (world.control, world.candidate)
    ]


def clicks(world: World, grades: NDArray[np.int64], source: np.random.Generator) -> NDArray[np.bool_]:
    """Which places are clicked, shape (queries, documents), for documents of these grades in these places.

    The queries of one user follow each other.
    """
    keen = np.repeat(source.beta(*KEENNESS, (len(grades) // ASKS, 1)), ASKS, axis=0)
    liked: NDArray[np.bool_] = source.random(grades.shape) < np.array(CHANCES)[grades] * keen
    if world.clicks == "position":
        seen: NDArray[np.bool_] = source.random(grades.shape) < 1 / np.arange(1, DOCUMENTS + 1)
        return liked & seen
    ends = liked & (source.random(grades.shape) >= GO_ON)
    # A place is reached where no click before it ended the search.
    reached: NDArray[np.bool_] = np.cumsum(ends, axis=1) - ends == 0
    return liked & reached


def split(world: World, users: int, source: np.random.Generator) -> tuple[Values, Values]:
    """The mean reciprocal rank of the first clicks of each user, half of the users in each arm."""
    values = []
    for arm in range(2):
        grades = grades_of(users // 2 * ASKS, source)
        shown = np.take_along_axis(grades, orders(world, grades, source)[arm], axis=1)
        clicked = clicks(world, shown, source)
        ranks = np.where(clicked.any(axis=1), 1 / (clicked.argmax(axis=1) + 1), 0.0)
        values.append(ranks.reshape(-1, ASKS).mean(axis=1))
    return values[0], values[1]


def interleave(world: World, users: int, source: np.random.Generator) -> Values:
    """Who won with each user: the mean over his queries of 1 for the candidate and -1 for the control."""
    grades = grades_of(users * ASKS, source)
    first, second = orders(world, grades, source)
    coin = random.Random(int(source.integers(2**62)))
    drafts = [team_draft(one, two, coin) for one, two in zip(first.tolist(), second.tolist(), strict=True)]
    shown = np.array([[document for document, _ in draft] for draft in drafts])
    clicked = clicks(world, np.take_along_axis(grades, shown, axis=1), source)
    won = [
        winner([team for _, team in draft], set(shown[query][clicked[query]].tolist()), shown[query].tolist(), 1, 0)
        for query, draft in enumerate(drafts)
    ]
    values: Values = np.array(won, dtype=np.float64).reshape(-1, ASKS).mean(axis=1)
    return values


def split_test(world: World, users: int, source: np.random.Generator) -> Test:
    control, candidate = split(world, users, source)
    return lambda seen: difference_of_arms(control[: seen // 2], candidate[: seen // 2])


def interleaved_test(world: World, users: int, source: np.random.Generator) -> Test:
    values = interleave(world, users, source)
    return lambda seen: mean_of_units(values[:seen])


METHODS: dict[str, Callable[[World, int, np.random.Generator], Test]] = {
    "split": split_test,
    "interleave": interleaved_test,
}


def declared(test: Test, looks: Sequence[int]) -> int | None:
    """The number of users at the first look that settles it; None where no look does."""
    return next((users for users in looks if test(users).is_settled), None)


def false_alarms(method: str, clicks_by: str, runs: int, users: int) -> int:
    """Of experiments between two equal arms, looked at daily, those that declare a difference."""
    world = World(clicks_by, 0.8, 0.8, SHARED[-1])
    looks = [users * day // DAYS for day in range(1, DAYS + 1)]
    source = np.random.default_rng(1)
    return sum(declared(METHODS[method](world, users, source), looks) is not None for _ in range(runs))


def users_needed(method: str, world: World, runs: int, most: int) -> tuple[float, float]:
    """Users after which a share of ``POWER`` of the experiments is settled, and the share that found it at last.

    Looked at every 5 % more users.
    """
    looks = [math.ceil(100 * 1.05**step) * 2 for step in range(200) if 100 * 1.05**step * 2 <= most]
    source = np.random.default_rng(2)
    found = [declared(METHODS[method](world, most, source), looks) for _ in range(runs)]
    when = sorted(math.inf if users is None else users for users in found)
    return when[math.ceil(POWER * runs) - 1], sum(users is not None for users in found) / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--null-runs", type=int, default=1_000, help="experiments between equal arms")
    parser.add_argument("--runs", type=int, default=60, help="experiments with a true difference")
    parser.add_argument("--null-users", type=int, default=800)
    parser.add_argument("--most", type=int, default=40_000, help="users of a split at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for clicks_by, shared in itertools.product(("position", "cascade"), SHARED):
        world = World(clicks_by, 0.9, 0.6, shared)
        row: dict[str, Any] = {"clicks": clicks_by, "shared": shared}
        for method in METHODS:
            most = options.most if method == "split" else options.most // 10
            needed, power = users_needed(method, world, options.runs, most)
            row[method] = {"users": needed, "power": power}
            print(f"{clicks_by:9} {shared} shared, {method:10} {needed:7,.0f} users for a power of {POWER}, "
                  f"{power:.0%} found in the end", flush=True)  # fmt: skip
        row["ratio"] = row["split"]["users"] / row["interleave"]["users"]
        print(
            f"{clicks_by:9} {shared} shared, a split needs {row['ratio']:.1f} times the users",
            flush=True,
        )
        results.append(row)
    for clicks_by, method in itertools.product(("position", "cascade"), METHODS):
        alarms = false_alarms(method, clicks_by, options.null_runs, options.null_users)
        results.append({"clicks": clicks_by, "method": method, "false_alarms": alarms, "of": options.null_runs})
        print(f"{clicks_by:9} {method:10} {alarms:3} of {options.null_runs} false alarms", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
