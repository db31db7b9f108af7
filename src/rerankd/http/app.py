"""The ASGI application: which layers a call goes through, and which routes there are.

Access          state, request id, path, log line, metrics
CORS            only for the origins that the settings list
ErrorHandler    whatever is raised inside -> a response
Authentication  no foreign name in Host, the key, and who calls
RerankCalls     POST to a path of the wire's table; answered here
FastAPI router  the rest: probes, models, administration, documentation
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

import rerankd
from rerankd.http.access import Access
from rerankd.http.admin_routes import AdminRoutes
from rerankd.http.auth import Authentication, KeyRing
from rerankd.http.docs_routes import docs_routes
from rerankd.http.error_handler import ErrorHandler
from rerankd.http.experiment_routes import ExperimentRoutes
from rerankd.http.forwarded import TrustedProxies
from rerankd.http.hosts import AllowedHosts
from rerankd.http.in_flight import InFlight
from rerankd.http.instruction_routes import instruction_routes
from rerankd.http.model_routes import ModelRoutes
from rerankd.http.openapi import document
from rerankd.http.ops_routes import OpsRoutes
from rerankd.http.playground_routes import playground_routes
from rerankd.http.rerank_routes import RerankCalls
from rerankd.http.route import MeasuredRoute
from rerankd.http.route_table import RouteTable
from rerankd.observe.tracing import Tracer
from rerankd.service.instructions import Instructions
from rerankd.settings import Settings
from rerankd.wire.registry import ROUTES

if TYPE_CHECKING:
    from rerankd.http.served import Service

_EXPOSED = (
    "X-Request-Id",
    "X-Warnings",
    "X-Experiment",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)


class Application(FastAPI):
    """FastAPI's router and OpenAPI document within layers of our own.

    Its own layers serve injected parameters, handlers of exceptions and telemetry. There are none here, and every
    rerank call would pay for all of them.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Starlette.__call__(self, scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app


def create_app(
    settings: Settings, service: Service, in_flight: InFlight | None = None, tracer: Tracer | None = None
) -> FastAPI:
    """The application over a service, started or not.

    Args:
        in_flight: where the handlers at work are kept, for a server that drains; None makes one.
        tracer: is told of every request; None traces nothing.

    Raises:
        ConfigurationError: the API keys cannot be read.
    """
    app = Application(
        title="rerankd",
        version=rerankd.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    table = RouteTable(ROUTES)
    app.router.routes += [
        *OpsRoutes(settings, service).routes(),
        *ModelRoutes(settings, service).routes(),
        *instruction_routes(Instructions.of(settings.instructions_folder)),
        *AdminRoutes(service).routes(),
        *ExperimentRoutes(settings, service).routes(),
        *docs_routes(),
        *(playground_routes() if settings.playground else ()),
        _openapi_route(app, settings),
    ]
    # The last one added is the outermost.
    in_flight = InFlight() if in_flight is None else in_flight
    app.add_middleware(RerankCalls, table=table, settings=settings, service=service, in_flight=in_flight)
    keys = KeyRing(settings)
    hosts = AllowedHosts(settings, needs_key=keys.is_required)
    proxies = TrustedProxies(_listed(settings.trusted_proxies))
    app.add_middleware(Authentication, hosts=hosts, keys=keys, trusted_proxies=proxies)
    app.add_middleware(ErrorHandler, table=table, max_body_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        _add_cors(app, settings.cors_origins)
    app.add_middleware(
        Access, metrics=service.metrics, lifecycle=service.lifecycle, root_path=settings.root_path, tracer=tracer
    )
    return app


def _openapi_route(app: FastAPI, settings: Settings) -> MeasuredRoute:
    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = document(app, ROUTES, settings.root_path)
        return app.openapi_schema

    async def show(request: Request) -> Response:
        return JSONResponse(openapi())

    app.openapi = openapi  # type: ignore[method-assign]
    return MeasuredRoute("/openapi.json", show, include_in_schema=False)


def _listed(setting: str) -> list[str]:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in setting.split(",") if part.strip()]


def _add_cors(app: FastAPI, origins: str) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=_listed(origins),
        allow_methods=["GET", "HEAD", "POST"],
        # A page of a listed origin may send what it likes: every SDK has headers of its own.
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )
