"""The tokenizer: byte-level BPE, lower case, every Han character on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.data import Source

SPECIALS = ("<pad>", "<bos>", "<q>", "<end>")
PAD, BOS, QUERY, END = range(4)
VOCABULARY = 40_000
DOCUMENTS_A_SOURCE = 8_000
DOCUMENT_CHARACTERS = 800


def empty_tokenizer() -> Tokenizer:
    """Han characters and underscores stand alone: matching must not depend on word segmentation or on snake_case."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\u3400-\u9fff]|_"), "isolated"),
            # The space goes in front of every split piece, so a word is the same token at the start of a text,
            # after a Han character and after an underscore.
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def training_texts(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        step = max(1, len(source.documents) // DOCUMENTS_A_SOURCE)
        for document in source.documents[::step]:
            yield document[:DOCUMENT_CHARACTERS]
        yield from source.queries


def token_ids(tokenizer: Tokenizer, text: str, limit: int) -> NDArray[np.int32]:
    """The first ``limit`` ids of a bare text."""
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids[:limit], dtype=np.int32)


def train_tokenizer(sources: list[Source], path: Path, vocabulary: int = VOCABULARY) -> Tokenizer:
    tokenizer = empty_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=3,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(sources), trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer
