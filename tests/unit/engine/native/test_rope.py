"""Rotary position embedding, plain and stretched by YaRN, is what transformers computes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints import Layout, write_checkpoint

from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.rope import RotaryEmbedding

LAYOUT = Layout(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=64)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
ROPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "the model card's": {"rope_scaling": YARN},
    "an older key": {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    "transformers 5": {"rope_parameters": {**YARN, "rope_theta": 5e5}},
    "transformers 5, theta beside it": {"rope_parameters": YARN},
    "transformers 5 and the card's on top": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "rope_scaling": YARN,
    },
    "every parameter": {
        "rope_scaling": {**YARN, "beta_fast": 20, "beta_slow": 2, "attention_factor": 1.5, "truncate": False}
    },
    "magnitudes": {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
    "a factor below one": {"rope_scaling": {**YARN, "factor": 0.5}},
    "Llama 3.1": {"rope_scaling": {**LLAMA3, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
}


@pytest.mark.promise("S2")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROPES)
def test_cosines_and_sines_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    rotary = pytest.importorskip("transformers.models.qwen3.modeling_qwen3").Qwen3RotaryEmbedding
    write_checkpoint(tmp_path, LAYOUT)
    raw = json.loads((tmp_path / "config.json").read_text()) | ROPES[name]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    positions = torch.tensor([0, 1, 2, 63, 64, 1000, 8191, 40_000])
    theirs = rotary(transformers.Qwen3Config.from_dict(copy.deepcopy(raw)))(torch.zeros(1), positions[None])
    config = ModelConfig.read(tmp_path)
    ours = RotaryEmbedding(config, 40_001, torch.device("cpu")).at(positions)
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found, expected[0, :, : LAYOUT.head_dim // 2])


@pytest.mark.promise("S2")
def test_yarn_makes_the_longest_pair_longer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, LAYOUT)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"rope_scaling": YARN}))
    assert ModelConfig.read(tmp_path).max_length == 131_072
