from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from rerankd.errors import Draining, InvalidDocument, TooLong
from rerankd.prompt.build import PromptBuilder, PromptLimits, RequestPrompts
from rerankd.prompt.tokenizer import SLICE_CHARACTERS, PromptTokenizer
from rerankd.prompt.workers import PromptWorkers
from rerankd.types import PairPrompt

LIMITS = PromptLimits(512)
LARGE = ["word " * 5_000, "short", "7" * 50_000, "文" * 40_000, *(["a sentence of some words"] * 200), ""]


@pytest.fixture
async def workers(small: PromptTokenizer) -> AsyncIterator[PromptWorkers]:
    workers = PromptWorkers(PromptBuilder(small), threads=2, at_once=0)
    yield workers
    workers.close()


async def test_a_request_in_slices_becomes_the_same_prompt_as_in_one_go(workers: PromptWorkers) -> None:
    sliced = prompts_of(await workers.build("query", LARGE, "why", LIMITS))
    whole = prompts_of(workers.builder.pairs("query", LARGE, "why", LIMITS))
    assert [pair.ids.tolist() for pair in sliced] == [pair.ids.tolist() for pair in whole]
    assert [pair.truncated for pair in sliced] == [pair.truncated for pair in whole]
    assert any(pair.truncated for pair in sliced)


async def test_errors_come_through_with_the_document_s_place_in_the_request(workers: PromptWorkers) -> None:
    limits = PromptLimits(512, truncate=False)
    documents = ["x" * SLICE_CHARACTERS, "short", "y" * SLICE_CHARACTERS]
    with pytest.raises(TooLong, match="document 12 makes"):
        await workers.build("query", documents, "why", limits, positions=[12, 20, 30])
    with pytest.raises(TooLong, match="document 30 makes"):
        await workers.build("query", ["short", documents[2]], "why", limits, positions=[20, 30])


class HeldPrompts(RequestPrompts):
    """Notes the order in which slices are built, and waits for leave before the first."""

    def __init__(self, builder: HeldBuilder, query: str, instruction: str, limits: PromptLimits) -> None:
        super().__init__(builder.tokenizer, query, instruction, limits)
        self._builder, self._query = builder, query

    def pairs(
        self, documents: Sequence[str], indices: Sequence[int], is_cancelled: Callable[[], bool] = lambda: False
    ) -> list[PairPrompt | InvalidDocument]:
        self._builder.leave.wait()
        self._builder.order.append(self._query)
        return super().pairs(documents, indices, is_cancelled)


class HeldBuilder(PromptBuilder):
    def __init__(self, tokenizer: PromptTokenizer) -> None:
        super().__init__(tokenizer)
        self.leave = threading.Event()
        self.order: list[str] = []

    def begin(self, query: str, instruction: str, limits: PromptLimits) -> RequestPrompts:
        return HeldPrompts(self, query, instruction, limits)


def prompts_of(pairs: Sequence[PairPrompt | InvalidDocument]) -> list[PairPrompt]:
    assert all(isinstance(pair, PairPrompt) for pair in pairs)
    return [pair for pair in pairs if isinstance(pair, PairPrompt)]


async def test_a_small_request_does_not_wait_for_all_of_a_huge_one(small: PromptTokenizer) -> None:
    builder = HeldBuilder(small)
    workers = PromptWorkers(builder, threads=1, at_once=0)
    huge = asyncio.create_task(workers.build("huge", ["x " * SLICE_CHARACTERS] * 5, "why", LIMITS))
    await asyncio.sleep(0.01)
    little = asyncio.create_task(workers.build("little", ["document"], "why", LIMITS))
    await asyncio.sleep(0.01)
    builder.leave.set()
    await asyncio.gather(huge, little)
    assert builder.order == ["huge", "little", *["huge"] * 4]
    workers.close()


async def test_what_a_client_that_left_still_had_waiting_is_never_tokenised(small: PromptTokenizer) -> None:
    builder = HeldBuilder(small)
    workers = PromptWorkers(builder, threads=1, at_once=0)
    running = asyncio.create_task(workers.build("stays", ["document"], "why", LIMITS))
    await asyncio.sleep(0.01)
    left = asyncio.create_task(workers.build("left", ["document"], "why", LIMITS))
    await asyncio.sleep(0.01)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    builder.leave.set()
    await running
    await workers.build("later", ["document"], "why", LIMITS)
    assert builder.order == ["stays", "later"]
    workers.close()


async def test_a_request_that_meets_closed_workers_hears_that_they_drain(small: PromptTokenizer) -> None:
    """A reload swaps the models while requests are on their way: they are to ask the new ones."""
    builder = HeldBuilder(small)
    workers = PromptWorkers(builder, threads=1, at_once=0)
    in_a_thread = asyncio.create_task(workers.build("begun", ["document"], "why", LIMITS))
    await asyncio.sleep(0.01)
    sliced = asyncio.create_task(workers.build("sliced", ["x " * SLICE_CHARACTERS] * 3, "why", LIMITS))
    await asyncio.sleep(0.01)
    workers.close()
    builder.leave.set()
    assert prompts_of(await in_a_thread)
    with pytest.raises(Draining):
        await sliced
    with pytest.raises(Draining):
        await workers.build("later", ["document"], "why", LIMITS)


@pytest.mark.promise("A6")
async def test_a_client_that_leaves_stops_the_thread_at_its_work(small: PromptTokenizer) -> None:
    """Every document has to be cut, which would take a minute in all."""
    workers = PromptWorkers(PromptBuilder(small), threads=1, at_once=0)
    documents = [f"a document {number}" for number in range(4000)]
    limits = PromptLimits(8192, max_tokens_per_document=1)
    left = asyncio.create_task(workers.build("query " * 1000, documents, "why", limits))
    await asyncio.sleep(0.05)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert prompts_of(await asyncio.wait_for(workers.build("q", ["next"], "why", LIMITS), 5))
    workers.close()


@pytest.mark.promise("G-11")
@pytest.mark.parametrize(
    "document",
    [
        pytest.param("7" * 100_000, id="digits", marks=pytest.mark.thorough),
        pytest.param(" " * 100_000, id="spaces"),
        pytest.param("😀" * 100_000, id="emoji", marks=pytest.mark.thorough),
        pytest.param("e\u0301" * 50_000, id="combining"),
        pytest.param("a word and another " * 5_000, id="english", marks=pytest.mark.thorough),
    ],
)
async def test_the_event_loop_stays_awake_while_the_largest_legal_document_is_tokenised(
    qwen3: PromptTokenizer, document: str
) -> None:
    """G-11: the loop is late by less than 50 ms more than by work that never holds the interpreter lock."""
    workers = PromptWorkers(PromptBuilder(qwen3), threads=1, at_once=0)
    excess = []
    for _ in range(3):
        started = time.monotonic()
        task = asyncio.create_task(workers.build("query", [document], "why", PromptLimits()))
        lag = await longest_lag(task)
        busy = asyncio.create_task(asyncio.to_thread(hash_for, time.monotonic() - started))
        excess.append(lag - await longest_lag(busy))
        assert max(pair.tokens for pair in prompts_of(await task)) <= 8192
        if excess[-1] < 0.05:
            break
    assert min(excess) < 0.05
    workers.close()


def hash_for(seconds: float) -> None:
    data = bytes(1_000_000)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.sha256(data)


async def longest_lag(task: asyncio.Task[Any]) -> float:
    """The seconds by which a sleep was late at worst while the task ran."""
    longest = 0.0
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        longest = max(longest, time.monotonic() - before)
    return longest
