"""The engines side by side, in one process, on the same ids: what one request costs.

    python benchmarks/engine.py                          # 0.6B layout, random weights, workloads A and B
    python benchmarks/engine.py --layout tiny --repeat 5
    python benchmarks/engine.py --engines native:float32,usual:float32 --workloads A
    python benchmarks/engine.py --engines vllm:bfloat16,native:bfloat16,native:int8   # where vLLM is installed

The engines take turns, so that whatever else the machine does falls on all of them; each row is its best turn.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.checkpoints import LAYOUTS, Layout, write_checkpoint
from benchmarks.machine import machine, print_table
from benchmarks.usual_code import UsualCode
from rerankd.engine.base import Batch, Engine, EngineOptions, Group, HeadSpec
from rerankd.engine.registry import create_engine
from rerankd.types import IdArray

_TOKENIZER = Path(__file__).parents[2] / "shared" / "tokenizer" / "qwen3"
"""vLLM finds its two words in the checkpoint's tokenizer; the other engines do without."""
_PAIR_TOKENS = 1024
_PRODUCT = (2048, 1024, 3072)
"""Rows, inputs and outputs of the product that measures the machine."""
ENGINES = "reference:float32,usual:float32,usual:bfloat16,native:float32,native:bfloat16,native:int8"


@dataclass(frozen=True, slots=True)
class Workload:
    """One request: documents of the same length behind one prefix, in tokens."""

    documents: int
    prefix: int
    tail: int

    def batch(self, vocabulary: int) -> Batch:
        """The request as random ids, the same in every run."""
        rng = np.random.default_rng(0)

        def ids(length: int) -> IdArray:
            return rng.integers(0, vocabulary, length).astype(np.int32)

        return Batch.of([Group(ids(self.prefix), tuple(ids(self.tail) for _ in range(self.documents)))])

    def __str__(self) -> str:
        return f"{self.documents} documents of {self.prefix} + {self.tail} tokens"


WORKLOADS = {"A": Workload(16, 77, 158), "B": Workload(64, 77, 33), "1000": Workload(1000, 77, 33)}


@dataclass
class Turn:
    """What was measured of one engine on one workload."""

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))


def main() -> None:
    arguments = _arguments()
    layout = LAYOUTS[arguments.layout]
    where = machine()
    print(json.dumps(where, indent=2))
    tables: dict[str, list[dict[str, object]]] = {}
    with _checkpoint(arguments.checkpoint, layout) as folder:
        engines = {name: _load(name, folder, layout, arguments.threads) for name in arguments.engines.split(",")}
        for name in arguments.workloads.split(","):
            workload = WORKLOADS[name]
            batch = workload.batch(layout.vocab_size)
            turns = _take_turns(engines, batch, arguments.repeat)
            tables[f"{name}: {workload}, {arguments.layout} layout"] = _rows(turns, batch, layout)
            print_table(*list(tables.items())[-1])
    tables["The library's own matrix product, {} x {} x {}".format(*_PRODUCT)] = _peaks(arguments.threads)
    print_table(*list(tables.items())[-1])
    if arguments.json:
        record = {"machine": where, "command": sys.argv, "tables": tables}
        arguments.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="0.6B")
    parser.add_argument("--checkpoint", type=Path, help="a folder to use, or to write random weights to")
    parser.add_argument("--engines", default=ENGINES, help="engine:dtype, separated by commas")
    parser.add_argument("--workloads", default="A,B", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


@contextmanager
def _checkpoint(folder: Path | None, layout: Layout) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        if not (place / "config.json").is_file():
            write_checkpoint(place, layout, dtype=torch.bfloat16)
        if _TOKENIZER.is_dir() and not (place / "tokenizer.json").is_file():
            for file in _TOKENIZER.glob("*.json"):
                shutil.copy(file, place)
        yield place


def _load(name: str, folder: Path, layout: Layout, threads: int) -> Callable[[Batch], NDArray[np.float32]]:
    kind, _, dtype = name.partition(":")
    head = HeadSpec("linear") if layout.is_classifier else HeadSpec("words", positive=9693, negative=2152)
    options = EngineOptions(
        folder=folder,
        head=head,
        dtype=dtype or "auto",  # type: ignore[arg-type]
        threads=threads,
        max_pair_tokens=_PAIR_TOKENS,
    )
    engine: Engine = UsualCode(options) if kind == "usual" else create_engine(kind, options)
    began = time.perf_counter()
    engine.load()
    print(f"{name}: loaded in {time.perf_counter() - began:.1f} s; {engine.info.details}", flush=True)
    return engine.score


def _take_turns(
    engines: dict[str, Callable[[Batch], NDArray[np.float32]]], batch: Batch, repeat: int
) -> dict[str, Turn]:
    turns = {name: Turn() for name in engines}
    for _ in range(repeat):
        for name, score in engines.items():
            turn = turns[name]
            before = _reset_peak()
            began, processor = time.perf_counter(), time.process_time()
            turn.scores = score(batch)
            turn.seconds.append(time.perf_counter() - began)
            turn.processor_seconds.append(time.process_time() - processor)
            turn.peak_mb = max(turn.peak_mb, _peak_mb() - before)
    return turns


def _rows(turns: dict[str, Turn], batch: Batch, layout: Layout) -> list[dict[str, object]]:
    slowest = max(min(turn.seconds) for turn in turns.values())
    truth = next(iter(turns.values())).scores
    return [
        {
            "engine": name,
            "seconds": f"{min(turn.seconds):.2f}",
            "processor seconds": f"{min(turn.processor_seconds):.2f}",
            "documents/s": f"{batch.pairs / min(turn.seconds):.1f}",
            "GFLOP/s": f"{_work(batch, layout) / min(turn.seconds) / 1e9:.0f}",
            "times the slowest": f"{slowest / min(turn.seconds):.2f}",
            "peak MB over idle": f"{turn.peak_mb:.0f}",
            "max difference of p": f"{np.abs(_sigmoid(turn.scores) - _sigmoid(truth)).max():.1e}",
        }
        for name, turn in turns.items()
    ]


def _work(batch: Batch, layout: Layout) -> float:
    """Operations of the matrix products that the request needs, prefix once and last layer whole; attention apart."""
    attention = 2 * (layout.num_attention_heads + layout.num_key_value_heads) * layout.head_dim * layout.hidden_size
    weights = attention + 3 * layout.hidden_size * layout.intermediate_size
    return 2.0 * batch.tokens * weights * (layout.num_hidden_layers - 1)


def _sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-scores.astype(np.float64)))
    return result


def _reset_peak() -> float:
    """Start measuring the peak anew where the system can; the memory held now, in MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0.0
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    try:
        return _status_mb("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def _peaks(threads: int) -> list[dict[str, object]]:
    """What the machine's own matrix products reach at the model's shape: the ceiling of the tables above."""
    if threads:
        torch.set_num_threads(threads)
    formats = ("float32", "bfloat16", "int8")
    return [{"format": name, "GFLOP/s": f"{_product_rate(*_PRODUCT, name):.0f}"} for name in formats]


def _product_rate(rows: int, size: int, out: int, name: str) -> float:
    dtype = getattr(torch, name)
    left, right = torch.ones(rows, size).to(dtype), torch.ones(out, size).to(dtype)
    product = torch._int_mm if dtype == torch.int8 else torch.mm
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        product(left, right.t())
        seconds.append(time.perf_counter() - began)
    return 2.0 * rows * size * out / min(seconds) / 1e9


if __name__ == "__main__":
    main()
