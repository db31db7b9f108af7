"""An engine whose forward passes run in a child process; a child that ends is an engine fault."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import rerankd
from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, EngineOutOfMemory
from rerankd.engine.process.frames import batch_frame, receive, send
from rerankd.engine.process.placement import Place
from rerankd.errors import ConfigurationError

_CLOSE_SECONDS = 2.0


class ProcessEngine:
    """The engine ``name`` in a child of this process.

    Args:
        name: of the engine that the child makes.
        options: for that engine; 0 threads become those of its place.
        place: the CPUs or the GPU that the child has.
    """

    def __init__(self, name: str, options: EngineOptions, place: Place) -> None:
        self._name = name
        self._options = dataclasses.replace(options, threads=options.threads or place.threads)
        self._place = place
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo:
        assert self._info is not None, "the engine has been loaded"
        return self._info

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._process is not None, "the engine has been loaded"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Has the child gone, while nobody asked it anything?"""
        return self._process is not None and self._process.poll() is not None

    def load(self) -> None:
        """Start the child; it loads and warms the real engine.

        Raises:
            ConfigurationError: the engine cannot be loaded as asked.
            EngineFault: the child ended.
        """
        self._link, theirs = socket.socketpair()
        with theirs:
            descriptor, cpus = theirs.fileno(), ",".join(map(str, self._place.cpus))
            self._process = subprocess.Popen(  # noqa: S603 (this very interpreter)
                [sys.executable, "-m", "rerankd.engine.process.worker", str(descriptor), cpus],
                pass_fds=[descriptor],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
            )
        options = dataclasses.asdict(self._options) | {"folder": str(self._options.folder)}
        head, _ = self._ask({"do": "load", "engine": self._name, "options": options})
        self._info = EngineInfo(**head["ok"])

    def _environment(self) -> dict[str, str]:
        """The child's: it finds this very package, and sees its own GPU alone."""
        paths = [str(Path(rerankd.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        return found | ({"CUDA_VISIBLE_DEVICES": self._place.gpu} if self._place.gpu else {})

    def warm_up(self) -> None:
        """The child has warmed its engine when it says that it is loaded."""

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """As the contract says."""
        _, body = self._ask(*batch_frame(batch))
        return np.frombuffer(body, dtype="<f4").astype(np.float32)

    def health(self) -> bool:
        """What the child's engine says of itself."""
        head, _ = self._ask({"do": "health"})
        return bool(head["ok"])

    def close(self) -> None:
        """End the child; one that does not end by itself is killed."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                send(self._link, {"do": "close"})
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_SECONDS)
            self._process.kill()
            self._process.wait()
        if self._link is not None:
            self._link.close()

    def _ask(self, head: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        assert self._link is not None, "the engine has been loaded"
        try:
            send(self._link, head, body)
            answer, found = receive(self._link)
        except (EOFError, OSError):
            raise EngineFault(f"the engine's process ended ({self._exit()})") from None
        if "error" in answer:
            _raise(answer["error"], answer["reason"])
        return answer, found

    def _exit(self) -> str:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_CLOSE_SECONDS)
            return f"signal {-code}" if code < 0 else f"exit {code}"
        return "it closed its connection"


def _raise(kind: str, reason: str) -> NoReturn:
    errors: dict[str, type[Exception]] = {
        "memory": EngineOutOfMemory,
        "fault": EngineFault,
        "settings": ConfigurationError,
    }
    raise errors.get(kind, RuntimeError)(reason)
