from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rerankd.evaluate.notes import Notes
from rerankd.evaluate.score_store import ScoreStore
from rerankd.evaluate.scorer import QueryScores
from rerankd.types import RerankRequest

REQUEST = RerankRequest("q", ("a", "b"))
FOUND = QueryScores(np.array([0.1, -3.25]), tokens=12, truncated=1)


def keep(folder: Path | None, identity: dict[str, str] | None = None) -> ScoreStore:
    return ScoreStore(folder, identity or {"model": "m"})


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    with keep(tmp_path) as kept:
        assert kept.get(REQUEST) is None
        kept.put(REQUEST, FOUND, 1.5)
    with keep(tmp_path) as kept:
        found, seconds = kept.get(REQUEST) or (FOUND, 0.0)
    assert found.scores.tolist() == FOUND.scores.tolist()
    assert (found.tokens, found.truncated, seconds) == (12, 1, 1.5)


def test_any_change_of_a_text_is_scored_again(tmp_path: Path) -> None:
    with keep(tmp_path) as kept:
        kept.put(REQUEST, FOUND, 1.0)
    with keep(tmp_path) as kept:
        assert kept.get(RerankRequest("q", ("a", "c"))) is None
        assert kept.get(RerankRequest("qa", ("b",))) is None
        assert kept.get(RerankRequest("q", ("a", "b"), instruction="i")) is None
        assert kept.get(RerankRequest("q", ("a", "b"))) is not None


def test_another_model_has_its_own_scores(tmp_path: Path) -> None:
    with keep(tmp_path) as kept:
        kept.put(REQUEST, FOUND, 1.0)
    with keep(tmp_path, {"model": "n"}) as kept:
        assert kept.get(REQUEST) is None


def test_a_line_that_was_torn_by_an_interrupt_costs_only_itself(tmp_path: Path) -> None:
    with keep(tmp_path) as kept:
        kept.put(REQUEST, FOUND, 1.0)
        kept.put(RerankRequest("later", ("a", "b")), FOUND, 1.0)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    with keep(tmp_path) as kept:
        assert kept.get(REQUEST) is not None
        assert kept.get(RerankRequest("later", ("a", "b"))) is None
        kept.put(RerankRequest("more", ("a", "b")), FOUND, 1.0)
    with keep(tmp_path) as kept:
        assert kept.get(RerankRequest("more", ("a", "b"))) is not None


@pytest.mark.promise("E5")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_query_with_a_pair_that_failed_is_scored_again(tmp_path: Path, bad: float) -> None:
    with keep(tmp_path) as kept:
        kept.put(REQUEST, QueryScores(np.array([bad, 1.0]), 2), 1.0)
    with keep(tmp_path) as kept:
        assert kept.get(REQUEST) is None


@pytest.mark.promise("E5")
@pytest.mark.parametrize(
    "change",
    [
        {"scores": [float("nan"), 1.0]},
        {"scores": [1.0]},
        {"scores": ["1", "2"]},
        {"scores": 5},
        {"tokens": None},
        {"seconds": "1"},
        {"key": 5},
    ],
)
def test_a_line_that_is_not_whole_is_scored_again(tmp_path: Path, change: dict[str, object]) -> None:
    with keep(tmp_path) as kept:
        kept.put(REQUEST, FOUND, 1.0)
    file = next(tmp_path.iterdir())
    row = json.loads(file.read_text().split("\n")[1])
    file.write_text(json.dumps({**row, **change}) + "\n" + "[" * 100_000 + "\n[]\n5\n")
    with keep(tmp_path) as kept:
        assert kept.get(REQUEST) is None


@pytest.mark.promise("U9")
def test_a_folder_that_cannot_be_made_is_said_and_nothing_is_kept() -> None:
    notes = Notes()
    with ScoreStore(Path("/proc/nowhere/scores"), {}, notes) as kept:
        kept.put(REQUEST, FOUND, 1.0)
        assert kept.get(REQUEST) is None
    assert "not kept" in notes.sentence()


def test_without_a_folder_nothing_is_kept() -> None:
    with keep(None) as kept:
        kept.put(REQUEST, FOUND, 1.0)
        assert kept.get(REQUEST) is None
