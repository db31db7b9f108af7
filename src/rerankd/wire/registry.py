"""The routes: which dialects live at which path, and how a body is told apart where several do.

What the HTTP layer does with a route:

    for route in ROUTES:                      # register route.path for POST; slashes behind it are gone by then
        dialect = route.dialects[0]           # renders an error met before the body was read (401, 413, bad JSON)
        dialect = route.choose(body)          # after decode_json; raises InvalidRequest, shown by dialects[0]
        call = dialect.parse(route.with_path(body, path_parameters), limits)
        answer = dialect.render(call, results)            # may raise the error of a document or request
        answer = dialect.render_error(error, request_id)  # any ServiceError, in the dialect's shape and status

``openapi.describe(route)`` gives the OpenAPI text of a route: request and response schemas, examples, errors.
``not_found(path)`` is the error for an unknown path; the root dialect ``NATIVE`` renders it.

A mount (``/cohere/...``) pins the shape, for clients whose body cannot be told apart. The GET routes that
clients need belong to the HTTP layer; ``MOUNTED_GETS`` says under which mounts they are asked for too:

* ``GET /v1/models`` and ``/v1/models/{name}``: OpenAI's list and card; Xinference's and Dify's clients need
  ``"model_type": "rerank"`` in the card before they send anything, NVIDIA's need ``data[].id`` in the list.
* ``GET /v1/cluster/auth``: ``{"auth": true}`` where a key is needed; clients send theirs only then.
* ``GET /info``: Text-embeddings-inference's; Dify reads the first key of ``model_type``, which is ``reranker``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rerankd.errors import InvalidRequest, NotFound
from rerankd.wire.base import Dialect, Json
from rerankd.wire.cohere import CohereV1, CohereV2
from rerankd.wire.dashscope import DashScope, DashScopeCompatible
from rerankd.wire.decisions import Decisions
from rerankd.wire.deepinfra import DeepInfra
from rerankd.wire.elasticsearch import Elasticsearch
from rerankd.wire.infinity import Infinity
from rerankd.wire.isaacus import Isaacus
from rerankd.wire.jina import Jina
from rerankd.wire.librechat import LibreChat
from rerankd.wire.llamacpp import LlamaCpp
from rerankd.wire.mixedbread import Mixedbread
from rerankd.wire.native import Native, NativeBatch
from rerankd.wire.nvidia import Nvidia
from rerankd.wire.pinecone import Pinecone
from rerankd.wire.sglang import SGLang
from rerankd.wire.siliconflow import SiliconFlow
from rerankd.wire.superset import Superset
from rerankd.wire.systemone import SystemOne
from rerankd.wire.tei import TEI, TEIPredict
from rerankd.wire.vllm import VLLM, VLLMScore
from rerankd.wire.voyage import Voyage
from rerankd.wire.weaviate import Weaviate
from rerankd.wire.xinference import Xinference
from rerankd.wire.zeroentropy import ZeroEntropy

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

        Null is not given, unless nothing else tells.

        Raises:
            InvalidRequest: the body fits more than one; both are named.
        """
        if len(self.dialects) == 1 or not isinstance(body, dict):
            return self.dialects[0]
        fitting = self._fitting({key for key, value in body.items() if value is not None}) or self._fitting(set(body))
        if len(fitting) > 1:
            both = " and ".join(f"{dialect.title} (`{_given(dialect, body)}`)" for dialect in fitting)
            raise InvalidRequest(f"the body fits both {both}: send the keys of one, or use the path of its mount")
        return fitting[0] if fitting else self.dialects[0]

    def _fitting(self, keys: set[str]) -> list[Dialect]:
        return [dialect for dialect in self.dialects if not keys.isdisjoint(dialect.keys)]

    def with_path(self, body: Json, parameters: Mapping[str, str]) -> Json:
        """The body with the model that the path names, where it names none itself.

        A name may hold slashes: ``Qwen/Qwen3-Reranker-0.6B``.
        """
        if not parameters or not isinstance(body, dict) or body.get("model") not in (None, ""):
            return body
        return {**body, **parameters}


def _given(dialect: Dialect, body: Mapping[str, Json]) -> str:
    return next(key for key in dialect.keys if body.get(key) is not None)


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
        "/weaviate/.well-known/ready": "/readyz",
        "/weaviate/meta": "/info",
        "/xinference/v1/cluster/auth": "/v1/cluster/auth",
        "/xinference/v1/models/{name:path}": "/v1/models/{name:path}",
    }
)
"""GET path under a mount -> the root path that answers it."""

