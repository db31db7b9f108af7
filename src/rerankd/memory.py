"""How much memory this process may still take: what the system has, and the limits of its container; and the C
library's allocator, which keeps what was freed unless it is told."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

from rerankd.cores import ancestors

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN, meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that can be had without swapping, the smallest of what system and control groups leave; None: unknown.

    Args:
        cgroups: where the control groups are mounted.
        own: the file that names this process's groups.
        meminfo: the system's own figures.
    """
    found = [*_of_system(meminfo), *_of_groups(cgroups, own)]
    return max(0, min(found)) if found else None


def _of_system(meminfo: Path) -> Iterator[int]:
    for line in _read(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1]:
            yield int(value.split()[0]) * 1024


def _of_groups(cgroups: Path, own: Path) -> Iterator[int]:
    """What each group around this process leaves (version 2, then version 1); its page cache can be taken back."""
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in ancestors(cgroups, path):
                yield from _left(folder, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in ancestors(cgroups / "memory", path):
                yield from _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    most, now = _read(folder / limit).strip(), _read(folder / used).strip()
    if not (most.isdecimal() and now.isdecimal()):
        return
    rows = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
    back = rows.get(reclaimable, "0").strip()
    yield int(most) - int(now) + (int(back) if back.isdecimal() else 0)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def give_back_freed() -> None:
    """Let glibc return every free page to the system, wherever it lies in its heaps: milliseconds, off the GIL."""
    call_glibc("malloc_trim", 0)


def call_glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; those of other systems are left as they are."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, name):
        getattr(library, name)(*arguments)
