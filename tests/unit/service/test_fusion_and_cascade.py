"""Two scores made one, and a model that reads only as many documents as it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.served import served

from rerankd.errors import ConfigurationError, InvalidRequest, ServiceError
from rerankd.service.cascade import CascadeRule, rule_for, run
from rerankd.service.fusion import NO_FUSION, FusionRule, fuse, fused
from rerankd.service.runtime import RerankService
from rerankd.settings import ModelSettings, Settings
from rerankd.types import Cascade, DocumentScore, RerankRequest, RerankResult

DOCUMENTS = [f"document {number}" for number in range(40)]
PLAIN = RerankRequest("q", ("a", "b", "c"))


def place(index: int, logit: float | None) -> DocumentScore:
    return DocumentScore(index, None if logit is None else 1 / (1 + float(np.exp(-logit))), logit)


async def ask(**body: Any) -> dict[str, Any]:
    async with served() as server:
        answer = await server.rerank("q", body.pop("documents", DOCUMENTS[:3]), **body)
    return {"status": answer.status_code, **answer.json()}


def test_the_model_and_the_first_stage_have_their_shares() -> None:
    model, first = np.array([2.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0])
    order = {weight: np.argsort(-fuse(FusionRule("zscore", weight), model, first)).tolist() for weight in (0.9, 0.1)}
    assert order == {0.9: [0, 1, 2], 0.1: [2, 1, 0]}
    by_ranks = fuse(FusionRule("rrf", 0.5), model, first)
    assert by_ranks == pytest.approx([0.5 / 61 + 0.5 / 63, 1 / 62, 0.5 / 61 + 0.5 / 63])


@pytest.mark.parametrize("method", ["zscore", "rrf"])
def test_fused_scores_lie_between_0_and_1_in_their_order(method: Any) -> None:
    found = fused(FusionRule(method, 0.4), [place(0, 5.0), place(1, None), place(2, -1.0)], [1.0, 9.0, None])
    assert found[1].logit is None
    assert all(0 < (row.score or 0) <= 1 for row in found if row.logit is not None)
    assert (found[0].score or 0) > (found[2].score or 1)
    assert found[0].model_score == place(0, 5.0).score


async def test_a_request_is_fused_as_it_asks() -> None:
    alone = await ask()
    answer = await ask(first_stage_scores=[0, 0, 1000], fusion="zscore", fusion_weight=0.0)
    assert answer["results"][0]["index"] == 2
    assert answer["meta"]["fusion"] == {"method": "zscore", "weight": 0.0}
    assert {row["index"]: row["model_score"] for row in answer["results"]} == dict(enumerate(alone["scores"]))


async def test_documents_may_carry_their_scores() -> None:
    texts = [{"text": "a", "first_stage_score": 1}, {"text": "b", "first_stage_score": "7.5"}, "c"]
    answer = await ask(documents=texts, fusion="rrf", fusion_weight=0.01)
    assert answer["results"][0]["index"] == 1
    refused = await ask(documents=[{"text": "a", "first_stage_score": "high"}], fusion="rrf")
    assert (refused["status"], refused["error"]["param"]) == (400, "documents[0].first_stage_score")


async def test_a_served_name_fuses_what_carries_scores_and_leaves_the_rest_alone() -> None:
    models = {"fused": ModelSettings(fusion="zscore", fusion_weight=0.01)}
    async with served(models=models) as server:
        plain = (await server.rerank("q", DOCUMENTS[:3], model="fused")).json()
        own = (await server.rerank("q", DOCUMENTS[:3], model="fused", first_stage_scores=[0, 9, 0])).json()
    assert "fusion" not in plain["meta"]
    assert own["results"][0]["index"] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"first_stage_scores": [1]}, "first_stage_scores"),
        ({"first_stage_scores": ["x", 1, 2]}, "first_stage_scores[0]"),
        ({"fusion": "zscore"}, "first_stage_scores"),
        ({"fusion": "sum", "first_stage_scores": [1, 2, 3]}, "fusion"),
        ({"fusion_weight": 1.5}, "fusion_weight"),
        ({"cascade": {"depth": 3}}, "cascade.model"),
        ({"cascade": {"model": "first_stage"}}, "cascade.model"),
        ({"cascade": {"model": "x", "confidence": 2}}, "cascade.confidence"),
        ({"cascade": {"model": "x"}, "fusion": "rrf", "first_stage_scores": [1, 2, 3]}, "fusion"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    answer = await ask(**fields)
    assert (answer["status"], answer["error"]["param"]) == (400, param)


async def test_the_model_scores_the_best_of_the_first_stage() -> None:
    first = [float(number) for number in range(40)]
    async with served() as server:
        whole = (await server.rerank("q", DOCUMENTS)).json()
        scored = server.engine.pairs
        fields = {"cascade": {"model": "first_stage", "depth": 10}, "first_stage_scores": first}
        answer = (await server.rerank("q", DOCUMENTS, **fields)).json()
        assert server.engine.pairs - scored == 10
    assert answer["meta"]["cascade"] == {"first": "first_stage", "rescored": 10, "confidence": None}
    seen, unseen = answer["results"][:10], answer["results"][10:]
    assert {row["index"] for row in seen} == set(range(30, 40))
    assert all(row["rescored"] and row["relevance_score"] == whole["scores"][row["index"]] for row in seen)
    assert [row["index"] for row in unseen] == list(range(29, -1, -1))
    values = [row["relevance_score"] for row in answer["results"]]
    assert values == sorted(values, reverse=True)


async def test_a_served_name_may_be_a_cascade() -> None:
    models = {
        "cheap": ModelSettings(instruction="other"),
        "fast": ModelSettings(cascade_model="cheap", cascade_depth=5),
    }
    async with served(models=models) as server:
        answer = (await server.rerank("q", DOCUMENTS, model="fast", top_n=3)).json()
    assert answer["model"] == "fast"
    assert answer["meta"]["cascade"]["rescored"] == 5
    assert len(answer["results"]) == 3


async def test_a_cascade_over_nobody_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="cascade_model"):
        await RerankService(Settings(models={"fast": ModelSettings(cascade_model="nobody")})).start()


class Models:
    """A big and a cheap model whose scores agree as far as ``noise`` lets them; counts what the big one scored."""

    def __init__(self, documents: int, noise: float, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.big = random.normal(size=documents)
        self.cheap = self.big + noise * random.normal(size=documents)
        self.scored = 0

    async def rank(self, request: RerankRequest) -> RerankResult | ServiceError:
        numbers = [int(document) for document in request.documents]
        values = self.cheap if request.model == "cheap" else self.big
        self.scored += len(numbers) if request.model != "cheap" else 0
        scores = tuple(place(index, float(values[number])) for index, number in enumerate(numbers))
        return RerankResult("id", "big", scores, scores, 1)

    async def answer(self, confidence: float, top_n: int = 5) -> RerankResult:
        request = RerankRequest("q", tuple(map(str, range(len(self.big)))), top_n=top_n)
        result = await run(CascadeRule("cheap", confidence=confidence), request, self.rank)
        assert isinstance(result, RerankResult)
        return result


async def test_a_cheap_model_that_agrees_lets_the_big_one_stop_early() -> None:
    models = Models(500, noise=0.1)
    result = await models.answer(0.95)
    assert models.scored < 150
    assert [row.index for row in result.ranked] == np.argsort(-models.big)[:5].tolist()


async def test_a_cheap_model_that_foretells_nothing_makes_the_big_one_read_on() -> None:
    models = Models(300, noise=100.0)
    result = await models.answer(0.95)
    assert models.scored == 300
    assert result.cascade is not None
    assert result.cascade.confidence == 1.0


async def test_the_stated_confidence_is_kept() -> None:
    right = []
    for seed in range(60):
        models = Models(200, noise=0.4, seed=seed)
        result = await models.answer(0.9)
        right.append({row.index for row in result.ranked} == set(np.argsort(-models.big)[:5].tolist()))
    assert np.mean(right) >= 0.85


def test_a_request_says_how_deep_and_its_name_what_comes_first() -> None:
    own = CascadeRule("small", 50, 0.9)
    assert rule_for(own, PLAIN) == own
    assert rule_for(own, replace(PLAIN, cascade=Cascade(depth=7))) == CascadeRule("small", 7)
    assert rule_for(own, replace(PLAIN, cascade=Cascade("other", confidence=0.5))) == CascadeRule("other", 50, 0.5)
    with pytest.raises(InvalidRequest):
        rule_for(None, replace(PLAIN, cascade=Cascade()))


def test_a_request_without_scores_is_not_fused() -> None:
    assert FusionRule("zscore", 0.3).for_request(PLAIN) == NO_FUSION
