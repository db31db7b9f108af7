"""Work grows with the bytes of a request and no faster, whatever the route, the dialect and the field.

Here without a server: decoding, reading and rendering, measured in processor time of this thread, which neighbours
do not change. ``test_growth_served.py`` sends the same bodies to a server, up to the largest that it takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from itertools import groupby

import pytest
from tests.figures import Measured
from tests.growth import Case, cases, exponent, few_cases

from rerankd.errors import ServiceError
from rerankd.http.json_response import json_bytes
from rerankd.types import DocumentScore, RerankRequest, RerankResult
from rerankd.wire.base import ReadLimits
from rerankd.wire.json_guard import decode_json

LIMITS = ReadLimits()
SMALL, LARGE, HUGE = 4 * 1024, 32 * 1024, 1024 * 1024
NOTHING = 0.002
"""Seconds below which the cost of a body is the noise of measuring."""

MOST = 1.4
"""The power of growth that passes: a quadratic reader has 2, and the first use of more memory looks like 1.2."""


def by_field(found: Iterable[Case]) -> dict[str, list[Case]]:
    return {name: list(group) for name, group in groupby(found, key=lambda case: case.where)}


FEW, ALL = by_field(few_cases()), by_field(cases())


def handle(case: Case, body: bytes) -> None:
    """Everything that is done with a body on this side of the service."""
    dialect = case.route.dialects[0]
    try:
        value = decode_json(body, 32).value
        dialect = case.route.choose(value)
        call = dialect.parse(case.route.with_path(value, {}), LIMITS)
        json_bytes(dialect.render(call, [result_for(request) for request in call.requests]).body)
    except ServiceError as error:
        json_bytes(dialect.render_error(error, "id").body)


def result_for(request: RerankRequest) -> RerankResult:
    scores = tuple(DocumentScore(index, 0.5, 0.0) for index in range(len(request.documents)))
    return RerankResult(id="id", model="m", scores=scores, ranked=scores, prompt_tokens=1)


def seconds(case: Case, size: int) -> float:
    body = case.body(size)
    started = time.thread_time()
    handle(case, body)
    return time.thread_time() - started


def power(case: Case, sizes: tuple[int, ...], times: int) -> float:
    """How the work grows; the best of some times, for growth counts every time and a collection once."""
    costs = [min(seconds(case, size) for _ in range(times)) for size in sizes]
    return 0.0 if costs[-1] < NOTHING else exponent(sizes, [max(cost, NOTHING / 8) for cost in costs])


def worst_power(found: list[Case], small: int, large: int) -> float:
    worst = 0.0
    for case in found:
        handle(case, case.body(1024))
        grown = power(case, (small, large), 1)
        if grown > MOST:
            grown = power(case, (small, math.isqrt(small * large), large), 4)
        assert grown < MOST, f"{case.where}, {case.shape}: the work grows with the power {grown:.2f}"
        worst = max(worst, grown)
    return worst


@pytest.mark.promise("A1", "A2", "A3")
@pytest.mark.parametrize("name", FEW)
def test_twice_the_bytes_are_twice_the_work(name: str) -> None:
    worst_power(FEW[name], SMALL, LARGE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.promise("A1", "A2", "A3")
@pytest.mark.parametrize("name", ALL)
def test_up_to_a_megabyte_in_every_dialect(name: str, measured: Measured) -> None:
    worst = worst_power(ALL[name], LARGE, HUGE)
    measured("A1", f"growth of {name}", f"power < {MOST}", f"{worst:.2f}")
