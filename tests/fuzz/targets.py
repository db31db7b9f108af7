"""What the fuzzer runs: bytes in, nothing out; whatever is raised is a fault of ours.

Each target takes any bytes, refuses what it must with an error of its own, and is done within a second.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.checkpoints import write_small_reranker
from tests.contract.answers import SCORES, answer_to
from tests.live import ROOT

from rerankd.checkpoint import Checkpoint
from rerankd.errors import RerankdError, ServiceError
from rerankd.http.app import create_app
from rerankd.http.in_flight import InFlight
from rerankd.http.listener import Listener
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings, load_settings
from rerankd.wire.base import ReadLimits
from rerankd.wire.json_guard import decode_json
from rerankd.wire.registry import ROUTES

Target = Callable[[bytes], None]

MAX_SECONDS = 1.0
MAX_DEPTH = 32


class TooSlow(AssertionError):
    """An input took longer than any may."""


def within_a_second(target: Target) -> Target:
    """The processor time of this thread: what else the machine does says nothing of us."""

    @functools.wraps(target)
    def timed(data: bytes) -> None:
        started = time.thread_time()
        target(data)
        if (seconds := time.thread_time() - started) > MAX_SECONDS:
            raise TooSlow(f"{len(data)} bytes took {seconds:.1f} s")

    return timed


@within_a_second
def body(data: bytes) -> None:
    """Bytes of a body through the strict JSON reader."""
    with contextlib.suppress(ServiceError):
        json.dumps(decode_json(data, MAX_DEPTH).value, allow_nan=False)


@within_a_second
def dialect(data: bytes) -> None:
    """A body at the route that the first byte names: parsed, scored by a stand-in and rendered; or refused."""
    if not data:
        return
    route = ROUTES[data[0] % len(ROUTES)]
    spoken = route.dialects[0]
    try:
        value = decode_json(data[1:], MAX_DEPTH).value
        spoken = route.choose(value)
        call = spoken.parse(route.with_path(value, {}), ReadLimits())
    except ServiceError as error:
        answer = spoken.render_error(error, "id")
        assert answer.status < 500
        assert len(json.dumps(answer.body)) < 8192
        return
    if all(0 < len(request.documents) <= len(SCORES) for request in call.requests):
        json.dumps(spoken.render(call, [answer_to(request) for request in call.requests]).body, allow_nan=False)


@within_a_second
def settings(data: bytes) -> None:
    """A settings file, and the same text as the environment: `NAME=VALUE` lines."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rerankd.toml"
        file.write_bytes(data)
        with contextlib.suppress(RerankdError):
            load_settings(file=file, flags={})
        environment = dict(_assignments(data))
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            with contextlib.suppress(RerankdError):
                load_settings(flags={})
        finally:
            os.environ.clear()
            os.environ.update(before)


def _assignments(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").split("\n"):
        name, found, value = line.partition("=")
        name = name.strip()
        if found and name and name.isascii() and name.isprintable() and "\0" not in line:
            yield f"RERANKD_{name.upper()}", value.encode("utf-8", "replace").decode()


_FILES = ("config.json", "template.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json")


@functools.cache
def _small_checkpoint() -> Path:
    """A checkpoint that loads, of a few kilobytes."""
    return write_small_reranker(Path(tempfile.mkdtemp(prefix="rerankd-fuzz-")))


@within_a_second
def checkpoint(data: bytes) -> None:
    """A model folder one of whose files, named by the first byte, holds the rest of the bytes."""
    if not data:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        shutil.copytree(_small_checkpoint(), folder)
        (folder / _FILES[data[0] % len(_FILES)]).write_bytes(data[1:])
        with contextlib.suppress(RerankdError):
            opened = Checkpoint.open(str(folder))
            opened.engine("native").load()


class _Wire(asyncio.Transport):
    """A connection whose other end takes everything, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.said += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 8000) if name in ("sockname", "peername") else default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing comes anyway."""

    def resume_reading(self) -> None:
        """Nothing comes anyway."""


class HttpServer:
    """A server in this process, so that the fuzzer sees what its protocol does with the bytes."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._faults: list[str] = []
        self._runner.run(self._start())
        atexit.register(self._runner.close)

    async def _start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self._faults.append(str(context)))
        logging.getLogger("uvicorn.error").addHandler(_Into(self._faults))
        chosen = Settings(engine="fake", cache="off", port=0)
        self._service, self._in_flight = RerankService(chosen), InFlight()
        app = create_app(chosen, self._service, self._in_flight)
        self._listener = Listener(app, chosen, self._service.metrics)
        await self._service.start()

    def answer(self, data: bytes, part: int) -> bytes:
        """What it says to these bytes, which come in parts of that size; whatever goes wrong is raised."""
        said = self._runner.run(self._answer(data, part))
        assert not self._faults, self._faults
        return said

    async def _answer(self, data: bytes, part: int) -> bytes:
        wire, connection = _Wire(), self._listener.connection()
        connection.connection_made(wire)
        for start in range(0, len(data), part):
            if wire.is_closed:
                break
            connection.data_received(data[start : start + part])
            await asyncio.sleep(0)
        await asyncio.wait_for(self._in_flight.idle.wait(), MAX_SECONDS)
        for _ in range(10):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.wait_for(self._in_flight.idle.wait(), MAX_SECONDS)
        return wire.said


class _Into(logging.Handler):
    """Log lines into a list."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@functools.cache
def _server() -> HttpServer:
    return HttpServer()


@within_a_second
def http(data: bytes) -> None:
    """Bytes on a connection, in parts of the size that the first names: no answer is a 500, and nothing is raised."""
    if data:
        assert b"HTTP/1.1 500" not in _server().answer(data[1:], data[0] or len(data))


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with: recorded requests, valid files, and what earlier runs found."""
    found = Path(__file__).parent / "found" / target
    yield from (file.read_bytes() for file in sorted(found.glob("*")))
    recorded = [
        case for file in sorted((ROOT / "tests" / "contract" / "cases").glob("*.json")) for case in _cases(file)
    ]
    match target:
        case "body":
            yield from (json.dumps(case["request"]).encode() for case in recorded)
        case "dialect":
            paths = [route.path for route in ROUTES]
            for case in recorded:
                if case["path"] in paths:
                    yield bytes([paths.index(case["path"]) % 256]) + json.dumps(case["request"]).encode()
        case "settings":
            yield b'port = 8000\n[models.small]\nmodel = "tiny"\nmax_pair_tokens = 512\n'
            yield b"port=8000\nmodel=tiny\napi_keys=a:b\n"
        case "checkpoint":
            for number, name in enumerate(_FILES):
                file = _small_checkpoint() / name
                if file.exists():
                    yield bytes([number]) + file.read_bytes()
        case "http":
            request = b'{"query": "q", "documents": ["a"]}'
            head = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            yield b"\0" + head + b"Content-Length: %d\r\n\r\n%s" % (len(request), request)
            yield b"\7" + head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(request), request)
            host = b" HTTP/1.1\r\nHost: localhost\r\n"
            yield b"\0GET /" + host + b"\r\nGET /health" + host + b"Connection: close\r\n\r\n"
            yield b"\0OPTIONS * HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"


def _cases(file: Path) -> list[dict[str, Any]]:
    return [case for case in json.loads(file.read_text()) if "request" in case and "path" in case]


TARGETS: dict[str, Target] = {
    "body": body,
    "dialect": dialect,
    "settings": settings,
    "checkpoint": checkpoint,
    "http": http,
}
