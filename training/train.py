"""The training loop: cross entropy over clusters plus teachers, checkpoints, resume.

Loss of a cluster = -log of the probability mass on the documents that answer the query
+ ``distil`` * KL(teachers || model), where the teachers are a mixture of encoders and BM25
+ ``hold`` * distance from the order that an earlier stage's weights give to the cluster
+ ``probability`` * binary cross entropy of sigmoid(``scale`` * logit + ``bias``)
+ ``contrast`` * the loss of contrast sets, which are not part of the cluster.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from training.batches import Draw, Lengths, Sampler
from training.contrasts import Contrasts, contrast_logits
from training.data import kind_of
from training.frames import DENIALS
from training.initialise import Shape, State
from training.losses import contrast_loss, on_both_sides, order_loss, probability_loss, ranking_loss
from training.model import Cluster, PackedModel, pack
from training.near_misses import NearMisses
from training.prepare import Prepared, load_all, load_evaluated
from training.start import deepened, load_start
from training.teacher import Mixture, Teachers

# Of a step; the last two where it has contrast sets.
FIGURES = ("loss", "accuracy", "contrast", "both_sides")
FIRST_MIXTURE: Mixture = {
    "en": {"minilm.cosine": 16.0, "bm25": 0.35},
    "code": {"minilm.cosine": 16.0, "bm25": 0.35},
    "zh": {"bm25": 0.15},
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; the last ``decay`` of the steps lowers the rates to ``final``.

    ``distinct``: so many different clusters, which come again (None: every cluster is new). ``fresh``: every other
    cluster is new all the same, and its teacher is the model that the stage starts from; ``hold`` is the weight of
    its order. ``factors``: how often a source is taken, where it differs from `training.batches`. ``deepens``: where
    the stage puts in a layer that adds nothing at first. ``teachers``: their weights.
    ``pairs``, ``statements``: so many contrast sets a cluster, made from training pairs and from frames, documents of
    at most ``contrast_tokens``; ``denials``: the share of frames that have a switch; ``contrast``: the weight of that
    loss. ``share``: that of the averaged weights in what the stage hands on; the rest is what it started from, or
    what was handed on ``back`` stages before that.
    """

    steps: int = 2550
    clusters: int = 2
    rate: float = 1e-3
    embedding_rate: float = 2e-3
    warm_up: int = 40
    decay: float = 0.45
    final: float = 0.02
    distil: float = 1.0
    teachers: Mixture = field(default_factory=lambda: FIRST_MIXTURE)
    queries: int = 12
    documents: int = 16
    distinct: int | None = None
    fresh: bool = False
    hold: float = 0.0
    factors: dict[str, float] = field(default_factory=dict)
    deepens: int | None = None
    pairs: int = 0
    statements: int = 0
    denials: float = DENIALS
    contrast_tokens: int = 96
    contrast: float = 1.0
    probability: float = 0.0
    scale: float = 0.465
    bias: float = 0.687
    document_tokens: int = 128
    long_tokens: int = 448
    long_share: float = 0.4
    surrounded_share: float = 0.5
    average: float = 0.995
    share: float = 1.0
    back: int = 0
    clip: float = 1.0
    seed: int = 1
    save_every: int = 100


@dataclass(frozen=True)
class Speed:
    """How the same sums are computed; the numbers differ in the last digits only."""

    bfloat16: bool = False  # pays on processors with AMX, or with AVX-512 for bfloat16
    fuse: bool = False  # needs a C++ compiler

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bfloat16 else torch.float32


def sampler_of(sources: list[Prepared], recipe: Recipe, lengths: Lengths) -> Sampler:
    return Sampler(
        sources, recipe.seed, lengths, recipe.queries, recipe.documents, recipe.distinct, recipe.fresh, recipe.factors
    )


def begun(recipe: Recipe, shape: Shape, state: State) -> tuple[Shape, State]:
    """What a stage trains, given what it starts from."""
    return (shape, state) if recipe.deepens is None else deepened(shape, state, recipe.deepens, recipe.seed)


