"""Section M: the client in front of a server that fails. Its parts are proven in tests/unit/client."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
from tests.figures import Measured

from rerankd.client import Client, ClientError, errors


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], httpx.Response], int], tuple[int, set[type]]]:
    """How many requests some calls of one client really send, and the errors that its caller sees."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def count(answer: Callable[[], httpx.Response], calls: int) -> tuple[int, set[type]]:
        sent, seen = 0, set()

        def respond(request: httpx.Request) -> httpx.Response:
            nonlocal sent
            sent += 1
            return answer()

        with Client("http://server.test", transport=httpx.MockTransport(respond)) as client:
            for _ in range(calls):
                try:
                    client.rank("q", ["a"])
                except ClientError as error:
                    seen.add(type(error))
        return sent, seen

    return count


def refused() -> httpx.Response:
    raise httpx.ReadError("reset by peer")


@pytest.mark.parametrize("status", [429, 503, 408])
def test_what_may_heal_is_tried_again(attempts: Callable[..., tuple[int, set[type]]], status: int) -> None:
    assert attempts(lambda: httpx.Response(status), 1)[0] == 3


def test_a_reset_connection_is_tried_again(attempts: Callable[..., tuple[int, set[type]]]) -> None:
    assert attempts(refused, 1) == (3, {errors.ConnectionFailed})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500, 502, 504])
def test_what_cannot_heal_is_not_tried_again(attempts: Callable[..., tuple[int, set[type]]], status: int) -> None:
    assert attempts(lambda: httpx.Response(status), 1)[0] == 1


@pytest.mark.promise("M-01")
def test_only_what_may_heal_is_tried_again(
    attempts: Callable[..., tuple[int, set[type]]], measured: Measured
) -> None:
    again = [status for status in range(400, 600) if attempts(lambda s=status: httpx.Response(s), 1)[0] > 1]
    measured(
        "M-01", "every status 400-599, and a reset", "408, 429, 503 and the reset, <= 2 times", f"{again}, reset"
    )
    assert again == [408, 429, 503]


@pytest.mark.promise("M-02")
def test_a_server_that_is_down_gets_at_most_a_tenth_more(
    attempts: Callable[..., tuple[int, set[type]]], measured: Measured
) -> None:
    sent, seen = attempts(lambda: httpx.Response(503), 1000)
    measured("M-02", "1,000 calls, all answered 503", "extra load <= 10 %", f"{(sent - 1000) / 10:.1f} %")
    assert sent <= 1100
    assert seen == {errors.NotReady}


@pytest.mark.promise("M-03")
@pytest.mark.parametrize("phase", ["Connect", "Write", "Read", "Pool"])
def test_every_phase_has_its_own_error(
    attempts: Callable[..., tuple[int, set[type]]], measured: Measured, phase: str
) -> None:
    def late() -> httpx.Response:
        raise getattr(httpx, f"{phase}Timeout")("late")

    seen = attempts(late, 1)[1]
    measured("M-03", f"{phase.lower()} phase too slow", "typed error", ", ".join(kind.__name__ for kind in seen))
    assert seen == {getattr(errors, f"{phase}Timeout")}
