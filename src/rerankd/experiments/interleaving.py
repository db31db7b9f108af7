"""One ranking of two by team draft, and whose documents were liked.

Sources: F. Radlinski, M. Kurup, T. Joachims: How Does Clickthrough Data Reflect Retrieval Quality? CIKM 2008. That
clicks on what both rankings show alike say nothing: F. Radlinski, N. Craswell: Comparing the Sensitivity of
Information Retrieval Metrics, SIGIR 2010.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TypeVar

T = TypeVar("T")


def team_draft(first: Sequence[int], second: Sequence[int], coin: random.Random) -> list[tuple[int, int | None]]:
    """Documents of two rankings, best first, each with its team: 0 took it from ``first``, 1 from ``second``.

    In each round a coin says which team picks first, and then each takes the best document of its own ranking that
    is not taken. A document that would stand here whatever the coin says has no team: whose it is would be noise. As
    a round's coin changes nothing but the teams of what has one, clicks that do not depend on the documents favour
    none. Linear in the number of documents.
    """
    taken: set[int] = set()
    rankings = (_Rest(first, taken), _Rest(second, taken))
    drafted: list[tuple[int, int | None]] = []

    def pick(team: int, is_same: bool) -> None:
        document = rankings[team].best()
        if document is not None:
            taken.add(document)
            drafted.append((document, None if is_same else team))

    while rankings[0].best() is not None or rankings[1].best() is not None:
        begins = coin.getrandbits(1)
        is_same = rankings[0].best() == rankings[1].best()
        pick(begins, is_same)
        pick(1 - begins, is_same and rankings[0].best() == rankings[1].best())
    return drafted


class _Rest:
    """What is left of a ranking."""

    def __init__(self, ranking: Sequence[int], taken: Collection[int]) -> None:
        self._ranking = ranking
        self._taken = taken
        self._place = 0

    def best(self) -> int | None:
        while self._place < len(self._ranking) and self._ranking[self._place] in self._taken:
            self._place += 1
        return self._ranking[self._place] if self._place < len(self._ranking) else None


def winner(teams: Sequence[T], liked: Collection[int], ranked: Sequence[int], first: T, second: T) -> int:
    """1 where ``first`` has more liked documents than ``second``, -1 for fewer, 0 for as many.

    Args:
        teams, ranked: team and index of each document of the answer, in its order.
        liked: indices of documents that were clicked or used.
    """
    of_liked = [team for team, index in zip(teams, ranked, strict=True) if index in liked]
    margin = of_liked.count(first) - of_liked.count(second)
    return (margin > 0) - (margin < 0)
