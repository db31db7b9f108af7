"""One ranking of two by team draft, and whose documents were liked.

Source: F. Radlinski, M. Kurup, T. Joachims: How Does Clickthrough Data Reflect Retrieval Quality? CIKM 2008.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def team_draft(first: Sequence[int], second: Sequence[int], coin: random.Random) -> list[tuple[int, int]]:
    """Documents of two rankings, best first, each with its team: 0 took it from ``first``, 1 from ``second``.

    In each round a coin says which team picks first, and then each takes the best document of its own ranking that
    is not taken. Linear in the number of documents.
    """
    taken: set[int] = set()
    rankings = (iter(first), iter(second))
    drafted: list[tuple[int, int]] = []
    while True:
        begins = coin.getrandbits(1)
        before = len(drafted)
        for team in (begins, 1 - begins):
            document = _next(rankings[team], taken)
            if document is not None:
                taken.add(document)
                drafted.append((document, team))
        if len(drafted) == before:
            return drafted


def _next(ranking: Iterator[int], taken: Collection[int]) -> int | None:
    return next((document for document in ranking if document not in taken), None)


def winner(teams: Sequence[T], liked: Collection[int], ranked: Sequence[int], first: T) -> int:
    """1 where ``first`` has more liked documents than the other team, -1 for fewer, 0 for as many.

    Args:
        teams, ranked: team and index of each document of the answer, in its order.
        liked: indices of documents that were clicked or used.
    """
    margin = sum(1 if team == first else -1 for team, index in zip(teams, ranked, strict=True) if index in liked)
    return (margin > 0) - (margin < 0)
