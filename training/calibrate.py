"""Scale and bias of the sigmoid, fitted on what is not trained on.

One half is where hand-written pairs (`threshold_pairs.jsonl`) part: right documents above, near misses below.
The scale is fitted on training queries that were held out, right pairs against an equal weight of wrong ones: a
quarter hard (BM25), a quarter drawn at random, a quarter near misses of held-out queries, a quarter near misses among
statements of frames that were held out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.batches import labelled
from training.contrasts import NEAR, RIGHT, Contrasts, contrast_logits
from training.data import held_out, kind_of, read_json_lines
from training.frames import HELD_OUT_FRAMES
from training.model import PackedModel, pack
from training.near_misses import NearMisses
from training.prepare import QUERY_TOKENS, Prepared
from training.tokenizer import token_ids

PAIRS_A_SOURCE = 15
HARD, RANDOM = 3, 3
STATEMENTS, STATEMENTS_A_PASS = 480, 24
KINDS = ("hard", "random", "near", "statement")
THRESHOLD_PAIRS = Path(__file__).with_name("threshold_pairs.jsonl")
# Where a threshold is looked for; within what distance of it a pair counts by degrees; how much may be given away.
LOGITS, SOFTNESS, SLACK = np.linspace(-10, 10, 2_001, dtype=np.float32), 1.0, 0.01


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * logit + bias); the rest says how well it separates."""

    scale: float
    bias: float
    right_above_half: float
    wrong_below_half: float
    near_below_half: float


@dataclass
class Logits:
    """Of right pairs, and of wrong ones by their kind."""

    right: list[float] = field(default_factory=list)
    wrong: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


@torch.inference_mode()
def held_out_logits(
    model: PackedModel, source: Prepared, tokenizer: Tokenizer, random: np.random.Generator, limit: int, found: Logits
) -> None:
    """Adds the pairs of one source."""
    makers = NearMisses(source, kind_of(source))
    queries = [query for query in range(len(source.queries)) if held_out(query)][:PAIRS_A_SOURCE]
    for query in queries:
        own = set(source.positives[query].tolist())
        hard = random.permutation(source.negatives[query])[:HARD].tolist()
        strangers = [
            place for place in random.integers(len(source.documents), size=RANDOM).tolist() if place not in own
        ]
        right = int(source.positives[query][0])
        documents = [source.documents[place] for place in (right, *hard, *strangers)]
        made = makers.make(query, right, random)
        if made is not None:
            documents.append(token_ids(tokenizer, made.document, limit))
        asked = [source.queries[query]]
        if made is not None and made.query is not None:
            asked.append(token_ids(tokenizer, made.query, QUERY_TOKENS))
        logits = model(pack(documents, asked, limit)).tolist()
        found.right.append(logits[0][0])
        found.wrong["hard"].extend(logits[0][1 : 1 + len(hard)])
        found.wrong["random"].extend(logits[0][1 + len(hard) : 1 + len(hard) + len(strangers)])
        if made is not None and not np.array_equal(documents[-1], documents[0][:limit]):
            found.wrong["near"].append(logits[0][-1])
            if len(asked) > 1:
                found.right.append(logits[1][-1])
                found.wrong["near"].append(logits[1][0])


@torch.inference_mode()
def statement_logits(model: PackedModel, contrasts: Contrasts, random: np.random.Generator, found: Logits) -> None:
    """Adds contrast sets of statements."""
    for _ in range(0, STATEMENTS, STATEMENTS_A_PASS):
        logits, labels = contrast_logits(model, contrasts.draw(0, STATEMENTS_A_PASS, random))
        found.right.extend(logits[labels == RIGHT].tolist())
        found.wrong["statement"].extend(logits[labels == NEAR].tolist())


def wrong_weights(wrong: dict[str, list[float]]) -> NDArray[np.float32]:
    """Every kind that there is weighs as much as any other; together 1."""
    kinds = [np.full(len(logits), 1 / len(logits)) for logits in wrong.values() if logits]
    return (np.concatenate(kinds) / len(kinds)).astype(np.float32)


@torch.inference_mode()
def pair_logits(model: PackedModel, tokenizer: Tokenizer, limit: int) -> NDArray[np.float32]:
    """Of the hand-written pairs: right and wrong document, (pairs, 2)."""
    found = []
    for row in read_json_lines(THRESHOLD_PAIRS):
        documents = [token_ids(tokenizer, str(row[name]), limit) for name in ("right", "wrong")]
        found.append(
            model(pack(documents, [token_ids(tokenizer, str(row["query"]), QUERY_TOKENS)], limit))[0].tolist()
        )
    return np.array(found, dtype=np.float32)


def parted(pairs: NDArray[np.float32]) -> float:
    """Share of the pairs that the best threshold parts: right document above, wrong one below."""
    return float(((pairs[:, :1] > LOGITS) & (pairs[:, 1:] < LOGITS)).mean(axis=0).max())


def low_threshold(pairs: NDArray[np.float32]) -> float:
    """The lowest logit that parts nearly as many pairs as the best one: right documents above, wrong ones below.

    Between hand-written sentences any of many thresholds does; long passages that answer are scored lower than they.
    """
    above, below = (
        1 / (1 + np.exp(sign * (LOGITS[:, None] - pairs[:, column]) / SOFTNESS)) for column, sign in ((0, 1), (1, -1))
    )
    shares = (above * below).mean(axis=1)
    return float(LOGITS[(shares >= shares.max() - SLACK).argmax()])


def fit_scale(
    right: NDArray[np.float32],
    wrong: NDArray[np.float32],
    wrong_weights: NDArray[np.float32],
    threshold: float,
    rounds: int = 60,
) -> float:
    """Logistic regression of the distance from the threshold, both classes weighted alike; the weights sum to 1."""
    distances = torch.from_numpy(np.concatenate([right, wrong])) - threshold
    labels = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))])
    weights = torch.cat([torch.full((len(right),), 0.5 / len(right)), torch.from_numpy(wrong_weights) / 2])
    scale = torch.tensor(1.0, requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(scale * distances, labels, weights, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(scale.detach())


def calibrate(
    model: PackedModel, sources: list[Prepared], tokenizer: Tokenizer, seed: int = 1, limit: int = 256
) -> Calibration:
    random, sources = np.random.default_rng(seed), labelled(sources)
    found = Logits()
    for source in sources:
        held_out_logits(model, source, tokenizer, random, limit, found)
    makers = [NearMisses(source, kind_of(source)) for source in sources]
    shares = np.full(len(sources), 1 / len(sources))
    contrasts = Contrasts(sources, makers, shares, tokenizer, frozenset(), limit, HELD_OUT_FRAMES)
    statement_logits(model, contrasts, random, found)
    right = np.array(found.right, dtype=np.float32)
    wrong = np.array([logit for logits in found.wrong.values() for logit in logits], dtype=np.float32)
    near = np.array(found.wrong["near"] + found.wrong["statement"], dtype=np.float32)
    threshold = low_threshold(pair_logits(model, tokenizer, limit))
    scale = fit_scale(right, wrong, wrong_weights(found.wrong), threshold)
    bias = -scale * threshold
    return Calibration(
        scale=scale,
        bias=bias,
        right_above_half=float((scale * right + bias > 0).mean()),
        wrong_below_half=float((scale * wrong + bias < 0).mean()),
        near_below_half=float((scale * near + bias < 0).mean()),
    )