_SUPERSET = Superset()
_TEI = TEI()
_TEI_PREDICT = TEIPredict()
_VLLM = VLLM()
_VLLM_SCORE = VLLMScore()
_LLAMA_CPP = LlamaCpp()
_MIXEDBREAD = Mixedbread()
_NVIDIA = Nvidia()
_DASHSCOPE = DashScope()
_DASHSCOPE_COMPATIBLE = DashScopeCompatible()
_DEEPINFRA = DeepInfra()
_COHERE_V2 = CohereV2()
_DECISIONS = Decisions()
_ELASTICSEARCH = Elasticsearch()
_LIBRECHAT = LibreChat()
_ZEROENTROPY = ZeroEntropy()
_TEXT_RERANK = "/services/rerank/text-rerank/text-rerank"

_ROOT: Mapping[str, tuple[Dialect, ...]] = {
    "/rerank": (NATIVE, _TEI),
    "/batch_rerank": (NativeBatch(),),
    "/v1/rerank": (_SUPERSET, _TEI, _LIBRECHAT),
    # What KServe, OpenVINO Model Server, Docker Model Runner and OpenRouter put before the same path.
    **dict.fromkeys(
        ("/api/rerank", "/openai/v1/rerank", "/v3/rerank", "/engines/v1/rerank", "/engines/rerank", "/api/v1/rerank"),
        (_SUPERSET,),
    ),
    "/v2/rerank": (_COHERE_V2,),
    "/providers/cohere/v2/rerank": (_COHERE_V2,),
    "/v1/rerankings": (Isaacus(),),
    "/models/rerank": (_ZEROENTROPY,),
    "/v1/models/rerank": (_ZEROENTROPY,),
    "/v1/systemone": (SystemOne(),),
    "/v1/decisions": (_DECISIONS,),
    "/score": (_VLLM_SCORE,),
    "/v1/score": (_VLLM_SCORE,),
    "/": (_TEI,),
    "/invocations": (_TEI,),
    "/predict": (_TEI_PREDICT,),
    "/api/v1/reranking": (_LLAMA_CPP,),
    "/reranking": (_LLAMA_CPP, _TEI, _NVIDIA),
    "/v1/reranking": (_MIXEDBREAD, _LLAMA_CPP, _TEI, _NVIDIA),
    "/ranking": (_NVIDIA,),
    "/v1/ranking": (_NVIDIA,),
    "/v1/retrieval/{model}/reranking": (_NVIDIA,),
    "/reranks": (_DASHSCOPE_COMPATIBLE,),
    "/v1/reranks": (_DASHSCOPE_COMPATIBLE,),
    "/compatible-api/v1/reranks": (_DASHSCOPE_COMPATIBLE,),
    f"/api/v1{_TEXT_RERANK}": (_DASHSCOPE,),
    "/inference/{model}": (_DEEPINFRA,),
}
"""Paths without a mount: keys decide where several dialects live."""

_MOUNTS: Mapping[str, Mapping[str, Dialect | tuple[Dialect, ...]]] = {
    "cohere": {"/v1/rerank": CohereV1(), "/v2/rerank": _COHERE_V2},
    "jina": {"/rerank": Jina(), "/v1/rerank": Jina()},
    "voyage": {"/rerank": Voyage(), "/v1/rerank": Voyage()},
    "vllm": {
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), _VLLM),
        **dict.fromkeys(("/score", "/v1/score"), _VLLM_SCORE),
    },
    "tei": {
        **dict.fromkeys(("/", "/rerank"), (_TEI, _ELASTICSEARCH)),
        "/invocations": _TEI,
        "/predict": _TEI_PREDICT,
    },
    "infinity": {"/rerank": Infinity(), "/v1/rerank": Infinity()},
    "xinference": {"/v1/rerank": Xinference()},
    "siliconflow": {"/rerank": SiliconFlow(), "/v1/rerank": SiliconFlow()},
    "dashscope": {
        f"/api/v1{_TEXT_RERANK}": _DASHSCOPE,
        "/compatible-api/v1/reranks": _DASHSCOPE_COMPATIBLE,
        "/reranks": _DASHSCOPE_COMPATIBLE,
    },
    "mixedbread": {"/v1/reranking": _MIXEDBREAD},
    "nvidia": {"/ranking": _NVIDIA, "/v1/ranking": _NVIDIA, "/reranking": _NVIDIA},
    "llamacpp": dict.fromkeys(("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"), _LLAMA_CPP),
    "pinecone": {"/rerank": Pinecone()},
    "weaviate": {"/rerank": Weaviate()},
    "sglang": {"/v1/rerank": SGLang()},
    "deepinfra": {"/inference/{model}": _DEEPINFRA},
}
"""Paths under a mount: one dialect each, whatever the keys; two where their keys are never the same."""

ROUTES: tuple[Route, ...] = (
    *(Route(path, dialects, "rerank") for path, dialects in _ROOT.items()),
    *(
        Route(f"/{mount}{path}".rstrip("/"), dialect if isinstance(dialect, tuple) else (dialect,), mount)
        for mount, paths in _MOUNTS.items()
        for path, dialect in paths.items()
    ),
)
