"""Checkpoints of random weights in the released layout, engines on them, and pairs to score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import Layout, write_checkpoint

from rerankd.engine.base import Engine, EngineOptions, Group, HeadSpec
from rerankd.engine.registry import create_engine

SMALL = Layout()
LAYOUTS = {
    "tied": (SMALL, 1),
    "untied, one head of keys": (replace(SMALL, tie_word_embeddings=False, num_key_value_heads=1), 1),
    "sharded, four heads of keys": (replace(SMALL, num_key_value_heads=4), 3),
    "eight heads of keys": (replace(SMALL, num_attention_heads=16, num_key_value_heads=8), 1),
    "classifier": (replace(SMALL, architecture="Qwen3ForSequenceClassification", rope_theta=1e10), 1),
    "biases, no head norms": (replace(SMALL, architecture="Qwen2ForCausalLM"), 1),
    "biases and head norms": (replace(SMALL, attention_bias=True), 1),
    "YaRN": (replace(SMALL, yarn_factor=4.0), 1),
}

EngineMaker = Callable[..., Engine]


@pytest.fixture(scope="session", params=LAYOUTS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each small layout; stored in bfloat16, as the released models are."""
    layout, shards = LAYOUTS[request.param]
    return write_checkpoint(tmp_path_factory.mktemp("layout"), layout, dtype=torch.bfloat16, shards=shards)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small"), SMALL, dtype=torch.bfloat16, shards=2)


@pytest.fixture(scope="session")
def make_engine() -> Iterator[EngineMaker]:
    """Loaded engines by name, folder and options; each is made once and kept for the session."""
    made: dict[tuple[object, ...], Engine] = {}

    def make(name: str, folder: Path, dtype: str = "float32") -> Engine:
        key = (name, folder, dtype)
        if key not in made:
            head = HeadSpec("words", positive=9, negative=8)
            options = EngineOptions(folder=folder, head=head, dtype=dtype, device="cpu", threads=1)
            made[key] = create_engine(name, options)
            made[key].load()
        return made[key]

    yield make
    for engine in made.values():
        engine.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def make_groups(rng: np.random.Generator) -> Callable[..., list[Group]]:
    """Groups of random ids: ``lengths`` of the tails, dealt out to ``groups`` prefixes of up to 80 tokens."""

    def make(lengths: list[int], groups: int = 4, vocabulary: int = SMALL.vocab_size) -> list[Group]:
        def ids(length: int) -> np.ndarray:
            return rng.integers(0, vocabulary, length).astype(np.int32)

        parts = np.array_split(lengths, groups)
        return [Group(ids(int(rng.integers(0, 80))), tuple(ids(int(length)) for length in part)) for part in parts]

    return make