class Trainer:
    """Model, averaged weights and optimiser (all that a checkpoint holds), and what clusters are made of.

    It starts from ``shape`` and ``state``. ``work`` holds the tokenizer and the teachers' scores.
    """

    def __init__(
        self,
        recipe: Recipe,
        shape: Shape,
        state: State,
        sources: list[Prepared],
        work: Path,
        speed: Speed = Speed(),
    ) -> None:
        self.recipe, self.sources = recipe, sources
        self.model = PackedModel(*begun(recipe, shape, state), speed.dtype, speed.fuse)
        self.averaged = {name: tensor.clone() for name, tensor in self.model.state().items()}
        lengths = Lengths(recipe.document_tokens, recipe.long_tokens, recipe.long_share, recipe.surrounded_share)
        self.sampler = sampler_of(sources, recipe, lengths)
        makers = [NearMisses(source, kind_of(source)) for source in sources]
        tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        self.contrasts = Contrasts(
            sources, makers, self.sampler.shares, tokenizer, load_evaluated(work), recipe.contrast_tokens
        )
        self.teacher = PackedModel(shape, state, speed.dtype, speed.fuse) if recipe.fresh else None
        self.teachers = Teachers(sources, recipe.teachers, work / "teachers", speed.dtype) if recipe.distil else None
        embeddings = [p for n, p in zip(self.model.names, self.model.weights, strict=True) if "embed_tokens" in n]
        others = [p for n, p in zip(self.model.names, self.model.weights, strict=True) if "embed_tokens" not in n]
        groups = [{"params": embeddings, "peak": recipe.embedding_rate}, {"params": others, "peak": recipe.rate}]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        # One core a cluster: with several cores on one, each small operation would wait for the slowest of them.
        self.workers = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))
        self.asked: dict[int, tuple[Draw, Future[torch.Tensor] | None]] = {}
        self.step = 0

    def set_rate(self) -> None:
        """Warm-up, a long constant stretch, a straight way down: a run can be lengthened while it is constant."""
        recipe = self.recipe
        left = (recipe.steps - self.step) / (recipe.steps * recipe.decay)
        share = min(1.0, (self.step + 1) / recipe.warm_up, max(left, recipe.final))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * share

    @torch.no_grad()
    def taught(self, draw: Draw, fresh: bool) -> torch.Tensor:
        """The teachers' logits of a draw, (queries, documents)."""
        if fresh and self.teacher is not None:
            found: torch.Tensor = self.teacher(self.packed(draw))
            return found
        assert self.teachers is not None
        return self.teachers.logits(draw)

    def packed(self, draw: Draw) -> Cluster:
        queries = [self.sources[draw.source].queries[int(place)] for place in draw.queries]
        return pack(draw.texts, queries, self.recipe.long_tokens + 1)

    def cluster_loss(self, draw: Draw, fresh: bool, asked: Future[torch.Tensor] | None) -> tuple[torch.Tensor, float]:
        """Loss, and the share of queries whose best document is right. ``asked``: what the teachers will say."""
        recipe = self.recipe
        logits = self.model(self.packed(draw))
        relevant = torch.from_numpy(draw.relevant)
        loss = ranking_loss(logits, relevant)
        if asked is not None:
            taught = asked.result()
            found = F.log_softmax(logits, dim=1)
            loss = loss + recipe.distil * F.kl_div(found, F.softmax(taught, dim=1), reduction="none").sum(1).mean()
            if fresh and recipe.hold:
                loss = loss + recipe.hold * order_loss(logits, taught)
        if recipe.probability:
            loss = loss + recipe.probability * probability_loss(recipe.scale * logits + recipe.bias, relevant)
        hits = relevant.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return loss, float(hits)

    def contrast_step(self, index: int) -> tuple[float, float]:
        """Adds the gradient of the contrast sets that belong to cluster ``index``; their loss and share in order."""
        recipe = self.recipe
        sets = self.contrasts.draw(
            recipe.pairs, recipe.statements, np.random.default_rng([recipe.seed, index, 3]), recipe.denials
        )
        logits, labels = contrast_logits(self.model, sets)
        loss = contrast_loss(logits, labels, recipe.scale, recipe.bias)
        (loss * recipe.contrast / recipe.clusters).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), on_both_sides(logits.detach(), labels, recipe.scale, recipe.bias)

    def _begin(self, step: int) -> None:
        """Draws the clusters of a step and asks the teachers, unless that was done before."""
        for index in self._places(step):
            if index not in self.asked:
                draw, fresh = self.sampler.draw(index), self.sampler.is_fresh(index)
                asked = self.workers.submit(self.taught, draw, fresh) if self.recipe.distil else None
                self.asked[index] = draw, asked

    def _places(self, step: int) -> range:
        return range(step * self.recipe.clusters, (step + 1) * self.recipe.clusters)

    def _work(self, index: int, draw: Draw, asked: Future[torch.Tensor] | None) -> list[float]:
        loss, hit = self.cluster_loss(draw, self.sampler.is_fresh(index), asked)
        (loss / self.recipe.clusters).backward()  # type: ignore[no-untyped-call]
        return [float(loss.detach()), hit, *(self.contrast_step(index) if self.recipe.pairs else ())]

    def train_step(self) -> dict[str, float]:
        self.set_rate()
        self.optimiser.zero_grad(set_to_none=True)
        self._begin(self.step)
        working = [
            self.workers.submit(self._work, index, *self.asked.pop(index)) for index in self._places(self.step)
        ]
        if self.step + 1 < self.recipe.steps:
            # The teachers do not wait for the weights: a worker that is done with this step asks them for the next.
            self._begin(self.step + 1)
        figures = [work.result() for work in working]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        self._average()
        return dict(zip(FIGURES, np.mean(figures, axis=0).tolist(), strict=False))

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


