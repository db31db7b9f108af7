"""What the kernel says of a process and all below it."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SAMPLE = 0.01
"""Seconds between two looks at the memory."""
_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    pids = [pid]
    for each in pids:
        for task in glob.glob(f"/proc/{each}/task/*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, Path(task).read_text(encoding="ascii").split())
    return pids


def anonymous_mb(pid: int) -> float:
    """Memory of their own: pages of mapped files, which every process that maps them shares, are not counted."""
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/status").read_text(encoding="ascii").splitlines()
            total += sum(float(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total / 1024


def processor_seconds(pid: int) -> float:
    """User and system time so far."""
    ticks = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


@dataclass
class Peak:
    """The most memory seen so far."""

    mb: float


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Look at the memory of their own all the while."""
    peak, done = Peak(anonymous_mb(pid)), threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE):
            peak.mb = max(peak.mb, anonymous_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
