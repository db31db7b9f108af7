"""``python tests/coarse_server.py FLAGS``: a server whose raw scores are bfloat16 numbers, as some servers' are.

The difference of two bfloat16 logits, or a head in bfloat16, has eight significant bits, and its last ones depend on
which pairs are padded together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rerankd.cli.main import cli
from rerankd.engine.base import Batch
from rerankd.engine.onnx.engine import OnnxEngine

_exact = OnnxEngine.score


def _coarse(engine: OnnxEngine, batch: Batch) -> NDArray[np.float32]:
    scores = _exact(engine, batch)
    # Another order of sums moves a bfloat16 by a step or so.
    noise = np.random.default_rng(batch.pairs).normal(0.0, 2.0**-8, len(scores))
    bits = (scores * (1 + noise)).astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


if __name__ == "__main__":
    OnnxEngine.score = _coarse  # type: ignore[method-assign]
    cli(prog_name="rerankd")
