"""The two tables of what a format costs in accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import accuracy


def test_errors_are_those_of_the_probabilities_and_of_their_order() -> None:
    truth = np.array([0.1, 0.2, 0.3, 0.4])
    found = accuracy._errors(np.array([0.1, 0.25, 0.3, 0.4]), truth)
    assert found["max_error"] == pytest.approx(0.05)
    assert found["mean_error"] == pytest.approx(0.0125)
    assert found["rank_correlation"] == pytest.approx(1.0)
    # Two neighbours change places: 1 - 6 * 2 / (4 * 15).
    swapped = accuracy._errors(np.array([0.2, 0.1, 0.3, 0.4]), truth)
    assert swapped["rank_correlation"] == pytest.approx(0.8)


def test_the_change_is_counted_from_the_reference_and_a_failed_run_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(name: str, arguments: object) -> object:
        values = {accuracy.REFERENCE: 0.5, "native:int8": 0.4875}
        if name not in values:
            return "no such engine"
        return {"sets": {"mine": {"reranked": {"ndcg@10": values[name]}, "queries": 3, "pairs": 300}}}

    monkeypatch.setattr(accuracy, "_evaluate", evaluate)
    rows = accuracy.evaluations([accuracy.REFERENCE, "native:int8", "other"], None)  # type: ignore[arg-type]
    tables = accuracy.tables({"scores": [], "sets": rows, "layout": "small"})
    changes = [(row["engine"], row["set"], row["change"]) for row in list(tables.values())[1]]
    assert changes == [
        (accuracy.REFERENCE, "mine", "+0.0000"),
        ("native:int8", "mine", "-0.0125"),
        ("other", "void: no such engine", ""),
    ]
