from __future__ import annotations

import time

import httpx
import pytest
from tests.standin import StandInService

from rerankd.errors import InvalidRequest
from rerankd.http.request_state import deadline_from

BODY = {"query": "q", "documents": ["d"]}


def seconds_left(deadline: float) -> float:
    return deadline - time.monotonic()


def test_the_default_holds_where_nothing_was_asked_for() -> None:
    assert seconds_left(deadline_from(None, 2.0, 9.0)) == pytest.approx(2, abs=0.1)


def test_a_client_may_ask_for_its_own_deadline_up_to_the_limit() -> None:
    assert seconds_left(deadline_from(b"500", 2.0, 9.0)) == pytest.approx(0.5, abs=0.1)
    assert seconds_left(deadline_from(b"999999999", 2.0, 9.0)) == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("given", [b"0", b"-1", b"1.5", b"soon", b"", b"1e3", b"9" * 40, "１".encode()])
def test_a_header_that_is_no_whole_number_is_refused_without_an_echo(given: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        deadline_from(given, 2.0, 9.0)
    assert caught.value.param == "X-Request-Timeout-Ms"


async def test_the_deadline_reaches_the_service(client: httpx.AsyncClient, service: StandInService) -> None:
    await client.post("/rerank", json=BODY, headers={"X-Request-Timeout-Ms": "700"})
    (_, context) = service.calls[0]
    assert seconds_left(context.deadline) == pytest.approx(0.7, abs=0.2)
