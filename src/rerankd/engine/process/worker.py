"""The child: ``python -m rerankd.engine.process.worker FD CPUS``, an engine at the other end of a socket pair.

It ends when its parent does: a thread waits for the next frame all the time, and the end of the stream ends the
process even while a forward pass runs.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rerankd.engine.base import Engine, EngineFault, EngineOptions, EngineOutOfMemory, HeadSpec
from rerankd.engine.process.frames import batch_of_frame, receive, send
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError

_GONE = 3

Frame: TypeAlias = tuple[dict[str, Any], bytes]


class Worker:
    """Answers one frame at a time.

    Args:
        link: to the parent.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._engine: Engine
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        actions: dict[str, Callable[[dict[str, Any], bytes], Frame]] = {
            "load": self._load,
            "score": self._score,
            "health": lambda head, body: ({"ok": self._engine.health()}, b""),
        }
        while True:
            head, body = self._frames.get()
            if head["do"] == "close":
                self._engine.close()
                return
            try:
                answer = actions[head["do"]](head, body)
            except Exception as error:
                answer = {"error": _kind(error), "reason": str(error) or type(error).__name__}, b""
            send(self._link, *answer)

    def _read(self) -> None:
        try:
            while True:
                self._frames.put(receive(self._link))
        except (EOFError, OSError):
            os._exit(_GONE)

    def _load(self, head: dict[str, Any], body: bytes) -> Frame:
        options = options_of(head["options"])
        self._engine = create_engine(head["engine"], options)
        self._engine.load()
        self._engine.warm_up()
        return {"ok": dataclasses.asdict(self._engine.info)}, b""

    def _score(self, head: dict[str, Any], body: bytes) -> Frame:
        scores = self._engine.score(batch_of_frame(head, body))
        return {"ok": True}, np.ascontiguousarray(scores, dtype="<f4").tobytes()


def options_of(row: dict[str, Any]) -> EngineOptions:
    """Engine options from their JSON."""
    return EngineOptions(**(row | {"folder": Path(row["folder"]), "head": HeadSpec(**row["head"])}))


def _kind(error: Exception) -> str:
    """What the parent raises in its place."""
    for kind, name in ((EngineOutOfMemory, "memory"), (EngineFault, "fault"), (ConfigurationError, "settings")):
        if isinstance(error, kind):
            return name
    return "batch"


def main() -> None:
    # A terminal sends its Ctrl-C to the whole group; when this process ends is its parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cpus := [int(cpu) for cpu in filter(None, sys.argv[2].split(","))]:
        os.sched_setaffinity(0, cpus)
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
