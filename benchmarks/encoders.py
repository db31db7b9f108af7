"""Encoders side by side: the onnx engine, and transformers batched as sentence-transformers does it.

    python benchmarks/encoders.py --layout minilm --dtype float32 --threads 2

Pairs a second on random weights, best of three, the same token ids for all; workload A has 16 documents of 235
tokens, B 64 documents of 110 tokens. The systems run in this process one after another, on as many threads each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tests.encoder_checkpoints import BGE_RERANKER_V2_M3, LAYOUTS, MINILM_L6

from rerankd.core.prefix_tree import separate
from rerankd.engine.base import DType, EngineOptions, HeadSpec
from rerankd.engine.onnx.engine import OnnxEngine
from rerankd.types import IdArray

CHECKPOINTS = {"minilm": MINILM_L6, "bge-v2-m3": BGE_RERANKER_V2_M3, "small": LAYOUTS["bert"]}
WORKLOADS = {"A": (16, 235), "B": (64, 110)}
SEPARATOR = 3


def prompts_of(documents: int, tokens: int, vocabulary: int) -> list[IdArray]:
    """Pairs whose lengths differ by a fifth, as documents' do."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(int(tokens * 0.8), int(tokens * 1.2), documents)
    return [rng.integers(4, vocabulary, int(length)).astype(np.int32) for length in lengths]


def onnx(folder: Path, dtype: DType, threads: int) -> Callable[[list[IdArray]], object]:
    options = EngineOptions(
        folder,
        HeadSpec("linear"),
        dtype=dtype,
        device="cpu",
        threads=threads,
        separator=SEPARATOR,
    )
    engine = OnnxEngine(options)
    engine.load()
    return lambda prompts: engine.score(separate(prompts))


def transformers(folder: Path, threads: int) -> Callable[[list[IdArray]], object]:
    """Batches of 32 padded to the longest, in the order given: what sentence-transformers' predict does with ids."""
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def score(prompts: list[IdArray]) -> None:
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        for start in range(0, len(order), 32):
            rows = [torch.from_numpy(prompts[index].astype(np.int64)) for index in order[start : start + 32]]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask)

    return score


def seconds(score: Callable[[list[IdArray]], object], prompts: list[IdArray]) -> float:
    """Best of three after one pass that nobody times."""
    score(prompts)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        score(prompts)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=CHECKPOINTS, default="minilm")
    parser.add_argument("--dtype", choices=("float32", "int8"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    layout = CHECKPOINTS[options.layout]
    with tempfile.TemporaryDirectory() as place:
        folder = layout.write(Path(place))
        systems = {
            "transformers": transformers(folder, options.threads),
            f"rerankd {options.dtype}": onnx(folder, options.dtype, options.threads),
        }
        for name, (documents, tokens) in WORKLOADS.items():
            prompts = prompts_of(documents, tokens, layout.numbers["vocab_size"])
            times = {system: seconds(score, prompts) for system, score in systems.items()}
            for system, taken in times.items():
                ratio = times["transformers"] / taken
                print(f"{name}  {system:20} {documents / taken:8.1f} pairs/s  {ratio:.2f}x")


if __name__ == "__main__":
    main()
