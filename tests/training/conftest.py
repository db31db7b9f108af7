"""A toy model folder's worth of parts: a tokenizer trained on a few sentences and a compiled start for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from training.content import CONTENT_DIMS, unit_rows
from training.data import Source
from training.initialise import Shape, State, initial_state
from training.prepare import Prepared, save_evaluated, save_prepared
from training.tokenizer import SPECIALS, train_tokenizer

SENTENCES = [
    "Paris is the capital of France.",
    "Bananas are yellow and grow in warm countries.",
    "Machine learning is a subset of artificial intelligence.",
    "def read_file(path): return open(path).read()",
    "法国的首都是巴黎。",
    "香蕉是黄色的水果。",
]


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    source = Source("toy", "en", queries=["what is the capital"], documents=SENTENCES * 4)
    train_tokenizer([source], path, vocabulary=600)
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_path))


@pytest.fixture(scope="session")
def shape(tokenizer: Tokenizer) -> Shape:
    return Shape(vocabulary=tokenizer.get_vocab_size())


@pytest.fixture(scope="session")
def state(shape: Shape) -> State:
    """The compiled start with random content: equal tokens match, and nothing else does."""
    random = np.random.default_rng(0)
    content = unit_rows(random.standard_normal((shape.vocabulary, CONTENT_DIMS)).astype(np.float32))
    content[: len(SPECIALS)] = 0
    return initial_state(shape, content, np.full(shape.vocabulary, 4.0, dtype=np.float32), seed=1)


@pytest.fixture
def work(prepared: Prepared, shape: Shape, tokenizer_path: Path, tmp_path: Path) -> Path:
    """What ``prepare`` leaves behind, of the source that the test's module calls ``prepared``."""
    folder = tmp_path / "work"
    save_prepared(prepared, folder / "prepared")
    save_evaluated(set(), folder)
    shutil.copyfile(tokenizer_path, folder / "tokenizer.json")
    content = np.random.default_rng(0).standard_normal((shape.vocabulary, CONTENT_DIMS)).astype(np.float32)
    rarity = np.full(shape.vocabulary, 4.0, dtype=np.float32)
    np.savez(folder / "content.npz", content=unit_rows(content), rarity=rarity)
    return folder
