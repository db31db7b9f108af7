"""What only an admin key may do: load models anew, all or one, look at the cached scores, forget them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from rerankd.errors import ConfigurationError, ServiceError
from rerankd.http.auth import ADMIN_PREFIX
from rerankd.http.route import MeasuredRoute

if TYPE_CHECKING:
    from rerankd.http.served import Service

_log = structlog.get_logger(__name__)


class AdminRoutes:
    """Actions on the running service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[MeasuredRoute]:
        actions = {
            "/reload": (self.reload, "Load the models anew"),
            "/reload/{name:path}": (self.reload, "Load the model of one served name anew"),
            "/cache/flush": (self.flush, "Forget the cached scores"),
        }
        routes = [
            MeasuredRoute(ADMIN_PREFIX + path, endpoint, methods=["POST"], tags=["administration"], summary=summary)
            for path, (endpoint, summary) in actions.items()
        ]
        summary = "What the score cache holds"
        return [*routes, MeasuredRoute(f"{ADMIN_PREFIX}/cache", self.stats, tags=["administration"], summary=summary)]

    async def reload(self, request: Request) -> Response:
        name = request.path_params.get("name")
        try:
            await self._service.reload(name)
        except ConfigurationError as error:
            # The reason may name folders of this machine, which are for its log.
            _log.error("the reload failed", model=name or "all", reason=error.message)
            raise ServiceError("the reload failed and the old models go on serving; the log says why") from error
        models = self._service.models
        names = [model.name for model in models or ()] if name is None else [name]
        return JSONResponse({"status": "reloaded", "models": names})

    async def stats(self, request: Request) -> Response:
        found, value = self._service.cache.describe(), self._service.metrics.registry.get_sample_value
        return JSONResponse(
            {
                "cache": found.kind,
                "entries": found.entries,
                "capacity": found.capacity,
                "reachable": found.reachable,
                "hits": int(value("reranker_cache_hits_total") or 0),
                "misses": int(value("reranker_cache_misses_total") or 0),
            }
        )

    async def flush(self, request: Request) -> Response:
        await self._service.flush_cache()
        return JSONResponse({"status": "flushed"})
