"""Stored answers for tests."""

from __future__ import annotations

from rerankd.experiments.store import Answer


def answer(number: int = 1, **facts: object) -> Answer:
    given = {
        "answer_id": f"a{number}",
        "request_id": f"r{number}",
        "caller": "",
        "experiment": "x",
        "arm": "control",
        "unit": f"u{number}",
        "pinned": False,
        "seconds": 0.1,
        "documents": 3,
        "score": 0.5,
        "ranked": [2, 0, 1],
    }
    return Answer(**(given | facts))  # type: ignore[arg-type]
