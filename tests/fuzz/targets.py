"""What the fuzzer runs: bytes in, nothing out; whatever is raised is a fault of ours.

Each target takes any bytes, refuses what it must with an error of its own, and is done within a second.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from tests.contract.answers import SCORES, answer_to
from tests.live import ROOT, LiveServer

from rerankd.checkpoint import Checkpoint
from rerankd.errors import RerankdError, ServiceError
from rerankd.settings import load_settings
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
    """The embedded model's small files, with weights of a few kilobytes."""
    import torch  # noqa: F401 (its import is not what the first input shall be timed with)

    folder = Path(tempfile.mkdtemp(prefix="rerankd-fuzz-"))
    shipped = ROOT / "src" / "rerankd" / "models" / "tiny"
    config = json.loads((shipped / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(shipped / "template.json", folder)
    tokens = {"[UNK]": 0, "a": 1, "b": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": tokens, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    header = json.dumps({"score.weight": {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return folder


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


class Server:
    """A server in a process of its own for :func:`http`; its log is searched for tracebacks."""

    def __init__(self) -> None:
        self._log = Path(tempfile.mkdtemp(prefix="rerankd-fuzz-")) / "server.log"
        flags = ("--engine", "fake", "--cache", "off", "--header-timeout-seconds", "1")
        self.server = LiveServer(*flags, log=self._log).wait_ready()
        self._read = 0
        atexit.register(self.close)

    def send(self, data: bytes) -> bytes:
        """What the server says to these bytes, once it closes or is silent for a moment."""
        said = b""
        address = ("127.0.0.1", self.server.port)
        with socket.create_connection(address, timeout=0.05) as connection, contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                said += chunk
        return said

    def check(self) -> None:
        """It lives, and has written no traceback."""
        assert self.server.process.poll() is None, "the server ended"
        assert httpx.get(f"{self.server.url}/livez", timeout=MAX_SECONDS + 1).status_code == 200
        with self._log.open("rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        self._read += len(new)
        assert b"Traceback" not in new, new[-4000:].decode("utf-8", "replace")

    def close(self) -> None:
        self.server.process.kill()
        self.server.process.wait()


@functools.cache
def _server() -> Server:
    return Server()


def http(data: bytes) -> None:
    """Bytes on a connection: whatever they are, the server answers others and no answer is a 500."""
    said = _server().send(data)
    assert b"HTTP/1.1 500" not in said
    _server().check()


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
            head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            yield head + b"Content-Length: %d\r\n\r\n%s" % (len(request), request)
            yield head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(request), request)
            yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            yield b"OPTIONS * HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"


def _cases(file: Path) -> list[dict[str, Any]]:
    return [case for case in json.loads(file.read_text()) if "request" in case and "path" in case]


TARGETS: dict[str, Target] = {
    "body": body,
    "dialect": dialect,
    "settings": settings,
    "checkpoint": checkpoint,
    "http": http,
}
