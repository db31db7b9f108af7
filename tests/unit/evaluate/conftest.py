from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.scorer import QueryScores
from rerankd.types import RerankRequest

DOCUMENTS = {"d1": "red apples", "d2": "green pears", "d3": "blue plums", "d4": "ripe figs"}
QUERIES = {"q1": "apples", "q2": "plums"}
JUDGEMENTS = {"q1": {"d1": 2, "d4": 1}, "q2": {"d3": 1, "d1": 0}}
CANDIDATES = {"q1": [("d2", 3.0), ("d1", 2.0), ("d4", 1.0)], "q2": [("d4", 5.0), ("d3", 4.0)]}


@pytest.fixture
def small_set() -> EvaluationSet:
    return EvaluationSet("small", QUERIES, DOCUMENTS, JUDGEMENTS, CANDIDATES)


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small set in BEIR layout; a keyword replaces a file's text, None leaves the file out."""

    def write(**files: str | None) -> Path:
        folder = tmp_path / "small"
        (folder / "qrels").mkdir(parents=True)
        texts: dict[str, str | None] = {
            "corpus.jsonl": lines({"_id": key, "title": "", "text": text} for key, text in DOCUMENTS.items()),
            "queries.jsonl": lines({"_id": key, "text": text} for key, text in QUERIES.items()),
            "qrels/test.tsv": table("query-id\tcorpus-id\tscore", JUDGEMENTS),
            "candidates.tsv": table("query-id\tcorpus-id\tscore", {q: dict(rows) for q, rows in CANDIDATES.items()}),
        }
        names = {name.replace("/", "_").replace(".", "_"): name for name in texts}
        texts |= {names[key]: text for key, text in files.items()}
        for name, text in texts.items():
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(head: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    body = [f"{query}\t{document}\t{score}\n" for query, row in rows.items() for document, score in row.items()]
    return head + "\n" + "".join(body)


class ScriptedScorer:
    """Gives each document the score that ``points`` has for its text, and counts the queries it was asked."""

    def __init__(self, points: Mapping[str, float], stop_after: int | None = None) -> None:
        self.points = points
        self.stop_after = stop_after
        self.asked: list[RerankRequest] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": "scripted"}

    def score(self, requests: Iterable[RerankRequest]) -> Iterator[QueryScores]:
        for request in requests:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            scores = [self.points[text] for text in request.documents]
            yield QueryScores(np.array(scores, dtype=np.float64), tokens=10 * len(scores))

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def scripted() -> type[ScriptedScorer]:
    return ScriptedScorer
