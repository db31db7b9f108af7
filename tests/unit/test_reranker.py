from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rerankd.engine.fake import FakeEngine, FakeScript, fake_logit
from rerankd.errors import EngineDead, ScoringError
from rerankd.local_windows import WindowSize
from rerankd.prompt.build import PromptBuilder
from rerankd.prompt.template import Control, Head, Template, Text
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.reranker import Reranker
from rerankd.types import PairPrompt, RerankRequest

DOCUMENT_FIRST = Template(
    "document-first",
    (Text("{document}"), Control("<|im_end|>"), Text("{query}")),
    Head("linear"),
    scale=2.0,
    bias=0.5,
)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(params=[TEMPLATES["qwen3-reranker"], DOCUMENT_FIRST], ids=["query-first", "document-first"])
def builder(request: pytest.FixtureRequest, small_tokenizer_file: Path) -> PromptBuilder:
    return PromptBuilder(PromptTokenizer(small_tokenizer_file, request.param))


@pytest.fixture
def reranker(builder: PromptBuilder, engine: FakeEngine) -> Reranker:
    return Reranker.of("fake", "r1", builder, engine, max_pair_tokens=400)


def requests(count: int, seed: int = 1) -> list[RerankRequest]:
    rng = random.Random(seed)
    pool = [" ".join(rng.choices(["Paris", "query", "文字", "relevance"], k=rng.randint(1, 40))) for _ in range(30)]
    return [RerankRequest(f"query {number}", tuple(rng.sample(pool, rng.randint(1, 20)))) for number in range(count)]


def pair_of(builder: PromptBuilder, reranker: Reranker, query: str, document: str) -> PairPrompt:
    (pair,) = builder.pairs(query, [document], reranker.template.default_instruction, reranker.limits)
    assert isinstance(pair, PairPrompt)
    return pair


def expected(builder: PromptBuilder, reranker: Reranker, request: RerankRequest) -> list[float]:
    """Each pair by itself."""
    pairs = (pair_of(builder, reranker, request.query, document) for document in request.documents)
    return [fake_logit(pair.ids) for pair in pairs]


def test_many_requests_score_as_each_pair_alone(reranker: Reranker, builder: PromptBuilder) -> None:
    asked = requests(60)
    found = list(reranker.score_many(asked))
    assert [scored.logits.tolist() for scored in found] == [expected(builder, reranker, request) for request in asked]


@pytest.mark.parametrize("window", [WindowSize(7, 7), WindowSize(10**6, 10**6, 500)])
def test_scores_are_the_same_whatever_the_windows(reranker: Reranker, window: WindowSize) -> None:
    asked = requests(40)
    whole = [scored.logits.tolist() for scored in reranker.score_many(asked)]
    reranker.window = window
    assert [scored.logits.tolist() for scored in reranker.score_many(asked)] == whole


def test_what_pairs_share_is_read_once(reranker: Reranker, engine: FakeEngine) -> None:
    documents = tuple(f"Paris is the capital of France {number}" * 3 for number in range(10))
    batches = engine.record()
    found = list(reranker.score_many([RerankRequest(f"query {number}", documents) for number in range(10)]))
    assert sum(batch.tokens for batch in batches) < 0.7 * sum(scored.tokens for scored in found)


def test_a_batch_that_does_not_fit_is_split(reranker: Reranker, engine: FakeEngine) -> None:
    asked = requests(20)
    whole = [scored.logits.tolist() for scored in reranker.score_many(asked)]
    engine.script = FakeScript(oom_above_tokens=450)
    assert [scored.logits.tolist() for scored in reranker.score_many(asked)] == whole


@pytest.mark.promise("F2")
def test_a_bad_document_fails_alone(reranker: Reranker, builder: PromptBuilder, engine: FakeEngine) -> None:
    engine.script = FakeScript(fail_on=tuple(pair_of(builder, reranker, "q", "Paris").ids.tolist()))
    result = reranker.rank("q", ["Paris", "France", "\udbff"])
    assert [error.index for error in result.errors] == [0, 2]
    assert [row.index for row in result] == [1]


def test_one_pair_that_does_not_fit_is_an_error_that_says_what_to_do(reranker: Reranker, engine: FakeEngine) -> None:
    engine.script = FakeScript(oom_above_tokens=5)
    (found,) = reranker.score_many(requests(1))
    assert all(isinstance(pair, ScoringError) and "max_pair_tokens" in str(pair) for pair in found.pairs)
    assert np.isnan(found.logits).all()


def test_an_engine_that_died_is_said_in_one_line(reranker: Reranker, engine: FakeEngine) -> None:
    engine.script = FakeScript(die_after=1)
    with pytest.raises(EngineDead, match="died as its script says"):
        list(reranker.score_many(requests(3)))


@pytest.mark.promise("F3")
def test_long_pairs_are_cut_counted_and_warned_of(reranker: Reranker) -> None:
    (found,) = reranker.score_many([RerankRequest("query", ("Paris " * 2000, "Paris"))])
    assert found.truncated == 1
    assert found.tokens < 800
    assert "1 of 2 pairs were truncated" in reranker.rank("query", ["Paris " * 2000, "Paris"]).warnings[0]


@pytest.mark.promise("F3")
def test_an_instruction_that_the_prompt_has_no_place_for_is_warned_of(reranker: Reranker) -> None:
    warnings = reranker.rank("query", ["Paris"], instruction="find it").warnings
    assert bool(warnings) == (reranker.template is DOCUMENT_FIRST)


@pytest.mark.promise("S6")
def test_an_empty_instruction_is_the_default_one(reranker: Reranker) -> None:
    logits = [reranker.score([("q", "Paris")], instruction=given, raw_scores=True)[0] for given in (None, "", " ")]
    assert len(set(logits)) == 1


def test_endless_requests_are_answered_as_they_come(reranker: Reranker) -> None:
    reranker.window = WindowSize(4, 4)

    def endless() -> Iterator[RerankRequest]:
        for number in itertools.count():
            yield RerankRequest(f"query {number}", ("Paris", "France"))

    assert len(list(itertools.islice(reranker.score_many(endless()), 50))) == 50


def test_a_request_without_documents_has_no_scores(reranker: Reranker) -> None:
    found = reranker.score_many([RerankRequest("q", ()), RerankRequest("q", ("Paris",)), RerankRequest("q", ())])
    assert [len(scored.logits) for scored in found] == [0, 1, 0]


def test_ranking_gives_probabilities_by_the_templates_scale(reranker: Reranker, builder: PromptBuilder) -> None:
    documents = ["Paris", "France", "the capital", "query"]
    result = reranker.rank("capital", documents, top_n=2)
    template = reranker.template
    raw = expected(builder, reranker, RerankRequest("capital", tuple(documents)))
    logits = [template.scale * logit + template.bias for logit in raw]
    assert reranker.rank("capital", documents, raw_scores=True).scores == pytest.approx(logits)
    assert result.scores[0] == pytest.approx(1 / (1 + math.exp(-logits[0])))
    assert [place.index for place in result] == sorted(range(4), key=lambda index: -logits[index])[:2]
    assert (result.model, len(result)) == ("fake", 2)


def test_a_score_that_is_not_a_number_is_reported(
    reranker: Reranker, builder: PromptBuilder, engine: FakeEngine
) -> None:
    engine.script = FakeScript(nan_on=tuple(pair_of(builder, reranker, "q", "Paris").ids.tolist()))
    result = reranker.rank("q", ["Paris", "France"])
    assert [error.index for error in result.errors] == [0]
    assert [place.index for place in result] == [1]
