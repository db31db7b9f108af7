"""What operators and load balancers ask: is it alive, is it ready, what does it count."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

import rerankd
from rerankd.http.playground_routes import PAGE
from rerankd.http.route import MeasuredRoute
from rerankd.settings import Settings

if TYPE_CHECKING:
    from rerankd.http.served import Service


_TAGS: list[str | Enum] = ["operations"]
_NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "No"}}


class OpsRoutes:
    """The state of the server, in the forms that each asker reads."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self._service = service
        self._pages = {"docs": "/docs"} | ({"playground": PAGE} if settings.playground else {})

    def routes(self) -> list[MeasuredRoute]:
        probes = {
            "/": (self.about, "What this is"),
            "/health": (self.health, "State of the model"),
            "/livez": (self.livez, "Is the process worth keeping?"),
            "/readyz": (self.readyz, "May requests be sent here?"),
            "/ping": (self.readyz, "SageMaker's probe"),
            "/tei/health": (self.health, "State of the model"),
            "/weaviate/.well-known/ready": (self.readyz, "Weaviate's probe"),
        }
        routes = [MeasuredRoute("/metrics", self.metrics, tags=_TAGS, response_class=PlainTextResponse)]
        for path, (endpoint, summary) in probes.items():
            # What the root says does not depend on the state.
            responses = {} if path == "/" else _NOT_NOW
            routes.append(MeasuredRoute(path, endpoint, tags=_TAGS, summary=summary, responses=responses))
        return routes

    async def about(self, request: Request) -> Response:
        return JSONResponse(
            {
                "service": "rerankd",
                "version": rerankd.__version__,
                "status": "running",
                "state": self._service.lifecycle.state,
                **self._pages,
            }
        )

    async def health(self, request: Request) -> Response:
        lifecycle, models = self._service.lifecycle, self._service.models
        body: dict[str, Any] = {
            "status": "healthy" if lifecycle.is_ready else "unhealthy",
            "state": lifecycle.state,
            "model_loaded": models is not None,
            "reason": lifecycle.reason,
        }
        if models is not None:
            info = models.default.loaded.engine.info
            body |= {"model": models.default.name, "device": info.device, "engine": info.engine}
        return JSONResponse(body, 200 if lifecycle.is_ready else 503)

    async def livez(self, request: Request) -> Response:
        return self._verdict(self._service.lifecycle.is_alive)

    async def readyz(self, request: Request) -> Response:
        return self._verdict(self._service.lifecycle.is_ready)

    async def metrics(self, request: Request) -> Response:
        return Response(await self._service.exposition(), media_type=CONTENT_TYPE_LATEST)

    def _verdict(self, good: bool) -> Response:
        lifecycle = self._service.lifecycle
        return JSONResponse({"state": lifecycle.state, "reason": lifecycle.reason}, 200 if good else 503)
