"""rerankd.wire.questions: probabilities of options from the logits of their pairs."""

from __future__ import annotations

import math

import pytest

from rerankd.wire import questions
from rerankd.wire.questions import softmax


@pytest.mark.parametrize(
    ("logits", "shares"),
    [
        ([0.0], [1.0]),
        ([0.0, 0.0, 0.0, 0.0], [0.25] * 4),
        ([math.log(3), 0.0], [0.75, 0.25]),
        ([1000.0, 1000.0 - math.log(3)], [0.75, 0.25]),
        ([-1000.0, -1000.0 - math.log(3)], [0.75, 0.25]),
        ([0.0, -10_000.0], [1.0, 0.0]),
    ],
)
def test_shares_are_those_of_the_powers_however_large_the_logits_are(
    logits: list[float], shares: list[float]
) -> None:
    assert softmax(logits) == pytest.approx(shares, abs=1e-12)


@pytest.mark.promise("A3")
@pytest.mark.parametrize("options", [2, 255])
def test_the_powers_are_added_up_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch, options: int) -> None:
    """Once an option made it quadratic in the options of a question."""
    added = []

    def counted(numbers: list[float]) -> float:
        added.append(len(numbers))
        return sum(numbers)

    monkeypatch.setattr(questions, "sum", counted, raising=False)
    assert sum(softmax([float(number % 7) for number in range(options)])) == pytest.approx(1)
    assert added == [options]
