from __future__ import annotations

from dataclasses import replace
from math import log2

import pytest

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.measures import in_order, means, measure


def test_a_hand_made_example_to_four_decimals(small_set: EvaluationSet) -> None:
    # q1 ranks d2 (0), d1 (2), d4 (1); q2 ranks d4 (0), d3 (1).
    ideal = 2 / log2(2) + 1 / log2(3)
    first = (2 / log2(3) + 1 / log2(4)) / ideal
    second = 1 / log2(3)
    found = means(measure(small_set, in_order(small_set.candidates), top_k=100))
    assert found["ndcg@10"] == pytest.approx((first + second) / 2, abs=5e-5)
    assert found["ndcg@10"] == pytest.approx(0.6503, abs=5e-5)
    assert found["mrr@10"] == pytest.approx(0.5, abs=5e-5)
    assert found["map"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2, abs=5e-5)
    assert found["recall@10"] == pytest.approx(1.0)
    assert found["recall@100"] == pytest.approx(1.0)


def test_values_stand_in_the_order_of_the_queries(small_set: EvaluationSet) -> None:
    swapped = replace(small_set, queries=dict(reversed(small_set.queries.items())))
    run = {"q1": {"d1": 1.0}, "q2": {"d1": 1.0}}
    assert measure(small_set, run, 10)["mrr@10"].tolist() == [1.0, 0.0]
    assert measure(swapped, run, 10)["mrr@10"].tolist() == [0.0, 1.0]


def test_a_query_that_the_run_lacks_counts_as_nothing_found(small_set: EvaluationSet) -> None:
    assert measure(small_set, {"q1": {"d1": 1.0}}, 10)["mrr@10"].mean() == 0.5


def test_equal_scores_are_ordered_by_id_as_trec_eval_does(small_set: EvaluationSet) -> None:
    run = {"q1": {"d1": 1.0, "d2": 1.0}, "q2": {"d3": 1.0, "d2": 1.0}}
    assert measure(small_set, run, 10)["mrr@10"].tolist() == [0.5, 1.0]


def test_candidates_keep_their_order_among_equal_scores(small_set: EvaluationSet) -> None:
    tied = replace(small_set, candidates={"q1": [("d1", 0.0), ("d2", 0.0)], "q2": [("d3", 0.0), ("d4", 0.0)]})
    assert measure(tied, in_order(tied.candidates), 10)["mrr@10"].tolist() == [1.0, 1.0]


def test_the_reciprocal_rank_ends_at_ten(small_set: EvaluationSet) -> None:
    def ranked_at(place: int) -> dict[str, dict[str, float]]:
        return {"q2": {f"x{other}": 100.0 - other for other in range(1, place)} | {"d3": 1.0}}

    assert measure(small_set, ranked_at(10), 100)["mrr@10"].tolist() == [0.0, 0.1]
    assert measure(small_set, ranked_at(11), 100)["mrr@10"].tolist() == [0.0, 0.0]


def test_a_higher_grade_may_be_asked_for(small_set: EvaluationSet) -> None:
    strict = replace(small_set, relevant_from=2)
    run = {"q1": {"d4": 2.0, "d1": 1.0}}
    assert measure(small_set, run, 10)["mrr@10"].tolist() == [1.0, 0.0]
    assert measure(strict, run, 10)["mrr@10"].tolist() == [0.5, 0.0]
    assert measure(strict, run, 10)["ndcg@10"].tolist() == measure(small_set, run, 10)["ndcg@10"].tolist()
