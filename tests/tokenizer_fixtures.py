"""Tokenizers for tests: Qwen3's own where it is at hand, and a small one of the same kind made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rerankd.prompt.template import Text
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import IdArray

QWEN3 = Path(__file__).parents[2] / "shared" / "tokenizer" / "qwen3" / "tokenizer.json"
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = ["yes no the capital of France is Paris", "a query about documents, instructions and relevance"] * 4


def prompts(tokenizer: PromptTokenizer, instruction: str, query: str, documents: Sequence[str]) -> list[IdArray]:
    """The whole prompt of every pair, untruncated, in the plainest way: each part of each pair by itself."""
    rows = []
    for document in documents:
        values = {"instruction": instruction, "query": query, "document": document}
        encoded = (
            next(tokenizer.encode([part.fill(values)])) if isinstance(part, Text) else part
            for part in tokenizer.parts
        )
        rows.append(np.concatenate(list(encoded)))
    return rows


@pytest.fixture(scope="session")
def qwen3_file() -> Path:
    if not QWEN3.is_file():
        pytest.skip(f"the Qwen3 tokenizer is not at {QWEN3}")
    return QWEN3


@pytest.fixture(scope="session")
def qwen3(qwen3_file: Path) -> PromptTokenizer:
    return PromptTokenizer(qwen3_file, TEMPLATES["qwen3-reranker"])


@pytest.fixture(scope="session")
def small_tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE as Qwen3's is, with a few hundred words; two of its four added tokens are not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.fixture(scope="session")
def small(small_tokenizer_file: Path) -> PromptTokenizer:
    return PromptTokenizer(small_tokenizer_file, TEMPLATES["qwen3-reranker"])
