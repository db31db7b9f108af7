"""rerankd.service: a request from text to ranked scores, on the fake engine."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.served import POISON_WORD, fake_of, poison_ids, until

from rerankd.engine.fake import FakeEngine, FakeScript
from rerankd.errors import (
    ConfigurationError,
    DeadlineExceeded,
    EngineDead,
    InvalidDocument,
    InvalidRequest,
    NotFound,
    NotReady,
    TooLarge,
)
from rerankd.service.lifecycle import State
from rerankd.service.models import LoadedModel
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


async def test_a_deadline_that_passes_ends_the_call_with_its_own_error(service: RerankService) -> None:
    engine = fake_engine_of(service)
    engine.hold()
    late = CallContext(request_id="r", deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded) as refused:
        await service.rerank([request("a")], late)
    assert refused.value.setting == "deadline_seconds"
    engine.release()


async def test_a_call_with_too_many_queries_is_refused_whole() -> None:
    service = RerankService(Settings(engine="fake", max_queries=2))
    await service.start()
    with pytest.raises(TooLarge, match="max_queries"):
        await service.rerank([request("a")] * 3, context())
    await service.stop()


def fake_engine_of(service: RerankService) -> FakeEngine:
    assert service.models is not None
    return fake_of(service.models.default.loaded)


@pytest.mark.promise("S6")
async def test_an_empty_instruction_is_the_default(service: RerankService) -> None:
    found = [RerankRequest("q", ("a",), instruction=given) for given in (None, "", "  ")]
    assert len({answer.scores for answer in await ask(service, *found, use_cache=False)}) == 1


@pytest.mark.promise("U12")
async def test_a_document_that_is_no_text_fails_alone(service: RerankService) -> None:
    [answer] = await ask(service, request("fine", "bad \udbff tail", "fine too"))
    assert [row.index for row in answer.errors] == [1]
    assert [type(row.error) for row in answer.errors] == [InvalidDocument]
    assert {row.index for row in answer.ranked} == {0, 2}


@pytest.mark.promise("S4")
async def test_a_served_name_may_read_more_than_the_server_s_own_limit() -> None:
    long = ModelSettings(max_pair_tokens=1024)
    for name in ("fake", "native"):
        service = RerankService(Settings(engine=name, threads=1, max_pair_tokens=256, models={"long": long}))
        await service.start()
        assert service.models is not None
        assert [model.max_pair_tokens for model in service.models] == [256, 1024]
        [own, longer] = await ask(service, *(request("word " * 900, model=model) for model in (None, "long")))
        assert (own.prompt_tokens <= 256, longer.prompt_tokens > 900) == (True, True)
        await service.stop()


@pytest.mark.promise("W3")
async def test_metrics_say_which_model(service: RerankService) -> None:
    other = ModelSettings(model="tiny", template="qwen3-reranker-chat")
    two = RerankService(Settings(engine="fake", models={"chat": other}))
    await two.start()
    await ask(two, request("a"), request("a", "b", model="chat"))
    value = two.metrics.registry.get_sample_value
    for name in ("reranker_engine_seconds_count", "reranker_batch_pairs_count"):
        assert [value(name, {"model": model}) for model in ("tiny", "chat")] == [1, 1]
    await two.stop()


async def test_equal_documents_of_a_request_are_tokenised_and_scored_once(service: RerankService) -> None:
    engine = fake_engine_of(service)
    engine.reset()
    [answer] = await ask(service, request("a", "b", "a", "a"))
    assert engine.pairs == 2
    assert len(answer.scores) == 4
    assert len({row.logit for row in answer.scores}) == 2
    [again] = await ask(service, request("a", "a", "c"))
    assert again.cached_documents == 2


@pytest.mark.promise("A5")
@pytest.mark.promise("A8")
async def test_many_equal_documents_cost_what_they_cost_in_bytes(service: RerankService) -> None:
    """64 queries of 7,900 characters with a thousand documents each: every pair once, every prefix once a query."""
    engine = fake_engine_of(service)
    engine.reset()
    batches = engine.record()
    asked = [RerankRequest(f"{number} " + "7" * 7_900, ("a",) * 1000) for number in range(64)]
    answers = await ask(service, *asked)
    assert engine.pairs == 64
    assert sum(batch.tokens for batch in batches) < 64 * 8_300
    assert all(len(answer.scores) == 1000 for answer in answers)


@pytest.mark.promise("A8")
async def test_the_event_loop_is_never_held_up_by_a_large_call(service: RerankService) -> None:
    """What is done between two looks at the loop does not grow with the call."""

    async def longest_step(calls: int) -> float:
        task = asyncio.create_task(ask(service, *[request(*(str(n) for n in range(900)))] * calls))
        longest = 0.0
        while not task.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
        await task
        return longest

    gc.disable()  # a test process holds more objects than a server; looking at all of them takes its time
    try:
        await longest_step(1)
        small = min([await longest_step(2) for _ in range(3)])
        assert min([await longest_step(64) for _ in range(3)]) < 4 * small + 0.01
    finally:
        gc.enable()


@pytest.mark.promise("S9")
async def test_an_old_engine_that_hangs_does_not_end_the_server_that_replaced_it() -> None:
    script = "hang_on=" + "-".join(map(str, poison_ids()))
    service = RerankService(Settings(engine="fake", cache="off", fake_script=script, engine_timeout_seconds=4.0))
    await service.start()
    old = fake_engine_of(service)
    hung = asyncio.create_task(ask(service, request(POISON_WORD)))
    await until(lambda: old.passes > 1)
    service.settings = Settings(engine="fake", cache="off")
    await service.reload()
    assert (await hung)[0].scores[0].score is not None
    assert service.lifecycle.state is State.READY
    await service.stop()


@pytest.mark.promise("P3")
async def test_a_reload_to_scores_that_are_no_numbers_keeps_the_old_model(service: RerankService) -> None:
    service.settings = Settings(engine="fake", fake_script="nan_on=2-3")
    with pytest.raises(ConfigurationError, match="not numbers"):
        await service.reload()
    assert (await ask(service, request("a")))[0].scores[0].score is not None


@pytest.fixture
async def two() -> AsyncIterator[RerankService]:
    """Two loaded models of one checkpoint, each with its own budget."""
    small = ModelSettings(max_batch_tokens=600, queue_requests=3, prefix_cache_tokens=0)
    made = RerankService(Settings(engine="fake", cache="off", models={"small": small}))
    await made.start()
    yield made
    await made.stop()


def loaded_of(service: RerankService, name: str) -> LoadedModel:
    assert service.models is not None
    return service.models.by_name[name].loaded


async def test_a_name_with_a_budget_of_its_own_has_a_model_of_its_own(two: RerankService) -> None:
    tiny, small = loaded_of(two, "tiny"), loaded_of(two, "small")
    assert tiny is not small
    assert small.engine.info.max_batch_tokens == 600
    assert small.admission.requests.limit == 3
    assert (tiny.admission.requests.limit, tiny.source.budget.prefix_cache_tokens) == (512, 512)
    assert small.source.budget.prefix_cache_tokens == 0


async def test_one_model_is_loaded_anew_and_the_other_serves_all_the_while(two: RerankService) -> None:
    before = {name: loaded_of(two, name) for name in ("tiny", "small")}
    reloaded = asyncio.Event()

    async def go_on() -> int:
        answered = 0
        while not reloaded.is_set():
            await ask(two, request(f"document {answered}"))
            await ask(two, request(f"document {answered}", model="small"))
            answered += 1
        return answered

    asking = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    await two.reload("small")
    reloaded.set()
    assert await asking > 0
    assert loaded_of(two, "tiny") is before["tiny"]
    assert loaded_of(two, "small") is not before["small"]
    with pytest.raises(NotFound):
        await two.reload("large")


async def test_a_model_that_fails_to_load_anew_touches_no_other(two: RerankService) -> None:
    before = {name: loaded_of(two, name) for name in ("tiny", "small")}
    wrong = ModelSettings(model="/no/such/folder", max_batch_tokens=600)
    two.settings = Settings(engine="fake", cache="off", models={"small": wrong})
    with pytest.raises(ConfigurationError):
        await two.reload("small")
    assert {name: loaded_of(two, name) for name in before} == before
    await ask(two, request("a"))
    await ask(two, request("a", model="small"))


@pytest.mark.promise("P3")
async def test_a_reload_of_all_swaps_all_or_none(two: RerankService) -> None:
    """The first loads, the second does not: the first is not served either."""
    before = {name: loaded_of(two, name) for name in ("tiny", "small")}
    wrong = ModelSettings(model="/no/such/folder", max_batch_tokens=600)
    good = two.settings
    two.settings = Settings(engine="fake", cache="off", models={"small": wrong})
    with pytest.raises(ConfigurationError):
        await two.reload()
    assert {name: loaded_of(two, name) for name in before} == before
    two.settings = good
    await two.reload()
    assert all(loaded_of(two, name) is not model for name, model in before.items())
    await ask(two, request("a"))
    await ask(two, request("a", model="small"))


async def test_the_death_of_one_engine_is_not_that_of_the_server(two: RerankService) -> None:
    fake_of(loaded_of(two, "small")).script = FakeScript(die_on=poison_ids())
    with pytest.raises(EngineDead):
        await ask(two, request("a" + POISON_WORD, model="small"))
    assert two.lifecycle.state is State.DEGRADED
    assert "the engine of small is gone" in two.lifecycle.reason
    await ask(two, request("a"))
    with pytest.raises(EngineDead):
        await two.rerank([request("b", model="small")], context())
    await two.reload("small")
    assert two.lifecycle.state is State.READY
    await ask(two, request("b", model="small"))
