"""What the routes ask of the service behind them: one process's, or the front of a cluster's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rerankd.cache.base import ScoreCache
from rerankd.errors import ServiceError
from rerankd.observe.metrics import Metrics
from rerankd.service.experiments import Experiments
from rerankd.service.lifecycle import Lifecycle
from rerankd.service.models import ServedModels
from rerankd.service.offload import Offload
from rerankd.types import CallContext, RerankRequest, RerankResult


class Service(Protocol):
    """See :class:`~rerankd.service.runtime.RerankService`, whose members these are."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def lifecycle(self) -> Lifecycle: ...

    @property
    def offload(self) -> Offload: ...

    @property
    def cache(self) -> ScoreCache: ...

    @property
    def models(self) -> ServedModels | None: ...

    @property
    def experiments(self) -> Experiments: ...

    async def rerank(
        self, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]: ...

    async def reload(self, name: str | None = None) -> None: ...

    async def exposition(self) -> bytes: ...

    async def flush_cache(self) -> None: ...
