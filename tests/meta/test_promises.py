"""Every promise of the reliability suite, A-01 to M-04, has a test that names it, or stands here with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COUNTS = {"A": 9, "B": 8, "C": 10, "D": 8, "E": 7, "F": 10, "G": 15, "H": 8, "S": 6, "J": 5, "K": 2, "L": 5, "M": 4}
PROMISES = [f"{section}-{number:02d}" for section, count in COUNTS.items() for number in range(1, count + 1)]

NAMED_OTHERWISE = {
    "J-01": "engine/test_agreement.py::test_a_pair_scores_the_same_alone_and_in_a_crowd",
    "J-02": "engine/test_agreement.py::test_the_order_of_documents_does_not_matter",
    "J-03": "engine/test_agreement.py::test_sharing_segments_changes_nothing",
    "J-04": "engine/test_agreement.py::test_native_agrees_with_the_reference",
    "J-05": "engine/test_agreement.py::test_a_restart_gives_the_same_scores_to_the_last_bit",
}
"""Promises about the engines: the file, and the test in it."""

NOT_TESTED = {
    **dict.fromkeys(["B-08", "L-01", "L-02", "L-03", "L-04", "L-05"], "there is no Ray deployment"),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_a_test_or_a_reason(promise: str) -> None:
    if promise in NAMED_OTHERWISE:
        file, _, name = NAMED_OTHERWISE[promise].partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")
        return
    word = re.compile(rf"\b{promise}\b")
    naming = [
        file
        for file in TESTS.rglob("test_*.py")
        if file != Path(__file__) and word.search(file.read_text(encoding="utf-8"))
    ]
    assert bool(naming) != (promise in NOT_TESTED), f"{promise} is named in {naming}"
