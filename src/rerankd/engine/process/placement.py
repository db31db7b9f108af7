"""Which CPUs, or which GPU, each of several engines on one machine has.

CPUs are put in the order of NUMA node, core and hyperthread and cut into equal parts, so that a part lies in one node
wherever the parts are a multiple of the nodes, and hyperthreads of one core are together. Weights that a child reads
then lie in the memory of its own node (first touch).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rerankd.cores import usable_cores

_SYSTEM = Path("/sys/devices/system")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one engine runs.

    Attributes:
        cpus: the CPUs that it may use; empty leaves them to the system.
        threads: for an engine that is told no number.
        gpu: what ``CUDA_VISIBLE_DEVICES`` is set to; empty where there is no GPU, or none is wanted.
    """

    cpus: tuple[int, ...]
    threads: int
    gpu: str = ""


def places(count: int, device: str, system: Path = _SYSTEM) -> list[Place]:
    """A place for each of ``count`` engines.

    Args:
        device: the setting; ``cpu`` leaves GPUs alone, an own index (``cuda:1``) is kept for all.
    """
    gpus = visible_gpus() if device in ("auto", "cuda") else []
    cpus = ordered_cpus(system)
    threads = max(1, usable_cores() // count)
    if gpus:
        return [Place((), threads, gpus[index % len(gpus)]) for index in range(count)]
    if len(cpus) < count:
        return [Place((), threads)] * count
    cuts = [round(index * len(cpus) / count) for index in range(count + 1)]
    return [Place(tuple(cpus[cuts[index] : cuts[index + 1]]), threads) for index in range(count)]


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index in range(len(list(_NVIDIA.iterdir())))] if _NVIDIA.is_dir() else []


def ordered_cpus(system: Path = _SYSTEM) -> list[int]:
    """The CPUs of this process's affinity, those of one node and of one core side by side."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    nodes: dict[int, int] = {}
    for folder in system.glob("node/node[0-9]*"):
        for cpu in _listed(folder / "cpulist"):
            nodes[cpu] = int(folder.name.removeprefix("node"))
    return sorted(os.sched_getaffinity(0), key=lambda cpu: (nodes.get(cpu, 0), _core(system, cpu), cpu))


def _core(system: Path, cpu: int) -> int:
    """The first hyperthread of the CPU's core."""
    siblings = _listed(system / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list")
    return min(siblings, default=cpu)


def _listed(file: Path) -> list[int]:
    """``0-3,8`` as numbers; nothing where there is no such file."""
    try:
        text = file.read_text(encoding="ascii")
    except OSError:
        return []
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus
