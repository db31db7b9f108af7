"""The routes: which dialects live at which path, and how a body is told apart where several do.

What the HTTP layer does with a route:

    for route in ROUTES:                      # register route.path and route.path + "/" for POST
        dialect = route.dialects[0]           # renders an error met before the body was read (401, 413, bad JSON)
        dialect = route.choose(body)          # after decode_json; raises InvalidRequest, shown by dialects[0]
        call = dialect.parse(route.with_path(body, path_parameters))
        answer = dialect.render(call, results)            # may raise the error of a document or request
        answer = dialect.render_error(error, request_id)  # any ServiceError, in the dialect's shape and status

``openapi.describe(route)`` gives the OpenAPI text of a route: request and response schemas, examples, errors.
``not_found()`` is the error for an unknown path; the root dialect ``NATIVE`` renders it.

A mount (``/cohere/...``) pins the shape, for clients whose body cannot be told apart. The GET routes that
clients need belong to the HTTP layer; ``MOUNTED_GETS`` says under which mounts they are asked for too:

* ``GET /v1/models`` and ``/v1/models/{name}``: OpenAI's list and card; Xinference's and Dify's clients need
  ``"model_type": "rerank"`` in the card before they send anything, NVIDIA's need ``data[].id`` in the list.
* ``GET /v1/cluster/auth``: ``{"auth": false}`` (a 404 is tolerated).
* ``GET /info``: Text-embeddings-inference's; Dify reads the first key of ``model_type``, which is ``reranker``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rerankd.errors import InvalidRequest, NotFound
from rerankd.wire.base import Dialect, Json
from rerankd.wire.native import Native, NativeBatch

NATIVE = Native()


@dataclass(frozen=True, slots=True)
class Route:
    """One POST path and the dialects that may live there, the likeliest first."""

    path: str
    dialects: tuple[Dialect, ...]
    tag: str

    @property
    def summary(self) -> str:
        return " or ".join(dialect.title for dialect in self.dialects)

    def choose(self, body: Json) -> Dialect:
        """The dialect that the keys of ``body`` give away, else the likeliest, which then names what is missing.

        Raises:
            InvalidRequest: the body fits more than one; both are named.
        """
        if len(self.dialects) == 1 or not isinstance(body, dict):
            return self.dialects[0]
        fitting = [dialect for dialect in self.dialects if any(key in body for key in dialect.keys)]
        if len(fitting) > 1:
            both = " and ".join(f"{dialect.title} (`{_given(dialect, body)}`)" for dialect in fitting)
            raise InvalidRequest(f"the body fits both {both}: send the keys of one, or use the path of its mount")
        return fitting[0] if fitting else self.dialects[0]

    def with_path(self, body: Json, parameters: Mapping[str, str]) -> Json:
        """The body with the parameters of the path, such as ``model``, where it lacks them."""
        return {**parameters, **body} if parameters and isinstance(body, dict) else body


def _given(dialect: Dialect, body: Mapping[str, Json]) -> str:
    return next(key for key in dialect.keys if key in body)


def not_found(path: str) -> NotFound:
    """The error for an unknown path: it names the nearest path and the main ones, and never repeats the path."""
    near = difflib.get_close_matches(path[:200].rstrip("/"), [route.path for route in ROUTES], n=1)
    hint = f"did you mean POST {near[0]}? " if near else ""
    return NotFound(f"there is no such path; {hint}rerank at {', '.join(MAIN_PATHS)}; all paths are at /docs")


MAIN_PATHS = ("POST /rerank", "/v1/rerank", "/v2/rerank", "/score", "/batch_rerank")

MOUNTED_GETS: Mapping[str, str] = MappingProxyType(
    {
        "/tei/info": "/info",
        "/tei/health": "/health",
        "/infinity/models": "/v1/models",
        "/nvidia/v1/models": "/v1/models",
        "/vllm/v1/models": "/v1/models",
        "/xinference/v1/cluster/auth": "/v1/cluster/auth",
        "/xinference/v1/models/{name}": "/v1/models/{name}",
    }
)
"""GET path under a mount -> the root path that answers it."""

ROUTES: tuple[Route, ...] = (
    Route("/rerank", (NATIVE,), "rerankd"),
    Route("/batch_rerank", (NativeBatch(),), "rerankd"),
)
