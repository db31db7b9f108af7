"""Which models are served, in the forms of OpenAI, Xinference and text-embeddings-inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

import rerankd
from rerankd.errors import NotFound, NotReady
from rerankd.http.route import MeasuredRoute
from rerankd.settings import Settings
from rerankd.wire.registry import MOUNTED_GETS

if TYPE_CHECKING:
    from rerankd.http.served import Service
    from rerankd.service.models import ServedModel, ServedModels


class ModelRoutes:
    """Served names, and what stands behind them."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service

    def routes(self) -> list[MeasuredRoute]:
        endpoints = {
            "/info": (self.info, "The default model and the limits"),
            "/v1/models": (self.list_models, "Served names"),
            "/v1/models/{name:path}": (self.show_model, "One served name"),
            "/v1/cluster/auth": (self.cluster_auth, "Xinference's handshake"),
        }
        mounted = {path: endpoints[root] for path, root in MOUNTED_GETS.items() if root in endpoints}
        return [
            MeasuredRoute(path, endpoint, tags=["models"], summary=summary)
            for path, (endpoint, summary) in (endpoints | mounted).items()
        ]

    async def info(self, request: Request) -> Response:
        """Text-embeddings-inference's keys first, which clients read; then ours."""
        models = self._models()
        model = models.default
        engine = model.loaded.engine.info
        settings = self._settings
        template = model.loaded.template
        return JSONResponse(
            {
                "model_id": public_name(model.loaded.source.model),
                "model_sha": model.loaded.fingerprint,
                "model_dtype": engine.dtype,
                "served_model_name": model.name,
                "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
                "max_concurrent_requests": settings.queue_requests,
                "max_input_length": model.max_pair_tokens,
                "max_batch_tokens": engine.max_batch_tokens,
                "max_batch_requests": None,
                "max_client_batch_size": model.sizes.max_documents,
                "auto_truncate": True,
                "tokenization_workers": settings.tokenizer_threads,
                "version": rerankd.__version__,
                "sha": None,
                "docker_label": None,
                "limits": self._limits(),
                "state": self._service.lifecycle.state,
                "engine": engine.engine,
                "device": engine.device,
                "kernels": engine.kernels,
                "engine_details": engine.details,
                "architecture": engine.architecture,
                "parameters": engine.parameters,
                "template": {"name": template.name, "revision": template.revision},
                "models": [_card(other) for other in models],
            }
        )

    def _limits(self) -> dict[str, int]:
        """What a request may have, by the settings' names; ``max_documents`` is each model's own, in its card."""
        settings = self._settings
        return {
            "max_queries": min(settings.max_queries, settings.queue_requests),
            "max_document_characters": settings.max_document_characters,
            "max_query_characters": settings.max_query_characters,
            "max_request_characters": settings.max_request_characters,
            "max_body_bytes": settings.max_body_bytes,
        }

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._openai_card(model) for model in self._models()]})

    async def show_model(self, request: Request) -> Response:
        model = self._models().find(request.path_params["name"])
        if model is None:
            raise NotFound("no model of that name is served here; GET /v1/models lists the names", param="name")
        return JSONResponse(self._openai_card(model))

    async def cluster_auth(self, request: Request) -> Response:
        # Its clients send the key that they were given only to a server that says so.
        return JSONResponse({"auth": bool(self._settings.api_keys.strip() or self._settings.api_keys_file)})

    def _models(self) -> ServedModels:
        if self._service.models is None:
            raise NotReady("the model is still loading", retry_after=2)
        return self._service.models

    def _openai_card(self, model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": int(self._service.lifecycle.started_at),
            "owned_by": "rerankd",
            "model_type": "rerank",
            "model_name": model.name,
            "max_model_len": model.max_pair_tokens,
            "reads_instruction": model.loaded.template.has_instruction,
            "calibration": _calibration(model),
        }


def public_name(model: str) -> str:
    """A model's name for clients; of a folder the last part, for where it lies is the server's own business."""
    is_folder = model.startswith((".", "/", "~")) or Path(model).is_absolute() or "\\" in model
    return Path(model).name if is_folder else model


def _calibration(model: ServedModel) -> str | None:
    """How its scores are calibrated, if they are."""
    return model.calibration.method if model.calibration else None


def _card(model: ServedModel) -> dict[str, Any]:
    engine = model.loaded.engine.info
    return {
        "name": model.name,
        "model": public_name(model.loaded.source.model),
        "fingerprint": model.loaded.fingerprint,
        "template": model.loaded.template.revision,
        "instruction": model.instruction,
        "reads_instruction": model.loaded.template.has_instruction,
        "calibration": _calibration(model),
        "max_pair_tokens": model.max_pair_tokens,
        "max_documents": model.sizes.max_documents,
        "engine": engine.engine,
        "device": engine.device,
        "dtype": engine.dtype,
        "parameters": engine.parameters,
        "max_batch_tokens": engine.max_batch_tokens,
        "state": model.loaded.engine.state,
    }
