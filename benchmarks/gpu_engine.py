"""One engine on a card, in a process of its own: load, then every workload; figures after each of them.

    python -m benchmarks.gpu_engine native:bfloat16 CHECKPOINT --out native.json --workloads A,B,large

An engine is named ``KIND:FORMAT[:BATCH TOKENS]``; kinds that are not rerankd's are transformers' names of an
attention. ``-uncached`` behind a kind turns its prefix cache off. It runs under whatever Python has the engine. The
first turn of a workload is not timed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.direct import DirectScorer
from benchmarks.gpu_card import Draw, watched
from benchmarks.transformers_baseline import left_padded
from benchmarks.workloads import WORKLOADS, Workload
from rerankd.engine.base import Batch, Engine, EngineOptions, HeadSpec
from rerankd.engine.reference import ReferenceEngine
from rerankd.engine.registry import create_engine
from rerankd.types import IdArray

SHAPES = {**WORKLOADS, "one": Workload(1, 77, 158), "large": Workload(256, 77, 33)}
REFERENCE = "reference:float32"
COMPARED = 16
"""Pairs whose scores are compared: the reference reads them one at a time."""
_HEAD = HeadSpec("words", positive=9693, negative=2152)
_PAIR_TOKENS = 1024
_UNCACHED = "-uncached"


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
    """Most of the card's memory that torch held at once, weights included; None for engines with own processes."""
    draw: Draw | None = None
    """Of the whole card while the turns ran."""


@dataclass
class EngineRun:
    """What one engine gave so far."""

    engine: str
    details: str
    ready_seconds: float
    """Loading and warm-up."""
    workloads: dict[str, Turns] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> EngineRun:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key, turns in values["workloads"].items():
            draw = Draw(**turns.pop("draw")) if turns["draw"] else turns.pop("draw")
            values["workloads"][key] = Turns(**turns, draw=draw)
        return cls(**values)

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(path)


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


def engine_of(name: str, folder: Path, device: str) -> Engine:
    """The engine that a row is about, not loaded."""
    kind, dtype, *tokens = name.split(":")
    options = EngineOptions(
        folder,
        _HEAD,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        max_pair_tokens=_PAIR_TOKENS,
        max_batch_tokens=int(tokens[0]) if tokens else 0,
    )
    bare = kind.removesuffix(_UNCACHED)
    if bare == "vllm":
        return _vllm(options, prefix_caching=bare == kind)
    if bare in ("native", "reference"):
        return create_engine(bare, options if bare == kind else replace(options, prefix_cache_tokens=0))
    return Transformers(options, kind)


def _vllm(options: EngineOptions, *, prefix_caching: bool) -> Engine:
    from rerankd.engine.vllm import VllmEngine

    engine = VllmEngine(options)
    engine.prefix_caching = prefix_caching
    return engine


def requests_of(shape: Workload, vocabulary: int, count: int, alike: int = 0) -> Iterator[Ids]:
    """Random ids; the first ``alike`` of them are the same in all requests."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> IdArray:
        return rng.integers(0, vocabulary, length).astype(np.int32)

    common = ids(min(alike, shape.prefix))
    for _ in range(count):
        prefix = np.concatenate([common, ids(shape.prefix - len(common))])
        yield Ids(prefix, [ids(shape.tail) for _ in range(shape.documents)])


def turns_of(engine: Engine, requests: Sequence[Ids]) -> Turns:
    """One request after another, each a batch of its own."""
    direct = DirectScorer(engine)
    turns = Turns(direct.score(requests[0].prefix, requests[0].tails).tolist())
    has_own_memory = engine.info.engine == "vllm" or not torch.cuda.is_available()
    if not has_own_memory:
        torch.cuda.reset_peak_memory_stats()
    with watched() as draw:
        for request in requests[1:]:
            began = time.perf_counter()
            direct.score(request.prefix, request.tails)
            turns.seconds.append(time.perf_counter() - began)
    turns.draw = draw()
    turns.peak_mb = None if has_own_memory else torch.cuda.max_memory_allocated() / 2**20
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="KIND:FORMAT[:BATCH TOKENS]")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where the figures go")
    parser.add_argument("--workloads", default="A,B,large", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--repeat", type=int, default=10, help="timed turns")
    parser.add_argument("--alike", type=int, default=0, help="first tokens that all requests have in common")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    began = time.perf_counter()
    engine = engine_of(arguments.engine, arguments.folder, arguments.device)
    engine.load()
    engine.warm_up()
    run = EngineRun(arguments.engine, engine.info.details, time.perf_counter() - began)
    print(f"{run.engine}: ready in {run.ready_seconds:.1f} s; {run.details}", flush=True)
    vocabulary = int(json.loads((arguments.folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    for workload in arguments.workloads.split(","):
        requests = list(requests_of(SHAPES[workload], vocabulary, 1 + arguments.repeat, arguments.alike))
        if run.engine == REFERENCE:
            requests = [Ids(requests[0].prefix, requests[0].tails[:COMPARED])]
        run.workloads[workload] = turns_of(engine, requests)
        # vLLM's workers may take their parent with them when they end: what was timed before counts.
        run.write(arguments.out)
    engine.close()


if __name__ == "__main__":
    main()
