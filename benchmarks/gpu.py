"""The native engine on a GPU beside transformers and vLLM, from the same weights and the same ids.

    python benchmarks/gpu.py --json gpu.json        # 0.6B and 4B layouts, random weights, every engine that is there
    python benchmarks/gpu.py --layouts 0.6B --engines native:bfloat16,vllm:bfloat16 --repeat 20
    python benchmarks/gpu.py --workloads one,B --alike 58 --engines native:bfloat16,native-uncached:bfloat16

Each engine runs in a process of its own, one after another, so that none finds memory taken. Every turn is another
request of the same shape, the same ones for all engines. They have nothing in common, so that it helps no engine to
keep anything, unless ``--alike 58`` gives all of them as many first tokens as a template and its instruction have.
The first turn is not timed; scores of its first pairs are compared with the reference's (transformers, float32, one
pair at a time), and a row that differs by more than `VOID` has no time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS, write_checkpoint

from benchmarks.direct import DirectScorer
from benchmarks.machine import machine, print_table
from benchmarks.transformers_baseline import left_padded
from benchmarks.workloads import WORKLOADS, Workload
from rerankd.engine.base import Batch, Engine, EngineOptions, HeadSpec
from rerankd.engine.reference import ReferenceEngine
from rerankd.engine.registry import create_engine
from rerankd.types import IdArray

ENGINES = "native:bfloat16,native:fp8,sdpa:bfloat16,flash_attention_2:bfloat16,vllm:bfloat16"
SHAPES = {**WORKLOADS, "one": Workload(1, 77, 158), "large": Workload(256, 77, 33)}
VOID = 0.05
"""A larger difference of a probability is no rounding of bfloat16: the engine computed something else."""
VOID_FP8 = 0.2
COMPARED = 16
"""Pairs whose scores are compared: the reference reads them one at a time."""
_REFERENCE = "reference:float32"
_HEAD = HeadSpec("words", positive=9693, negative=2152)
_PAIR_TOKENS = 1024
_NEEDS = {"vllm": "vllm", "flash_attention_2": "flash_attn"}
_TOKENIZER = Path(__file__).parents[2] / "shared" / "tokenizer" / "qwen3"


@dataclass(frozen=True, slots=True)
class Ids:
    """One request."""

    prefix: IdArray
    tails: list[IdArray]


@dataclass
class Turns:
    """What one engine took for one workload."""

    scores: list[float]
    """Of the first turn, which is not among the seconds."""
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None


class Transformers(ReferenceEngine):
    """transformers as it is used on GPUs: all pairs at once, left padding, logits of the last position alone."""

    def __init__(self, options: EngineOptions, attention: str) -> None:
        super().__init__(EngineOptions(folder=options.folder, head=options.head, device=options.device))
        self._attention = attention
        self._dtype = options.dtype

    def load(self) -> None:
        import transformers

        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            self._options.folder, dtype=getattr(torch, self._dtype), attn_implementation=self._attention
        )
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        ids, mask = left_padded(batch)
        sent = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        logits = self._model(**sent, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        head = self._options.head
        scores: NDArray[np.float32] = (logits[:, head.positive] - logits[:, head.negative]).cpu().numpy()
        return scores


def main() -> None:
    arguments = _arguments()
    if arguments.turns:
        _take_turns(arguments)
        return
    where = machine()
    print(json.dumps(where, indent=2))
    tables: dict[str, list[dict[str, object]]] = {}
    for layout in arguments.layouts.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            place = (arguments.folder or Path(scratch)) / layout
            folder = _checkpoint(place, layout, arguments.tokenizer, arguments.device)
            found = {name: _in_process(name, folder, layout) for name in [_REFERENCE, *_installed(arguments.engines)]}
        if not found[_REFERENCE]:
            sys.exit("without the reference's scores no row means anything")
        for workload in arguments.workloads.split(","):
            title = f"{workload}: {SHAPES[workload]}, {layout} layout"
            tables[title] = _rows({name: turns[workload] for name, turns in found.items() if turns}, SHAPES[workload])
            print_table(title, tables[title])
    if arguments.json:
        record = {"machine": where, "command": sys.argv, "tables": tables}
        arguments.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", default="0.6B,4B")
    parser.add_argument("--engines", default=ENGINES, help="engine:dtype or transformers' name of an attention:dtype")
    parser.add_argument("--workloads", default="A,B,large", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--repeat", type=int, default=10, help="timed turns")
    parser.add_argument("--alike", type=int, default=0, help="first tokens that all requests have in common")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept for the next run")
    parser.add_argument("--tokenizer", type=Path, default=_TOKENIZER, help="folder of tokenizer.json; vLLM needs it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--turns", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _installed(names: str) -> Iterator[str]:
    for name in names.split(","):
        package = _NEEDS.get(name.partition(":")[0])
        if package and importlib.util.find_spec(package) is None:
            print(f"{name}: left out, {package} is not installed", flush=True)
        else:
            yield name


def _checkpoint(folder: Path, layout: str, tokenizer: Path, device: str) -> Path:
    if not (folder / "config.json").is_file():
        write_checkpoint(folder, LAYOUTS[layout], dtype=torch.bfloat16, device=device)
    for file in tokenizer.glob("*.json"):
        if not (folder / file.name).is_file():
            shutil.copy(file, folder)
    return folder


def _in_process(name: str, folder: Path, layout: str) -> dict[str, Turns]:
    """The turns of every workload by one engine, or none where it did not come so far; it has said why."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "turns.json"
        # Where an option comes twice, the last one counts.
        given = ["--engines", name, "--folder", str(folder), "--layouts", layout, "--turns", str(out)]
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *given], check=False)
        if done.returncode:
            # vLLM's workers may take their parent with them when they end: what was timed before counts.
            when = "after its turns" if out.is_file() else "failed"
            print(f"{name}: {when}, exit status {done.returncode}", flush=True)
        if not out.is_file():
            return {}
        return {key: Turns(**value) for key, value in json.loads(out.read_text(encoding="utf-8")).items()}


