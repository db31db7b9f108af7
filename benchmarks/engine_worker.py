"""One engine in a process of its own, driven by lines of JSON: ``python -m benchmarks.engine_worker``.

Each line on standard input is one request, each line on standard output its answer:

    {"load": {"engine": "native", "dtype": "bfloat16", "folder": "…", "positive": 1, "negative": 0, "threads": 0}}
        -> {"details": "…"}
    {"score": {"query": "…", "documents": ["…"], "instruction": "…", "prefix": [1, 2], "tails": [[3], [4]]}}
        -> {"seconds": 1.5, "probabilities": [0.5, 0.5], "tokens": 8}

It runs under whatever Python has the engine, so that rivals with another torch stand in the same table. ``tokens``
is what the engine read, template included: engines that take texts count them with their own tokenizer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = dict[str, Any]


class Scorer(Protocol):
    """An engine behind the protocol."""

    details: str

    def score(self, request: Values) -> NDArray[np.float64]:
        """Probabilities in the order of the documents."""
        ...

    def tokens(self, request: Values) -> int:
        """Tokens of all pairs as this engine reads them."""
        ...


class EngineScorer:
    """An engine of rerankd's contract, or the usual code."""

    def __init__(self, options: Values) -> None:
        from benchmarks.direct import DirectScorer
        from rerankd.engine.base import EngineOptions, HeadSpec

        chosen = EngineOptions(
            folder=Path(options["folder"]),
            head=HeadSpec("words", options["positive"], options["negative"]),
            dtype=options["dtype"] or "auto",
            device=options.get("device", "auto"),
            threads=options["threads"],
            max_pair_tokens=options["max_pair_tokens"],
        )
        self._engine = _maker(options["engine"])(chosen)
        self._engine.load()
        self._engine.health()
        self._direct = DirectScorer(self._engine)
        self.details = f"{self._engine.info.dtype}: {self._engine.info.details}"

    def score(self, request: Values) -> NDArray[np.float64]:
        prefix = np.array(request["prefix"], dtype=np.int32)
        tails = tuple(np.array(tail, dtype=np.int32) for tail in request["tails"])
        logits = self._direct.score(prefix, tails)
        probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return probabilities

    def tokens(self, request: Values) -> int:
        return sum(len(request["prefix"]) + len(tail) for tail in request["tails"])


def _maker(name: str) -> Callable[..., Any]:
    from rerankd.engine.registry import create_engine

    match name:
        case "usual":
            from benchmarks.transformers_baseline import TransformersBaseline

            return TransformersBaseline
        case "native-uncached":
            return lambda options: create_engine("native", replace(options, prefix_cache_tokens=0))
        case "vllm-uncached":
            from rerankd.engine.vllm import VllmEngine

            class Uncached(VllmEngine):
                prefix_caching = False

            return Uncached
    return lambda options: create_engine(name, options)


def _open(options: Values) -> Scorer:
    if options["engine"] == "openvino":
        from benchmarks.rivals.openvino_rerank import OpenVino

        return OpenVino(options)
    return EngineScorer(options)


def _answer(scorer: Scorer, request: Values) -> Values:
    began = time.perf_counter()
    probabilities = scorer.score(request).tolist()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "probabilities": probabilities, "tokens": scorer.tokens(request)}


def main() -> None:
    # Libraries print: their words go to standard error, the answers to where standard output was.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    scorer: Scorer | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if scorer is None:
            began = time.perf_counter()
            scorer = _open(message["load"])
            answer: Values = {"seconds": time.perf_counter() - began, "details": scorer.details}
        else:
            answer = _answer(scorer, message["score"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
