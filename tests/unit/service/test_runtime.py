"""rerankd.service: a request from text to ranked scores, on the fake engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rerankd.errors import ConfigurationError, InvalidRequest, NotFound, NotReady, TooLarge
from rerankd.service.lifecycle import State
from rerankd.service.runtime import RerankService
from rerankd.settings import ModelSettings, Settings
from rerankd.types import CallContext, RerankRequest, RerankResult


def context(*, use_cache: bool = True) -> CallContext:
    return CallContext(request_id="r", deadline=time.monotonic() + 10, use_cache=use_cache)


def request(*documents: str, model: str | None = None, top_n: int | None = None) -> RerankRequest:
    return RerankRequest("which one", documents or ("a", "b", "c"), model=model, top_n=top_n)


async def ask(service: RerankService, *requests: RerankRequest, use_cache: bool = True) -> list[RerankResult]:
    answers = await service.rerank(requests, context(use_cache=use_cache))
    assert all(isinstance(answer, RerankResult) for answer in answers)
    return [answer for answer in answers if isinstance(answer, RerankResult)]


@pytest.fixture
async def service() -> AsyncIterator[RerankService]:
    legal = ModelSettings(instruction="find the law", max_documents=2)
    made = RerankService(Settings(engine="fake", models={"legal": legal}))
    await made.start()
    yield made
    await made.stop()


async def test_a_service_that_has_not_started_says_not_ready() -> None:
    with pytest.raises(NotReady):
        await RerankService(Settings(engine="fake")).rerank([request()], context())


async def test_scores_are_in_input_order_and_ranked_from_the_best(service: RerankService) -> None:
    [result] = await ask(service, request("a", "b", "c", "d", top_n=2))
    assert [score.index for score in result.scores] == [0, 1, 2, 3]
    assert len(result.ranked) == 2
    best = sorted((score.score or 0.0 for score in result.scores), reverse=True)
    assert [row.score for row in result.ranked] == best[:2]


async def test_known_documents_cost_nothing_and_score_the_same(service: RerankService) -> None:
    [cold] = await ask(service, request("a", "b"))
    [warm] = await ask(service, request("b", "c", "a"))
    assert (cold.cached_documents, warm.cached_documents) == (0, 2)
    assert (warm.scores[2].logit, warm.scores[0].logit) == (cold.scores[0].logit, cold.scores[1].logit)
    [again] = await ask(service, request("a", "b"))
    assert again.prompt_tokens == cold.prompt_tokens


async def test_no_cache_skips_the_look_up(service: RerankService) -> None:
    await ask(service, request("a"))
    [result] = await ask(service, request("a"), use_cache=False)
    assert result.cached_documents == 0


async def test_a_flushed_cache_has_forgotten(service: RerankService) -> None:
    await ask(service, request("a"))
    await service.flush_cache()
    assert (await ask(service, request("a")))[0].cached_documents == 0


async def test_a_served_name_has_its_own_limits_and_shares_the_engine(service: RerankService) -> None:
    assert service.models is not None
    assert len(service.models.loaded) == 1
    [answer] = await ask(service, request("a", "b", model="legal"))
    assert answer.model == "legal"
    [refused] = await service.rerank([request("a", "b", "c", model="legal")], context())
    assert isinstance(refused, TooLarge)
    assert "the limit is 2 (max_documents)" in refused.message


async def test_a_foreign_model_name_is_served_by_the_default(service: RerankService) -> None:
    assert (await ask(service, request(model="rerank-v3.5")))[0].model == "tiny"


async def test_strict_mode_refuses_a_foreign_model_name() -> None:
    service = RerankService(Settings(engine="fake", strict_models=True))
    await service.start()
    [refused] = await service.rerank([request(model="rerank-v3.5")], context())
    assert isinstance(refused, NotFound)
    assert "tiny" in refused.message
    await service.stop()


async def test_one_wrong_request_of_a_call_leaves_the_others(service: RerankService) -> None:
    answers = await service.rerank([request("a"), RerankRequest(" ", ("a",)), request("b")], context())
    assert [type(answer) for answer in answers] == [RerankResult, InvalidRequest, RerankResult]


async def test_a_reload_under_way_answers_everybody(service: RerankService) -> None:
    async def many() -> None:
        for number in range(20):
            await ask(service, request(f"document {number}"))

    async with asyncio.TaskGroup() as group:
        group.create_task(many())
        group.create_task(service.reload())
        group.create_task(many())
    assert service.lifecycle.state is State.READY


async def test_a_failed_reload_keeps_the_old_model(service: RerankService, tmp_path: Path) -> None:
    [before] = await ask(service, request("a"), use_cache=False)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Other"]}))
    service.settings = Settings(engine="fake", model=str(tmp_path))
    with pytest.raises(ConfigurationError):
        await service.reload()
    [after] = await ask(service, request("a"), use_cache=False)
    assert before.scores == after.scores


async def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    service = RerankService(Settings(engine="fake", model=str(tmp_path / "nothing")))
    with pytest.raises(ConfigurationError) as caught:
        await service.start()
    assert "\n" not in caught.value.message
