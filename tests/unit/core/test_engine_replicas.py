"""Requests in parts for several engines: every pair once, in order, and no more parts than forward passes."""

from __future__ import annotations

import numpy as np
import pytest

from rerankd.core.engine_replicas import parts_of
from rerankd.core.request import Output, ScoreRequest, computed_tokens
from rerankd.types import PairPrompt

PREFIX = np.arange(10, dtype=np.int32)


def request_of(*tails: int) -> ScoreRequest:
    pairs = tuple(PairPrompt(PREFIX, np.full(size, index, dtype=np.int32)) for index, size in enumerate(tails))
    return ScoreRequest(pairs, tuple(bytes([index]) for index in range(len(pairs))), 5.0, "tenant", 3)


@pytest.mark.parametrize("most", [1, 2, 3, 7])
@pytest.mark.parametrize("tails", [(5,), (5,) * 40, (400, 1, 1, 1), (1, 1, 1, 400), (1, 90, 3, 80, 2)])
def test_every_pair_is_in_one_part(tails: tuple[int, ...], most: int) -> None:
    request = request_of(*tails)
    parts = parts_of(request, 50, most)
    assert sum((part.pairs for part in parts), ()) == request.pairs
    assert sum((part.keys or () for part in parts), ()) == request.keys
    assert len(parts) <= min(most, max(1, -(-computed_tokens(request.pairs) // 50)))
    assert all(part.pairs for part in parts)
    assert {(part.deadline, part.tenant, part.priority) for part in parts} == {(5.0, "tenant", 3)}


def test_what_fits_one_pass_is_not_cut() -> None:
    assert len(parts_of(request_of(10, 10), 50, 8)) == 1


def test_equal_pairs_are_cut_evenly() -> None:
    assert [len(part.pairs) for part in parts_of(request_of(*[5] * 40), 50, 4)] == [10, 10, 10, 10]


def test_a_parts_outcomes_are_the_wholes() -> None:
    request = request_of(*[20] * 6)
    second = parts_of(request, 50, 2)[1]
    whole = second.outcomes_of_whole(Output(second, {0: 1.0, 2: 3.0}, 7.0))
    assert (whole.request, whole.outcomes, whole.started) == (request, {3: 1.0, 5: 3.0}, 7.0)