def _take_turns(arguments: argparse.Namespace) -> None:
    """In the engine's own process: load, then every workload."""
    name, layout = arguments.engines, LAYOUTS[arguments.layouts]
    began = time.perf_counter()
    engine = _engine(name, arguments.folder, arguments.device)
    engine.load()
    engine.warm_up()
    print(f"{name}: ready in {time.perf_counter() - began:.1f} s; {engine.info.details}", flush=True)
    turns = {}
    for workload in arguments.workloads.split(","):
        requests = list(_requests(SHAPES[workload], layout.vocab_size, 1 + arguments.repeat, arguments.alike))
        if name == _REFERENCE:
            requests = [Ids(requests[0].prefix, requests[0].tails[:COMPARED])]
        turns[workload] = asdict(_turns(engine, requests))
    arguments.turns.write_text(json.dumps(turns), encoding="utf-8")
    engine.close()


def _engine(name: str, folder: Path, device: str) -> Engine:
    kind, _, dtype = name.partition(":")
    options = EngineOptions(folder, _HEAD, dtype=dtype, device=device, max_pair_tokens=_PAIR_TOKENS)  # type: ignore[arg-type]
    if kind == "native-uncached":
        return create_engine("native", replace(options, prefix_cache_tokens=0))
    return create_engine(kind, options) if kind in ("native", "reference", "vllm") else Transformers(options, kind)


def _requests(shape: Workload, vocabulary: int, count: int, alike: int = 0) -> Iterator[Ids]:
    """Random ids; the first ``alike`` of them are the same in all requests."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> IdArray:
        return rng.integers(0, vocabulary, length).astype(np.int32)

    common = ids(min(alike, shape.prefix))
    for _ in range(count):
        prefix = np.concatenate([common, ids(shape.prefix - len(common))])
        yield Ids(prefix, [ids(shape.tail) for _ in range(shape.documents)])


def _turns(engine: Engine, requests: Sequence[Ids]) -> Turns:
    direct = DirectScorer(engine)
    turns = Turns(direct.score(requests[0].prefix, requests[0].tails).tolist())
    has_own_memory = engine.info.engine == "vllm" or not torch.cuda.is_available()
    if not has_own_memory:
        torch.cuda.reset_peak_memory_stats()
    for request in requests[1:]:
        began = time.perf_counter()
        direct.score(request.prefix, request.tails)
        turns.seconds.append(time.perf_counter() - began)
    turns.peak_mb = None if has_own_memory else torch.cuda.max_memory_allocated() / 2**20
    return turns


def _rows(found: dict[str, Turns], shape: Workload) -> list[dict[str, object]]:
    truth = _probability(found.pop(_REFERENCE).scores)
    compared = {name: _probability(turns.scores[: len(truth)]) for name, turns in found.items()}
    off = {name: float(np.abs(scores - truth).max()) for name, scores in compared.items()}
    void = {name for name in found if off[name] > (VOID_FP8 if name.endswith("fp8") else VOID)}
    slowest = max((median(turns.seconds) for name, turns in found.items() if name not in void), default=0.0)
    return [_row(name, turns, shape, off[name], 0.0 if name in void else slowest) for name, turns in found.items()]


def _row(name: str, turns: Turns, shape: Workload, off: float, slowest: float) -> dict[str, Any]:
    """One engine's line; without a ``slowest`` to compare with it is void."""
    seconds = median(turns.seconds)
    tokens = shape.documents * (shape.prefix + shape.tail)
    return {
        "engine": name,
        "milliseconds, median": f"{seconds * 1e3:.1f}" if slowest else "void",
        "best": f"{min(turns.seconds) * 1e3:.1f}" if slowest else "void",
        "pairs/s": f"{shape.documents / seconds:.0f}" if slowest else "void",
        "prompt tokens/s": f"{tokens / seconds:.0f}" if slowest else "void",
        "times the slowest": f"{slowest / seconds:.2f}" if slowest else "void",
        "peak MB, weights included": "-" if turns.peak_mb is None else f"{turns.peak_mb:.0f}",
        "max difference of p": f"{off:.1e}",
    }


def _probability(scores: Sequence[float]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.asarray(scores, dtype=np.float64)))
    return result


if __name__ == "__main__":
    main()
