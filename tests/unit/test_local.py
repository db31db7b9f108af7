from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rerankd.engine.fake import FakeEngine, FakeScript, fake_logit
from rerankd.errors import ScoringError
from rerankd.local import LocalReranker
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.template import TEMPLATES, Control, Head, Template, Text
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import RerankRequest

DOCUMENT_FIRST = Template(
    "document-first",
    (Text("{document}"), Control("<|im_end|>"), Text("{query}")),
    Head("linear"),
    scale=2.0,
    bias=0.5,
)

Make = Callable[..., LocalReranker]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(params=[TEMPLATES["qwen3-reranker"], DOCUMENT_FIRST], ids=["query-first", "document-first"])
def reranker(request: pytest.FixtureRequest, small_tokenizer_file: Path, engine: FakeEngine) -> LocalReranker:
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, request.param))
    return LocalReranker("fake", "r1", request.param, builder, engine, PromptLimits(max_pair_tokens=400))


def requests(count: int, seed: int = 1) -> list[RerankRequest]:
    rng = random.Random(seed)
    pool = [" ".join(rng.choices(["Paris", "query", "文字", "relevance"], k=rng.randint(1, 40))) for _ in range(30)]
    return [RerankRequest(f"query {number}", tuple(rng.sample(pool, rng.randint(1, 20)))) for number in range(count)]


def expected(reranker: LocalReranker, request: RerankRequest) -> list[float]:
    """Each pair by itself."""
    pairs = reranker._builder.pairs(
        request.query, request.documents, reranker.template.default_instruction, reranker._limits
    )
    return [fake_logit(pair.ids) for pair in pairs]


def test_many_requests_score_as_each_pair_alone(reranker: LocalReranker) -> None:
    asked = requests(60)
    found = list(reranker.score_many(asked))
    assert [scored.logits.tolist() for scored in found] == [expected(reranker, request) for request in asked]


def test_scores_are_the_same_whatever_the_windows(reranker: LocalReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(40)
    whole = [scored.logits.tolist() for scored in reranker.score_many(asked)]
    monkeypatch.setattr("rerankd.local._FEW", 7)
    monkeypatch.setattr("rerankd.local._MANY", 7)
    assert [scored.logits.tolist() for scored in reranker.score_many(asked)] == whole
    monkeypatch.setattr("rerankd.local._MANY_CHARACTERS", 500)
    assert [scored.logits.tolist() for scored in reranker.score_many(asked)] == whole


def test_no_batch_is_over_the_budget(
    reranker: LocalReranker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerankd.engine.fake._DEFAULT_BATCH_TOKENS", 1000)
    batches = engine.record()
    list(reranker.score_many(requests(60)))
    assert max(batch.tokens for batch in batches) <= 1000
    assert np.mean([batch.tokens for batch in batches[:-1]]) > 800


def test_what_pairs_share_is_read_once(reranker: LocalReranker, engine: FakeEngine) -> None:
    documents = tuple(f"Paris is the capital of France {number}" * 3 for number in range(10))
    batches = engine.record()
    found = list(reranker.score_many([RerankRequest(f"query {number}", documents) for number in range(10)]))
    assert sum(batch.tokens for batch in batches) < 0.7 * sum(scored.tokens for scored in found)


def test_a_batch_that_does_not_fit_is_halved(reranker: LocalReranker, engine: FakeEngine) -> None:
    asked = requests(20)
    whole = [scored.logits.tolist() for scored in reranker.score_many(asked)]
    engine.script = FakeScript(oom_above_tokens=450)
    assert [scored.logits.tolist() for scored in reranker.score_many(asked)] == whole


def test_one_pair_that_does_not_fit_is_an_error_that_says_what_to_do(
    reranker: LocalReranker, engine: FakeEngine
) -> None:
    engine.script = FakeScript(oom_above_tokens=5)
    with pytest.raises(ScoringError, match="max_pair_tokens"):
        list(reranker.score_many(requests(1)))


def test_long_pairs_are_cut_and_counted(reranker: LocalReranker) -> None:
    (found,) = reranker.score_many([RerankRequest("query", ("Paris " * 2000, "Paris"))])
    assert found.truncated == 1
    assert found.tokens < 800


def test_endless_requests_are_answered_as_they_come(reranker: LocalReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.local._FEW", 4)
    monkeypatch.setattr("rerankd.local._MANY", 4)

    def endless() -> Iterator[RerankRequest]:
        for number in itertools.count():
            yield RerankRequest(f"query {number}", ("Paris", "France"))

    answers = list(itertools.islice(reranker.score_many(endless()), 50))
    assert len(answers) == 50


def test_a_request_without_documents_has_no_scores(reranker: LocalReranker) -> None:
    found = list(
        reranker.score_many([RerankRequest("q", ()), RerankRequest("q", ("Paris",)), RerankRequest("q", ())])
    )
    assert [len(scored.logits) for scored in found] == [0, 1, 0]


def test_ranking_gives_probabilities_by_the_templates_scale(reranker: LocalReranker) -> None:
    documents = ["Paris", "France", "the capital", "query"]
    result = reranker.rank("capital", documents, top_n=2)
    template = reranker.template
    raw = expected(reranker, RerankRequest("capital", tuple(documents)))
    logits = [template.scale * logit + template.bias for logit in raw]
    assert [score.logit for score in result.scores] == pytest.approx(logits)
    assert result.scores[0].score == pytest.approx(1 / (1 + math.exp(-logits[0])))
    assert [place.index for place in result.ranked] == sorted(range(4), key=lambda index: -logits[index])[:2]
    assert (result.model, len(result.ranked)) == ("fake", 2)


def test_a_score_that_is_not_a_number_is_reported(reranker: LocalReranker, engine: FakeEngine) -> None:
    pair = reranker._builder.pairs("q", ["Paris"], reranker.template.default_instruction, reranker._limits)[0]
    engine.script = FakeScript(nan_on=tuple(pair.ids.tolist()))
    result = reranker.rank("q", ["Paris", "France"])
    assert [error.index for error in result.errors] == [0]
    assert [place.index for place in result.ranked] == [1]
