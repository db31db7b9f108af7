"""The native engine on a GPU gives the reference's scores. `make test` skips it; run `pytest -m gpu tests/engine`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rerankd.engine.base import Batch, EngineOptions, Group, HeadSpec
from rerankd.engine.registry import create_engine

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
BOUNDS = {"float32": 1e-4, "bfloat16": 1e-2}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_native_on_cuda_agrees_with_the_reference(
    dtype: str, checkpoint: Path, make_groups: Callable[..., list[Group]]
) -> None:
    batch = Batch.of(make_groups([5, 20, 60, 90, 300, 900] * 4))
    scores = []
    for name, device, chosen in (("reference", "cpu", "float32"), ("native", "cuda", dtype)):
        options = EngineOptions(checkpoint, HeadSpec("words", positive=9, negative=8), dtype=chosen, device=device)
        engine = create_engine(name, options)
        engine.load()
        scores.append(1 / (1 + np.exp(-engine.score(batch).astype(np.float64))))
        engine.close()
    assert np.abs(scores[1] - scores[0]).max() <= BOUNDS[dtype]


def test_warm_up_on_cuda_finds_a_budget_that_fits(checkpoint: Path) -> None:
    options = EngineOptions(checkpoint, HeadSpec("words", positive=9, negative=8), device="cuda")
    engine = create_engine("native", options)
    engine.load()
    engine.warm_up()
    assert engine.info.max_batch_tokens >= 8192
