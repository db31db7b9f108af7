"""The training loop: cross entropy over clusters plus two teachers, checkpoints, resume.

Loss of a cluster = -log of the probability mass on the documents that answer the query
+ ``distil`` * KL(teacher || model), where the teacher mixes dense similarity and BM25.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.batches import Draw, Lengths, Sampler
from training.initialise import Shape, State, initial_state
from training.model import PackedModel, pack
from training.prepare import Prepared, load_all
from training.teacher import Teacher


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; the last ``decay`` of the steps lowers the rates to ``final``."""

    steps: int = 2550
    clusters: int = 2
    rate: float = 1e-3
    embedding_rate: float = 2e-3
    warm_up: int = 40
    decay: float = 0.45
    final: float = 0.02
    distil: float = 1.0
    document_tokens: int = 128
    long_tokens: int = 448
    long_share: float = 0.4
    surrounded_share: float = 0.5
    average: float = 0.995
    clip: float = 1.0
    seed: int = 1
    save_every: int = 100


@dataclass(frozen=True)
class Speed:
    """How the same sums are computed; the numbers differ in the last digits only."""

    bfloat16: bool = False  # pays on processors with bfloat16 tiles (AMX)
    fuse: bool = False  # needs a C++ compiler

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bfloat16 else torch.float32


@dataclass(frozen=True)
class TeacherWeights:
    """How similarity (cosine) and BM25 become teacher logits; fitted on training clusters by their own labels."""

    cosine: float
    bm25: float


ENGLISH = TeacherWeights(cosine=16.0, bm25=0.35)
CHINESE = TeacherWeights(cosine=0.0, bm25=0.15)


class Teachers:
    """Teacher logits of a cluster; dense vectors are computed once a text and kept."""

    def __init__(self, sources: list[Prepared], dtype: torch.dtype) -> None:
        self.sources = sources
        self.dense = Teacher(dtype=dtype)
        self.vectors: dict[tuple[int, str, int], NDArray[np.float16]] = {}

    def save(self, path: Path) -> None:
        keys = [f"{source} {kind} {place}" for source, kind, place in self.vectors]
        windows = [len(vectors) for vectors in self.vectors.values()]
        np.savez(path, keys=np.array(keys), windows=windows, vectors=np.concatenate(list(self.vectors.values())))

    def restore(self, path: Path) -> None:
        with np.load(path) as arrays:
            vectors = np.split(arrays["vectors"], np.cumsum(arrays["windows"])[:-1])
            for key, found in zip(arrays["keys"].tolist(), vectors, strict=True):
                source, kind, place = key.split()
                self.vectors[int(source), kind, int(place)] = found

    def _vectors(self, source: int, kind: str, places: NDArray[np.int64]) -> list[NDArray[np.float16]]:
        texts = getattr(self.sources[source], f"{kind}_texts")
        missing = [int(place) for place in places if (source, kind, int(place)) not in self.vectors]
        if missing:
            for place, vectors in zip(missing, self.dense.encode_windows([texts[i] for i in missing]), strict=True):
                self.vectors[source, kind, place] = vectors.astype(np.float16)
        return [self.vectors[source, kind, int(place)] for place in places]

    def _similarity(self, draw: Draw) -> NDArray[np.float32]:
        """Cosine of each query with the window of the document that is most like it."""
        queries = np.stack([found[0] for found in self._vectors(draw.source, "query", draw.queries)])
        documents = self._vectors(draw.source, "document", draw.documents)
        cosines = queries.astype(np.float32) @ np.concatenate(documents).astype(np.float32).T
        starts = np.cumsum([0, *(len(windows) for windows in documents[:-1])])
        return np.maximum.reduceat(cosines, starts, axis=1)

    def logits(self, draw: Draw) -> torch.Tensor:
        """(n_queries, n_documents), float32."""
        source = self.sources[draw.source]
        weights = CHINESE if source.language.startswith("zh") else ENGLISH
        scores = weights.bm25 * source.pool.scores(draw.queries, draw.documents)
        if weights.cosine:
            scores = scores + weights.cosine * self._similarity(draw)
        return torch.from_numpy(scores.astype(np.float32))


