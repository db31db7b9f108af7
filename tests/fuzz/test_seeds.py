"""Every target of the fuzzer takes its seeds and whatever earlier runs found; ``make fuzz`` looks for more."""

from __future__ import annotations

import time

import pytest
from tests.fuzz import targets
from tests.fuzz.targets import TARGETS, TooSlow, seeds, within_a_second


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_and_findings_are_taken_or_refused(name: str) -> None:
    for data in seeds(name):
        TARGETS[name](data)
        TARGETS[name](data[: len(data) // 2])


def test_an_input_that_takes_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_SECONDS", 0.1)

    def spend(data: bytes) -> None:
        end = time.thread_time() + 0.11
        while time.thread_time() < end:
            pass

    with pytest.raises(TooSlow):
        within_a_second(spend)(b"x")
