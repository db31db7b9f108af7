"""How many processor cores this process may really use: its affinity, and the CPU quota of its container.

``os.cpu_count()`` knows neither. A container with a quota of one CPU on a machine of 64 cores would start 64 threads
and be throttled by the kernel for most of each period.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Cores for threads that compute: the smaller of affinity and quota, whole cores, at least one.

    Args:
        cgroups: where the control groups are mounted.
        own: the file that names this process's groups.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min([float(allowed), *_quotas(cgroups, own)])))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's group and of every group around it (version 2, then version 1)."""
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in ancestors(cgroups, path):
                yield from _quota(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / "cpu", cgroups / controllers):
                for folder in ancestors(mount, path):
                    yield from _quota(
                        [*_read(folder / "cpu.cfs_quota_us").split(), *_read(folder / "cpu.cfs_period_us").split()]
                    )


def ancestors(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of its ancestors; inside a container the group's own path may not exist."""
    parts = [part for part in path.split("/") if part not in ("", "..", ".")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota(fields: list[str]) -> Iterator[float]:
    """Microseconds of processor time a period, and the period; ``max`` or a negative number is no quota."""
    if len(fields) == 2 and fields[0].isdecimal() and fields[1].isdecimal() and int(fields[1]):
        yield int(fields[0]) / int(fields[1])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