class Trainer:
    """Model, averaged weights, optimiser and sampler: all that a checkpoint holds."""

    def __init__(
        self, recipe: Recipe, shape: Shape, state: State, sources: list[Prepared], speed: Speed = Speed()
    ) -> None:
        self.recipe, self.sources = recipe, sources
        self.model = PackedModel(shape, state, speed.dtype, speed.fuse)
        self.averaged = {name: tensor.clone() for name, tensor in self.model.state().items()}
        lengths = Lengths(recipe.document_tokens, recipe.long_tokens, recipe.long_share, recipe.surrounded_share)
        self.sampler = Sampler(sources, recipe.seed, lengths)
        self.teachers = Teachers(sources, speed.dtype) if recipe.distil else None
        embeddings = [p for n, p in zip(self.model.names, self.model.weights, strict=True) if "embed_tokens" in n]
        others = [p for n, p in zip(self.model.names, self.model.weights, strict=True) if "embed_tokens" not in n]
        groups = [{"params": embeddings, "peak": recipe.embedding_rate}, {"params": others, "peak": recipe.rate}]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.workers = ThreadPoolExecutor(torch.get_num_threads())
        self.step = 0

    def set_rate(self) -> None:
        """Warm-up, a long constant stretch, a straight way down: a run can be lengthened while it is constant."""
        recipe = self.recipe
        left = (recipe.steps - self.step) / (recipe.steps * recipe.decay)
        share = min(1.0, (self.step + 1) / recipe.warm_up, max(left, recipe.final))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * share

    def cluster_loss(self, draw: Draw) -> tuple[torch.Tensor, float]:
        """Loss, and the share of queries whose best document is a right one."""
        source = self.sources[draw.source]
        queries = [source.queries[int(place)] for place in draw.queries]
        logits = self.model(pack(draw.texts, queries, self.recipe.long_tokens + 1))
        relevant = torch.from_numpy(draw.relevant)
        found = F.log_softmax(logits, dim=1)
        loss = -found.masked_fill(~relevant, float("-inf")).logsumexp(dim=1).mean()
        if self.teachers is not None:
            wanted = F.softmax(self.teachers.logits(draw), dim=1)
            loss = loss + self.recipe.distil * F.kl_div(found, wanted, reduction="none").sum(dim=1).mean()
        hits = relevant.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return loss, float(hits)

    def _work(self, draw: Draw) -> tuple[float, float]:
        # One core a cluster: with several cores on one, each small operation would wait for the slowest of them.
        torch.set_num_threads(1)
        loss, hit = self.cluster_loss(draw)
        (loss / self.recipe.clusters).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), hit

    def train_step(self) -> dict[str, float]:
        self.set_rate()
        self.optimiser.zero_grad(set_to_none=True)
        draws = [self.sampler.draw() for _ in range(self.recipe.clusters)]
        figures = list(self.workers.map(self._work, draws))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        self._average()
        loss, accuracy = np.mean(figures, axis=0).tolist()
        return {"loss": loss, "accuracy": accuracy}

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential mean of the weights, shorter at the beginning."""
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, tensor in self.model.state().items():
            self.averaged[name].lerp_(tensor, 1 - keep)

    def save(self, path: Path) -> None:
        saved = {
            "step": self.step,
            "model": self.model.state(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "random": json.dumps(self.sampler.random.bit_generator.state),
        }
        partial = path.with_suffix(".partial")
        torch.save(saved, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        self.step = saved["step"]
        with torch.no_grad():
            for name, parameter in zip(self.model.names, self.model.weights, strict=True):
                parameter.copy_(saved["model"][name])
        self.averaged = saved["averaged"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.sampler.random.bit_generator.state = json.loads(saved["random"])


def load_start(work: Path, seed: int) -> tuple[Shape, State]:
    with np.load(work / "content.npz") as arrays:
        content, rarity = arrays["content"], arrays["rarity"]
    shape = Shape(vocabulary=len(rarity))
    return shape, initial_state(shape, content, rarity, seed)


def train(work: Path, run: Path, recipe: Recipe, speed: Speed, start: Path | None = None) -> bool:
    """Trains to ``recipe.steps``, or to a SIGTERM, after which another call goes on; whether all steps are done.

    ``start`` takes over the averaged weights of another run's checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    shape, state = load_start(work, recipe.seed)
    if start is not None:
        state = torch.load(start, weights_only=True)["averaged"]
    trainer = Trainer(recipe, shape, state, load_all(work / "prepared"), speed)
    checkpoint, vectors = run / "checkpoint.pt", work / "teacher.npz"
    if checkpoint.exists():
        trainer.restore(checkpoint)
    if trainer.teachers is not None and vectors.exists():
        trainer.teachers.restore(vectors)
    (run / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    began = time.monotonic()
    with (run / "curve.jsonl").open("a") as curve:
        while trainer.step < recipe.steps and not stopped.is_set():
            figures = trainer.train_step()
            figures |= {"step": trainer.step, "seconds": round(time.monotonic() - began, 1)}
            print(json.dumps(figures), file=curve, flush=True)
            if trainer.step % recipe.save_every == 0 or trainer.step == recipe.steps or stopped.is_set():
                trainer.save(checkpoint)
    if trainer.teachers is not None:
        trainer.teachers.save(vectors)
    return trainer.step == recipe.steps


def stage_checkpoint(run: Path, stage: int) -> Path:
    return run / f"stage{stage + 1}" / "checkpoint.pt"


def train_stages(work: Path, run: Path, stages: list[Recipe], speed: Speed, start: Path | None = None) -> bool:
    """One stage after another, each from the averaged weights of the one before; goes on where it was stopped.

    Whether all are done.
    """
    for stage, recipe in enumerate(stages):
        checkpoint = stage_checkpoint(run, stage)
        if not train(work, checkpoint.parent, recipe, speed, start):
            return False
        start = checkpoint
    return True


def read_stages(path: Path, seed: int) -> list[Recipe]:
    """A JSON list with the fields of each stage's `Recipe`; every stage draws its own clusters."""
    return [Recipe(**fields, seed=seed + stage) for stage, fields in enumerate(json.loads(path.read_text()))]
