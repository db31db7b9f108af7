"""A service without a model, for tests of the layers around it: it scores by the length of a document."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest

from rerankd.cache.base import NoCache
from rerankd.engine.base import EngineInfo
from rerankd.errors import ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.service.experiments import Experiments, no_experiments
from rerankd.service.lifecycle import Lifecycle, State
from rerankd.service.offload import Offload
from rerankd.service.ranking import document_score, rank
from rerankd.types import CallContext, RerankRequest, RerankResult

INFO = EngineInfo(
    engine="fake",
    device="cpu",
    dtype="float32",
    architecture="none",
    max_length=8192,
    parameters=0,
    max_batch_tokens=16_384,
)


class ServedNames(dict[str, Any]):
    """What the routes read of ``ServedModels``."""

    def __iter__(self) -> Any:
        return iter(self.values())

    @property
    def default(self) -> Any:
        return next(iter(self.values()))

    def find(self, name: str | None) -> Any:
        return self.get(name)


def served(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        instruction="Find the answer",
        max_pair_tokens=8192,
        calibration=None,
        sizes=SimpleNamespace(max_documents=1000),
        loaded=SimpleNamespace(
            source=SimpleNamespace(model="tiny"),
            fingerprint="0123456789abcdef",
            template=SimpleNamespace(name="qwen3-reranker", revision="abc", has_instruction=True),
            engine=SimpleNamespace(info=INFO, state="ready"),
        ),
    )


class StandInService:
    """The service contract of the HTTP layer; ``act`` runs before each answer and may wait or raise."""

    def __init__(self, act: Callable[[CallContext], Any] | None = None, *, ready: bool = True) -> None:
        self.metrics = Metrics()
        self.lifecycle = Lifecycle()
        self.offload = Offload()
        self.cache = NoCache()
        self.models: ServedNames | None = ServedNames(tiny=served("tiny"), other=served("other")) if ready else None
        self.act = act
        self.calls: list[tuple[Sequence[RerankRequest], CallContext]] = []
        self.cancelled = 0
        self.flushed = 0
        self.reloaded: list[str | None] = []
        self.reload_error: Exception | None = None
        if ready:
            self.lifecycle.move_to(State.READY)

    @property
    def experiments(self) -> Experiments:
        raise no_experiments()

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        self.lifecycle.check_accepting()
        self.calls.append((requests, context))
        try:
            if self.act is not None:
                outcome = self.act(context)
                if asyncio.iscoroutine(outcome):
                    await outcome
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [answer(request) for request in requests]

    async def reload(self, name: str | None = None) -> None:
        self.reloaded.append(name)
        if self.reload_error is not None:
            raise self.reload_error

    async def exposition(self) -> bytes:
        return generate_latest(self.metrics.registry)

    async def flush_cache(self) -> None:
        self.flushed += 1


def answer(request: RerankRequest) -> RerankResult:
    scores = tuple(document_score(index, len(text) / 100, 1.0, 0.0) for index, text in enumerate(request.documents))
    return RerankResult(
        id="result",
        model="tiny",
        scores=scores,
        ranked=rank(scores, request.top_n),
        prompt_tokens=sum(len(text) for text in request.documents),
    )
