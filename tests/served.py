"""A whole server inside the test's own event loop: real sockets outside, the engine in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from rerankd.engine.fake import FakeEngine
from rerankd.http.app import create_app
from rerankd.http.in_flight import InFlight
from rerankd.http.listener import Listener, open_socket
from rerankd.model_hub import resolve_checkpoint
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.service.models import LoadedModel
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings

POISON_WORD = " zyzzyva"
"""Scripts that name its ids let a document with this word go wrong."""


@functools.cache
def poison_ids() -> tuple[int, ...]:
    folder = resolve_checkpoint("tiny")
    tokenizer = PromptTokenizer(folder / "tokenizer.json", load_template(folder))
    return tuple(int(id) for id in next(tokenizer.encode([POISON_WORD])))


def poison_script(knob: str) -> str:
    return f"{knob}={'-'.join(map(str, poison_ids()))}"


@dataclass
class Served:
    """A served fake engine and everything that a test wants to look into."""

    url: str
    port: int
    service: RerankService
    in_flight: InFlight
    client: httpx.AsyncClient

    @property
    def model(self) -> LoadedModel:
        """The loaded model behind the default name."""
        assert self.service.models is not None
        return self.service.models.default.loaded

    @property
    def engine(self) -> FakeEngine:
        return fake_of(self.model)

    def metric(self, name: str, **labels: str) -> float:
        """A metric of the server, or else of the default model."""
        assert self.service.models is not None
        value = self.service.metrics.registry.get_sample_value
        own = value(name, {"model": self.service.models.default.name, **labels})
        return value(name, labels) or own or 0.0

    async def rerank(self, query: str, documents: list[str], **fields: Any) -> httpx.Response:
        return await self.client.post("/rerank", json={"query": query, "documents": documents, **fields})

    def connect(self) -> socket.socket:
        """A bare connection; the kernel accepts it, so that this does not block the loop."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def send_raw(self, query: str, documents: list[str]) -> socket.socket:
        """A request on a connection of its own whose answer nobody reads."""
        connection = self.connect()
        body = json.dumps({"query": query, "documents": documents}).encode()
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        return connection

    def nothing_is_left(self) -> bool:
        """No request, no token, no character, no pair, no handler."""
        admission, thread = self.model.admission, self.model.engine
        held = admission.requests.held or admission.tokens.held or admission.characters.held
        return not (held or thread.waiting or thread.has_work or len(self.in_flight))


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Served]:
    """A ready server with the fake engine, cache off unless asked for."""
    # Not configure_logs: it keeps loggers for good, and a later test could not read their lines.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    chosen = Settings(**{"engine": "fake", "cache": "off", "port": 0, **settings})
    service, in_flight = RerankService(chosen), InFlight()
    bound = open_socket(chosen.host, 0)
    port = bound.getsockname()[1]
    listener = Listener(create_app(chosen, service, in_flight), chosen, service.metrics)
    await listener.open(bound)
    await service.start()
    for model in service.models or ():
        fake_of(model.loaded).reset()
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        try:
            yield Served(url, port, service, in_flight, client)
        finally:
            _release(service)
            listener.close()
            await listener.wait_closed(1.0)
            await service.stop()
            structlog.reset_defaults()


def _release(service: RerankService) -> None:
    for model in service.models or ():
        fake_of(model.loaded).release()


def fake_of(model: LoadedModel) -> FakeEngine:
    engine = model.engine.engine
    assert isinstance(engine, FakeEngine)
    return engine


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.005)