def teach(work: Path, recipe: Recipe, speed: Speed) -> None:
    """The teachers' scores of all distinct clusters of a stage; those on disk are left as they are."""
    sources = load_all(work / "prepared")
    teachers = Teachers(sources, recipe.teachers, work / "teachers", speed.dtype)
    sampler = sampler_of(sources, replace(recipe, fresh=False), Lengths())
    for index in range(recipe.distinct or 0):
        draw = sampler.draw(index)
        teachers.scores(sources[draw.source], draw.queries, draw.documents)


def is_done(checkpoint: Path, recipe: Recipe) -> bool:
    return checkpoint.exists() and bool(torch.load(checkpoint, weights_only=True, mmap=True)["step"] == recipe.steps)


def train(work: Path, run: Path, recipe: Recipe, speed: Speed, start: tuple[Shape, State]) -> bool:
    """Trains to ``recipe.steps``, or to a SIGTERM, after which another call goes on; whether all steps are done."""
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    if is_done(checkpoint, recipe):
        return True
    trainer = Trainer(recipe, *start, load_all(work / "prepared"), work, speed)
    if checkpoint.exists():
        trainer.restore(checkpoint)
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
    return trainer.step == recipe.steps


def stage_checkpoint(run: Path, stage: int) -> Path:
    return run / f"stage{stage + 1}" / "checkpoint.pt"


def mean_state(first: State, second: State, share: float) -> State:
    """Weighted mean of weights that were trained one from another; ``share`` is that of the second."""
    return {name: torch.lerp(tensor, second[name], share) for name, tensor in first.items()}


def ended(checkpoint: Path, recipe: Recipe, handed_on: list[tuple[Shape, State]]) -> tuple[Shape, State]:
    """What a stage hands on, given what the stages before it did; the last of these is what it started from.

    Where a run begins with a later stage, that is its first: no stage reaches further back.
    """
    shape, state = begun(recipe, *handed_on[max(-1 - recipe.back, -len(handed_on))])
    averaged: State = torch.load(checkpoint, weights_only=True)["averaged"]
    return shape, mean_state(state, averaged, recipe.share)


def train_stages(
    work: Path, run: Path, stages: list[Recipe], speed: Speed, folder: Path | None = None, first: int = 0
) -> bool:
    """One stage after another. Goes on where it was stopped; whether all stages are done.

    ``folder``: a published model to begin from, with stage ``first``; it stands for all stages before that.
    """
    handed_on = [load_start(work, stages[0].seed, folder)]
    for stage in range(first, len(stages)):
        checkpoint = stage_checkpoint(run, stage)
        if not train(work, checkpoint.parent, stages[stage], speed, handed_on[-1]):
            return False
        handed_on.append(ended(checkpoint, stages[stage], handed_on))
    return True


def trained(
    work: Path, run: Path, stages: list[Recipe], folder: Path | None = None, first: int = 0
) -> tuple[Shape, State]:
    """What the last stage that was begun hands on."""
    handed_on = [load_start(work, stages[0].seed, folder)]
    for stage in range(first, len(stages)):
        if stage_checkpoint(run, stage).exists():
            handed_on.append(ended(stage_checkpoint(run, stage), stages[stage], handed_on))
    return handed_on[-1]


def read_stages(path: Path, seed: int) -> list[Recipe]:
    """A JSON list with the fields of each stage's `Recipe`; every stage draws its own clusters."""
    return [Recipe(**fields, seed=seed + stage) for stage, fields in enumerate(json.loads(path.read_text()))]
