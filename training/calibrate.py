"""Scale and bias of the sigmoid, fitted on training queries that were held out.

Right pairs against an equal weight of wrong ones, half of them hard (BM25) and half drawn at random: a probability
of one half is then where a document is as likely to answer as not in such a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.batches import held_out
from training.model import PackedModel, pack
from training.prepare import Prepared

PAIRS_A_SOURCE = 30
HARD, RANDOM = 3, 3


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * logit + bias); the rest says how well it separates."""

    scale: float
    bias: float
    right_above_half: float
    wrong_below_half: float


@torch.inference_mode()
def held_out_logits(
    model: PackedModel, source: Prepared, random: np.random.Generator, limit: int
) -> tuple[list[float], list[float]]:
    """Logits of right and of wrong pairs of one source."""
    right: list[float] = []
    wrong: list[float] = []
    queries = [query for query in range(len(source.queries)) if held_out(query)][:PAIRS_A_SOURCE]
    for query in queries:
        own = set(source.positives[query].tolist())
        hard = random.permutation(source.negatives[query])[:HARD].tolist()
        strangers = [
            place for place in random.integers(len(source.documents), size=RANDOM).tolist() if place not in own
        ]
        places = [int(source.positives[query][0]), *hard, *strangers]
        cluster = pack([source.documents[place] for place in places], [source.queries[query]], limit)
        logits = model(cluster)[0].tolist()
        right.append(logits[0])
        wrong.extend(logits[1:])
    return right, wrong


def fit(right: NDArray[np.float32], wrong: NDArray[np.float32], rounds: int = 60) -> tuple[float, float]:
    """Logistic regression of one variable, both classes weighted alike, by L-BFGS."""
    logits = torch.from_numpy(np.concatenate([right, wrong]))
    labels = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))])
    weights = torch.cat([torch.full((len(right),), 0.5 / len(right)), torch.full((len(wrong),), 0.5 / len(wrong))])
    parameters = torch.tensor([1.0, -float(logits.mean())], requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        margin = parameters[0] * logits + parameters[1]
        loss = F.binary_cross_entropy_with_logits(margin, labels, weights, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    scale, bias = parameters.detach().tolist()
    return scale, bias


def calibrate(model: PackedModel, sources: list[Prepared], seed: int = 1, limit: int = 256) -> Calibration:
    random = np.random.default_rng(seed)
    found = [held_out_logits(model, source, random, limit) for source in sources]
    right = np.array([logit for pair in found for logit in pair[0]], dtype=np.float32)
    wrong = np.array([logit for pair in found for logit in pair[1]], dtype=np.float32)
    scale, bias = fit(right, wrong)
    return Calibration(
        scale=scale,
        bias=bias,
        right_above_half=float((scale * right + bias > 0).mean()),
        wrong_below_half=float((scale * wrong + bias < 0).mean()),
    )
