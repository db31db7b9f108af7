"""Engines in processes of their own: their answers, processor time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import process_stats
from benchmarks.wheel_environment import NO_COMPILER

ROOT = Path(__file__).parents[1]
RIVALS = ROOT / "out" / "rivals"
"""Where ``benchmarks/rivals/install.sh`` makes an environment for each."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One turn of one engine."""

    seconds: float
    processor_seconds: float
    peak_mb: float
    """Most anonymous memory at once, weights that are not mapped included."""
    probabilities: list[float]
    tokens: int


class EngineProcess:
    """One engine, loaded under the Python that has it.

    ``idle_mb`` is the memory of its own once it was loaded; see :func:`benchmarks.process_stats.anonymous_mb`.
    """

    def __init__(
        self, python: Path, options: dict[str, Any], checkout: Path = ROOT, *, is_installed: bool = False
    ) -> None:
        """``checkout``: the source to run, where that is not this one.

        ``is_installed``: the package of ``python`` itself is run, where no compiler is found.
        """
        paths = [checkout] if is_installed else [checkout / "src", checkout]
        self._log = _log(options)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", _worker(checkout)],
                cwd=checkout,
                env={
                    **os.environ,
                    **_environment(python),
                    **(NO_COMPILER if is_installed else {}),
                    "PYTHONPATH": os.pathsep.join(map(str, paths)),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            answer = self._ask({"load": options})
        except BaseException:
            self.close()
            raise
        self.load_seconds = float(answer["seconds"])
        self.details = str(answer["details"])
        self.idle_mb = process_stats.anonymous_mb(self._process.pid)

    def score(self, request: dict[str, Any]) -> Scored:
        """Let it work on one request."""
        processor = process_stats.processor_seconds(self._process.pid)
        with process_stats.watched(self._process.pid) as peak:
            answer = self._ask({"score": request})
        used = process_stats.processor_seconds(self._process.pid) - processor
        return Scored(answer["seconds"], used, peak.mb, answer["probabilities"], answer["tokens"])

    def close(self) -> None:
        """End the process and its children."""
        pids = process_stats.tree(self._process.pid)
        if self._process.stdin:
            # A process that is gone has closed it.
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(f"the engine ended ({self._log}): {words[-1] if words else 'without a word'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _log(options: dict[str, Any]) -> Path:
    folder = ROOT / "out" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{options['engine']}-{options['dtype']}.log"


def _worker(checkout: Path) -> str:
    """Its module; checkouts from before November 2026 have another name for it."""
    return (
        "benchmarks.engine_worker" if (checkout / "benchmarks" / "engine_worker.py").exists() else "benchmarks.worker"
    )


def _environment(python: Path) -> dict[str, str]:
    """What vLLM's CPU guide asks for: its own OpenMP and a fast allocator, where they are at hand."""
    libraries = sorted(python.parent.parent.glob("lib/libiomp5.so"))
    if not libraries:
        return {}
    libraries += sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
    return {"LD_PRELOAD": ":".join(map(str, libraries))}
