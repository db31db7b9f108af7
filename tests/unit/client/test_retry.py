from __future__ import annotations

import time

import httpx
import pytest

from rerankd.client import Client, errors
from rerankd.client.retry import Attempts, RetryBudget, check_retries


def overloaded() -> errors.StatusError:
    return errors.Overloaded("full", status=429)


def test_a_server_that_is_down_gets_at_most_a_tenth_more_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    attempts = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        return httpx.Response(503, json={"code": "not_ready", "message": "down"})

    with Client("http://server.test", transport=httpx.MockTransport(answer)) as client:
        for _ in range(500):
            with pytest.raises(errors.NotReady):
                client.rank("q", ["a"])
    assert attempts <= 550
    assert attempts > 540


def test_a_new_client_may_try_its_first_call_again() -> None:
    attempts = Attempts(2, RetryBudget(), total=None)
    assert attempts.wait_after(overloaded()) is not None
    assert attempts.wait_after(overloaded()) is not None
    assert attempts.wait_after(overloaded()) is None


def test_a_long_good_time_does_not_pay_for_a_flood() -> None:
    budget = RetryBudget()
    for _ in range(100_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(1000)) == 10


def test_waits_are_spread_over_their_whole_range() -> None:
    waits = [Attempts(2, RetryBudget(), total=None).wait_after(overloaded()) for _ in range(400)]
    assert all(wait is not None and 0 <= wait <= 0.25 for wait in waits)
    assert min(waits) < 0.03 < 0.22 < max(waits)


def test_retry_after_is_waited_for_in_full() -> None:
    error = overloaded()
    error.retry_after = 4.0
    assert 4.0 <= (Attempts(2, RetryBudget(), total=None).wait_after(error) or 0) <= 4.25


def test_a_wait_beyond_the_end_of_the_call_is_not_paid_for() -> None:
    budget = RetryBudget()
    error = overloaded()
    error.retry_after = 4.0
    assert Attempts(2, budget, total=3.0).wait_after(error) is None
    assert budget.spend()


@pytest.mark.parametrize("retries", [-1, 3])
def test_more_than_two_retries_are_refused(retries: int) -> None:
    with pytest.raises(ValueError, match="0 to 2"):
        check_retries(retries)


def test_without_retries_every_error_is_raised_at_once() -> None:
    assert Attempts(0, RetryBudget(), total=None).wait_after(overloaded()) is None
