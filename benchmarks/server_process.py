"""Servers of a comparison: each runs by itself, and falls alone."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks import process_stats
from benchmarks.payloads import Body

_STARTUP_SECONDS = 600
_SPARE_BYTES = 1 << 31
"""Of the machine's memory, what stays with everything else."""


@contextlib.contextmanager
def started(words: str | None, url: str, extra: Body) -> Iterator[int | None]:
    """Run a server until the block ends, if there is a command; its process once it ranks.

    Raises:
        RuntimeError: it ended, or does not answer.
    """
    if not words:
        yield None
        return
    process = subprocess.Popen(shlex.split(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _confine(process.pid)
    try:
        until = time.monotonic() + _STARTUP_SECONDS
        while not _ranks(url, extra):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{words}: it {'ended' if process.poll() is not None else 'does not answer'}")
            time.sleep(0.5)
        yield process.pid
    finally:
        pids = process_stats.tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _confine(pid: int) -> None:
    """A server that wants more memory than there is shall be told so, or be the first that is killed for it."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") - _SPARE_BYTES
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def _ranks(url: str, extra: Body) -> bool:
    try:
        return httpx.post(url, json={"query": "a", "documents": ["b"], **extra}, timeout=60).is_success
    except httpx.HTTPError:
        return False
