"""A text within every limit of characters that becomes eighteen times longer when it is normalised."""

from __future__ import annotations

import time

import pytest
from tests.figures import Measured
from tests.served import served

LIGATURE = "\ufdfa"


@pytest.mark.promise("G-10")
async def test_a_text_that_explodes_when_it_is_normalised_is_refused(measured: Measured) -> None:
    async with served() as server:
        started = time.perf_counter()
        refused = await server.rerank("q", [LIGATURE * 100_000] * 13)
        beside = (await server.rerank("q", [LIGATURE * 100_000, "fine"])).json()
        seconds = time.perf_counter() - started
        accepted = await server.rerank(LIGATURE, [f"{LIGATURE} and words", "㎢"])
        pairs = server.engine.pairs
    measured("G-10", "4 MB that NFKC makes 23 million characters", "400", f"{refused.status_code} in {seconds:.2f} s")
    assert (refused.status_code, accepted.status_code, pairs) == (400, 200, 3)
    assert [score is None for score in beside["scores"]] == [True, False]
    assert LIGATURE not in refused.text
    assert "grows more than 3-fold" in refused.text
