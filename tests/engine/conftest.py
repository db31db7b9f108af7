"""Checkpoints of random weights in the released layout, engines on them, and pairs to score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import write_checkpoint
from tests.engine.layouts import LAYOUTS, SMALL

from rerankd.engine.base import Batch, Engine, EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine

EngineMaker = Callable[..., Engine]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that spin for a core that another test has taken cost more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
def make_forest(rng: np.random.Generator) -> Callable[..., Batch]:
    """Random prompts in a tree of several levels."""

    def make(pairs: int, longest: int = 300, vocabulary: int = SMALL.vocab_size) -> Batch:
        """``pairs`` prompts at least: leaves of 1 to ``longest`` tokens, most of them short, behind shared segments
        of up to 80, some of which end a prompt themselves."""
        inner = max(1, pairs // 5)
        parents = [*(int(rng.integers(-1, at)) for at in range(inner)), *rng.integers(-1, inner, pairs).tolist()]
        short = np.exp(rng.uniform(0, np.log(longest), pairs - 1)).astype(int)
        lengths = np.concatenate([rng.integers(1, 80, inner), [longest], short])
        leaves = [at for at in range(inner + pairs) if at not in parents or rng.random() < 0.3]
        tokens = int(lengths.sum())
        return Batch(
            token_ids=rng.integers(0, vocabulary, tokens).astype(np.int32),
            offsets=np.cumsum([0, *lengths], dtype=np.int32),
            parents=np.array(parents, dtype=np.int32),
            leaves=np.array(leaves, dtype=np.int32),
            cached=np.zeros(inner + pairs, dtype=bool),
            slots=np.full(tokens, -1, dtype=np.int32),
        )

    return make


@pytest.fixture
def make_prompts(rng: np.random.Generator) -> Callable[..., list[np.ndarray]]:
    """Whole prompts of random ids by their lengths, behind ``prefixes`` random prefixes of up to 80 tokens."""

    def make(lengths: Sequence[int], prefixes: int = 4, vocabulary: int = SMALL.vocab_size) -> list[np.ndarray]:
        def ids(length: int) -> np.ndarray:
            return rng.integers(0, vocabulary, length).astype(np.int32)

        begins = [ids(int(rng.integers(0, 80))) for _ in range(prefixes)]
        return [np.concatenate([begins[at % prefixes], ids(int(length))]) for at, length in enumerate(lengths)]

    return make
