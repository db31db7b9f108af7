"""The losses of a step, of clusters and of contrast sets."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from training.contrasts import NEAR, NO_QUERY, OTHER, RIGHT


def ranking_loss(logits: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """-log of the probability mass on the documents that answer the query, mean over queries."""
    found = F.log_softmax(logits, dim=1)
    return -found.masked_fill(~relevant, float("-inf")).logsumexp(dim=1).mean()


def order_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of a cluster: how far each document's distance from its query's mean is from the teacher's.

    Both (queries, documents). It holds the whole order, where a softmax hardly looks below the first documents.
    """
    return F.smooth_l1_loss(logits - logits.mean(1, keepdim=True), wanted - wanted.mean(1, keepdim=True))


def probability_loss(logits: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of a cluster; right and wrong pairs weigh alike."""
    return (F.softplus(-logits[relevant]).mean() + F.softplus(logits[~relevant]).mean()) / 2


def contrast_loss(logits: torch.Tensor, labels: torch.Tensor, scale: float, bias: float) -> torch.Tensor:
    """Of contrast sets, by what `contrast_logits` gives.

    Binary cross entropy, in which right, near and other pairs weigh 4 : 3 : 1, and cross entropy over the two
    documents of every query, with half the weight.
    """
    probable = scale * logits + bias
    right = F.softplus(-probable[labels == RIGHT]).mean()
    near = F.softplus(probable[labels == NEAR]).mean()
    other = F.softplus(probable[labels == OTHER]).mean()
    margin = torch.where(labels[:, 0] == RIGHT, 1, -1) * (logits[:, 0] - logits[:, 1])
    order = F.softplus(-margin[of_own_set(labels)]).mean()
    return right / 2 + near * 3 / 8 + other / 8 + order / 2


def of_own_set(labels: torch.Tensor) -> torch.Tensor:
    """(sets, 3): where a set has a query of its own."""
    return (labels[:, 0] != OTHER) & (labels[:, 0] != NO_QUERY)


def on_both_sides(logits: torch.Tensor, labels: torch.Tensor, scale: float, bias: float) -> float:
    """Share of the queries for which the right document is above one half and the near miss below."""
    right = labels == RIGHT
    agreed = ((scale * logits + bias > 0) == right).all(dim=1)
    return float(agreed[of_own_set(labels)].float().mean())
