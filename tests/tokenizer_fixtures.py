"""Tokenizers for tests: Qwen3's own where it is at hand, and a small one of the same kind made on the spot."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rerankd.prompt import tokenizer as prompt_tokenizers
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


@functools.cache
def whole_tokenizer(file: Path) -> Tokenizer:
    """A file's tokenizer with all its added tokens, read once: Qwen3's takes most of a second."""
    return Tokenizer.from_file(str(file))


@functools.cache
def prompt_tokenizer(file: Path, name: str) -> PromptTokenizer:
    """With a template of the table, read once."""
    return PromptTokenizer(file, TEMPLATES[name])


@pytest.fixture(autouse=True, scope="session")
def qwen3_parsed_once() -> Iterator[None]:
    """Eleven megabytes, which all templates that are tried on them share: each still looks its own words up."""
    parse, load = prompt_tokenizers.json_object, prompt_tokenizers._load
    definitions: dict[Path, Any] = {}
    loaded: list[Any] = []

    def parsed(text: str, file: Path) -> Any:
        if file != QWEN3:
            return parse(text, file)
        if file not in definitions:
            definitions[file] = parse(text, file)
        return definitions[file]

    def load_once(text: str, definition: Mapping[str, Any]) -> Any:
        if definition is not definitions.get(QWEN3):
            return load(text, definition)
        if not loaded:
            loaded.append(load(text, definition))
        return loaded[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_tokenizers, "json_object", parsed)
        patch.setattr(prompt_tokenizers, "_load", load_once)
        yield


@pytest.fixture(scope="session")
def qwen3_file() -> Path:
    if not QWEN3.is_file():
        pytest.skip(f"the Qwen3 tokenizer is not at {QWEN3}")
    return QWEN3


@pytest.fixture(scope="session")
def qwen3(qwen3_file: Path) -> PromptTokenizer:
    return prompt_tokenizer(qwen3_file, "qwen3-reranker")


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
