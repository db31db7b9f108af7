from __future__ import annotations

import pytest

from rerankd.errors import Overloaded, TooLarge
from rerankd.limits.quota import Quota


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(limit: int = 1000, share: float = 0.5, clock: Clock | None = None) -> Quota:
    return Quota("tokens", limit, share, "queue_tokens", clock=clock or Clock())


def test_what_is_given_back_may_be_taken_again() -> None:
    quota = make(100)
    quota.take("a", 100)
    with pytest.raises(Overloaded, match="too many tokens") as refused:
        quota.take("a", 1)
    assert (refused.value.retry_after, refused.value.setting) == (1.0, "queue_tokens")
    quota.give_back("a", 40)
    quota.take("a", 40)
    quota.give_back("a", 100)
    assert quota.held == 0


def test_more_than_all_may_have_is_too_large() -> None:
    with pytest.raises(TooLarge, match="101 tokens") as refused:
        make(100).take("a", 101)
    assert refused.value.setting == "queue_tokens"


def test_whose_share_is_full_hears_when_to_come_again() -> None:
    quota = make(100)
    quota.take("b", 1)
    quota.take("a", 50)
    with pytest.raises(Overloaded, match="your share") as refused:
        quota.take("a", 1)
    assert (refused.value.retry_after, refused.value.setting) == (1.0, "max_tenant_share")


@pytest.mark.promise("S13")
def test_a_share_binds_only_while_others_wait() -> None:
    quota = make()
    quota.take("a", 400)
    quota.take("a", 200)
    quota.take("b", 0)
    with pytest.raises(Overloaded) as refused:
        quota.take("a", 200)
    assert refused.value.setting == "max_tenant_share"


@pytest.mark.promise("S14")
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 1.0])
def test_the_limit_holds_however_many_callers_there_are(share: float) -> None:
    quota = make(share=share)
    refused = 0
    for number in range(100):
        for _ in range(20):
            try:
                quota.take(f"tenant {number}", 50)
            except Overloaded:
                refused += 1
            assert quota.held <= 1000
    assert refused > 0


def test_who_is_refused_waits_from_then_on_and_a_flood_leaves_it_room() -> None:
    quota = make()
    quota.take("flood", 1000)
    with pytest.raises(Overloaded):
        quota.take("other", 100)
    quota.give_back("flood", 100)
    with pytest.raises(Overloaded, match="share"):
        quota.take("flood", 100)
    quota.take("other", 100)


def test_who_has_not_asked_for_a_while_does_not_wait_any_more() -> None:
    clock = Clock()
    quota = make(clock=clock)
    quota.take("flood", 600)
    quota.take("other", 10)
    quota.give_back("other", 10)
    with pytest.raises(Overloaded):
        quota.take("flood", 10)
    clock.now = 11.0
    quota.take("flood", 10)


def test_a_caller_with_nothing_may_exceed_its_share_once() -> None:
    quota = make()
    quota.take("b", 10)
    quota.take("a", 800)
    with pytest.raises(Overloaded):
        quota.take("a", 1)


def test_a_caller_alone_leaves_what_is_reserved_for_the_next() -> None:
    quota = Quota("bytes", 1000, 0.5, "max_inflight_body_bytes", reserve=100, clock=Clock())
    quota.take("a", 800)
    quota.take("a", 100)
    with pytest.raises(Overloaded, match="max_tenant_share"):
        quota.take("a", 1)
    quota.take("b", 100)
