"""rerankd.service.ranking: sigmoid, finite check, stable order."""

from __future__ import annotations

import math

import pytest

from rerankd.cache.base import CachedScore
from rerankd.errors import NonFiniteScore, ScoringError
from rerankd.prompt.passages import Span, Split
from rerankd.prompt.templates import TEMPLATES
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.ranking import document_score, passage, rank, rerank_result
from rerankd.types import DocumentScore, LongDocumentCounts, Outcome, Passage, RerankRequest, Timings

TEMPLATE = TEMPLATES["qwen3-reranker"]


def scores(*outcomes: Outcome) -> list[DocumentScore]:
    return [document_score(index, outcome, 1.0, 0.0) for index, outcome in enumerate(outcomes)]


@pytest.mark.parametrize("logit", [0.0, 1.0, -1.0, 30.0, -30.0, 1e4, -1e4])
def test_sigmoid_never_overflows(logit: float) -> None:
    assert document_score(0, logit, 1.0, 0.0).score == pytest.approx(0.5 * (1 + math.tanh(logit / 2)), abs=1e-12)


def test_scale_and_bias_come_before_the_sigmoid() -> None:
    row = document_score(0, 2.0, 3.0, -6.0)
    assert (row.logit, row.score) == (0.0, 0.5)


def test_equal_scores_keep_input_order() -> None:
    assert [row.index for row in rank(scores(1.0, 2.0, 1.0, 2.0), None)] == [1, 3, 0, 2]


def test_logits_that_share_a_float_sigmoid_still_differ() -> None:
    ranked = rank(scores(50.0, 60.0), None)
    assert [row.index for row in ranked] == [1, 0]
    assert ranked[0].score == ranked[1].score == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_reported_and_never_sorted(bad: float) -> None:
    rows = scores(0.1, bad, 0.9, 0.5)
    assert [row.index for row in rank(rows, None)] == [2, 3, 0]
    assert isinstance(rows[1].error, NonFiniteScore)
    assert rows[1].score is None


def test_a_failed_pair_keeps_its_own_error() -> None:
    error = ScoringError("the engine failed on this pair")
    assert scores(0.1, error)[1].error is error


@pytest.mark.parametrize(("top_n", "expected"), [(None, 3), (1, 1), (3, 3), (9, 3)])
def test_top_n_takes_the_best(top_n: int | None, expected: int) -> None:
    assert len(rank(scores(1.0, 2.0, 3.0), top_n)) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_passage_has_its_score_where_that_is_a_number(bad: float) -> None:
    assert passage(Span(3, 9), 0.0, TEMPLATE) == Passage(3, 9, 0.5, 0.0)
    assert passage(Span(3, 9), bad, TEMPLATE) is None


def test_documents_in_passages_have_the_best_of_them_and_are_counted() -> None:
    split = SplitDocuments.of(["red and blue", "red"], [Split((Span(0, 7), Span(7, 12))), Split((Span(0, 3),))])
    pairs = [CachedScore(-1.0, 5, False), CachedScore(2.0, 6, False), CachedScore(0.5, 4, False)]
    result = rerank_result(
        "id",
        "tiny",
        TEMPLATE,
        RerankRequest("colours", ("red and blue", "red")),
        pairs,
        0,
        Timings(0.0, 0.0, 0.0, 0.0),
        LongDocumentRule(mode="chunk"),
        split,
    )
    assert [row.logit for row in result.scores] == [2.0, 0.5]
    assert [(row.best_passage.start, row.best_passage.end) for row in result.ranked if row.best_passage] == [
        (7, 12),
        (0, 3),
    ]
    assert result.prompt_tokens == 15
    assert result.long_documents == LongDocumentCounts("chunk", 0, 1, 3)
