from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.run import SetResult, evaluate_set
from rerankd.evaluate.score_store import ScoreStore

POINTS = {"red apples": 3.0, "green pears": -1.0, "blue plums": 2.0, "ripe figs": 0.5}


def run(data: EvaluationSet, scorer: Any, folder: Path | None = None, **options: Any) -> SetResult:
    with ScoreStore(folder, scorer.identity) as kept:
        chosen = {"instruction": None, "top_k": 100, "advance": lambda pairs: None} | options
        return evaluate_set(data, scorer, kept, **chosen)


def test_a_better_order_measures_better(small_set: EvaluationSet, scripted: Any) -> None:
    result = run(small_set, scripted(POINTS))
    assert result.candidates["mrr@10"].tolist() == [0.5, 0.5]
    assert result.reranked["mrr@10"].tolist() == [1.0, 1.0]
    assert result.reranked["ndcg@10"].tolist() == [1.0, 1.0]
    assert (result.pairs, result.tokens, result.failed) == (5, 50, 0)


def test_the_fused_order_listens_to_both(small_set: EvaluationSet, scripted: Any) -> None:
    # q1: the model barely prefers d1 to d2, the candidates clearly prefer d2 to d1.
    points = {"red apples": 1.01, "green pears": 1.0, "ripe figs": -3.0, "blue plums": 0.0}
    data = replace(small_set, candidates={"q1": [("d2", 9.0), ("d1", 1.0), ("d4", 0.0)]})
    result = run(data, scripted(points))
    assert result.reranked["mrr@10"][0] == 1.0
    assert result.fused["mrr@10"][0] == 0.5


def test_a_query_without_candidates_counts_as_nothing_found(small_set: EvaluationSet, scripted: Any) -> None:
    result = run(replace(small_set, candidates={"q1": small_set.candidates["q1"]}), scripted(POINTS))
    for figures in (result.candidates, result.reranked, result.fused):
        assert figures["ndcg@10"][1] == 0.0


def test_a_candidate_without_a_text_stays_below_those_that_have_one(small_set: EvaluationSet, scripted: Any) -> None:
    data = replace(small_set, candidates={"q2": [("gone", 9.0), ("d3", 8.0), ("lost", 7.0)]})
    scorer = scripted(POINTS)
    result = run(data, scorer)
    assert [request.documents for request in scorer.asked] == [("blue plums",)]
    assert result.candidates["mrr@10"][1] == 0.5
    assert result.reranked["mrr@10"][1] == 1.0


def test_a_query_whose_candidates_have_no_text_is_not_scored(small_set: EvaluationSet, scripted: Any) -> None:
    scorer = scripted(POINTS)
    result = run(replace(small_set, candidates={"q2": [("gone", 1.0)]}), scorer)
    assert scorer.asked == []
    assert result.pairs == 0


def test_a_pair_without_a_score_is_counted_and_stays_below(small_set: EvaluationSet, scripted: Any) -> None:
    result = run(small_set, scripted(POINTS | {"red apples": math.nan}))
    assert result.failed == 1
    assert result.reranked["mrr@10"][0] == 1.0  # d4 first, then d2, then the failed d1
    assert result.reranked["map"][0] == pytest.approx((1 + 2 / 3) / 2)


def test_an_interrupted_run_goes_on_where_it_stopped(small_set: EvaluationSet, scripted: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(small_set, scripted(POINTS, stop_after=1), tmp_path)
    second = scripted(POINTS)
    result = run(small_set, second, tmp_path)
    assert [request.query for request in second.asked] == ["plums"]
    assert result.reranked["ndcg@10"].tolist() == [1.0, 1.0]
    assert (result.pairs, result.tokens) == (5, 50)


def test_progress_and_instruction_go_where_they_belong(small_set: EvaluationSet, scripted: Any) -> None:
    scorer, seen = scripted(POINTS), []
    run(small_set, scorer, instruction="find fruit", advance=seen.append)
    assert seen == [3, 2]
    assert {request.instruction for request in scorer.asked} == {"find fruit"}
