"""Documents that could not be scored, truncation, and several queries of which one fails."""

from __future__ import annotations

import dataclasses

import pytest
from tests.contract.answers import answer_to, render

from rerankd.errors import InvalidRequest, NonFiniteScore, ScoringError
from rerankd.types import DocumentScore, FusionReport, RerankRequest, RerankResult

BODY = {"query": "q", "documents": ["a", "b", "c"]}
REQUEST = RerankRequest(query="q", documents=("a", "b", "c"))


def with_a_failure() -> RerankResult:
    result = answer_to(REQUEST)
    failed = DocumentScore(1, score=None, logit=None, error=NonFiniteScore("the score is not a number"))
    return dataclasses.replace(
        result,
        scores=(result.scores[0], failed, result.scores[2]),
        ranked=tuple(place for place in result.ranked if place.index != 1),
    )


def test_the_native_shape_reports_a_document_that_could_not_be_scored_and_ranks_the_others() -> None:
    body = render("/rerank", BODY, [with_a_failure()]).body
    assert body["scores"] == [0.25, None, 0.5]
    assert body["ranked_documents"] == ["c", "a"]
    assert body["errors"] == [{"index": 1, "code": "non_finite_score", "message": "the score is not a number"}]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/infinity/rerank", "/voyage/v1/rerank"])
def test_other_shapes_have_no_place_for_it_and_fail_as_a_whole(path: str) -> None:
    with pytest.raises(NonFiniteScore):
        render(path, BODY, [with_a_failure()])


def test_the_native_shape_fails_when_no_document_has_a_score() -> None:
    error = ScoringError("the engine failed on this pair")
    scores = tuple(DocumentScore(index, score=None, logit=None, error=error) for index in range(3))
    with pytest.raises(ScoringError):
        render("/rerank", BODY, [dataclasses.replace(answer_to(REQUEST), scores=scores, ranked=())])


def test_a_query_of_a_batch_fails_alone() -> None:
    results = [InvalidRequest("query must not be empty or blank", param="query"), answer_to(REQUEST)]
    pairs = [{"query": "q", "documents": []}, {**BODY, "query": " "}, BODY]
    answered = render("/batch_rerank", {"pairs": pairs}, results).body["results"]
    assert answered[0] == {"error": "documents must not be empty", "code": "invalid_request"}
    assert answered[1] == {"error": "query must not be empty or blank", "code": "invalid_request"}
    assert answered[2]["scores"] == [0.25, 0.875, 0.5]


def test_a_pair_that_could_not_be_scored_fails_the_whole_score_call() -> None:
    with pytest.raises(NonFiniteScore):
        render("/score", {"queries": "q", "documents": ["a", "b", "c"]}, [with_a_failure()])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/xinference/v1/rerank"])
def test_what_was_cut_is_told(path: str) -> None:
    result = answer_to(REQUEST, warnings=("2 documents were truncated",))
    assert render(path, BODY, [result]).body["meta"]["warnings"] == ["2 documents were truncated"]


def test_an_item_of_a_batch_says_what_an_answer_of_its_own_would() -> None:
    result = answer_to(REQUEST, warnings=("2 documents were truncated",))
    ranked = tuple(dataclasses.replace(place, model_score=0.5, rescored=True) for place in result.ranked)
    said = dataclasses.replace(result, ranked=ranked, fusion=FusionReport("rrf", 0.25))
    plain, fused = render("/batch_rerank", {"pairs": [BODY, BODY]}, [answer_to(REQUEST), said]).body["results"]
    assert plain.keys().isdisjoint({"results", "meta"})
    alone = render("/rerank", BODY, [said]).body
    assert fused["results"][0] == {"index": 1, "relevance_score": 0.875, "model_score": 0.5, "rescored": True}
    assert [row["index"] for row in fused["results"]] == [1, 2, 0]
    assert fused["meta"] == {name: alone["meta"][name] for name in ("warnings", "fusion")}


def test_search_units_count_hundreds_of_documents() -> None:
    for documents, units in ((1, 1), (100, 1), (101, 2)):
        body = {"query": "q", "documents": ["a"] * documents}
        scored = dataclasses.replace(answer_to(REQUEST), ranked=())
        billed = render("/v2/rerank", body, [scored]).body["meta"]["billed_units"]
        assert billed == {"search_units": units}
