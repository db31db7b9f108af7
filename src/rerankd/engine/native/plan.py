"""How a batch lies in memory for one forward pass.

Every token that is computed is one *row*: first the prefixes, one after another, then the tails. A pair is the
sequence of its group's prefix rows and its own tail rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.base import Batch
from rerankd.engine.native.attention import Attention, LayOut


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch, ready for the model.

    Attributes:
        ids: int64 (rows,), token ids.
        positions: int64 (rows,), positions within the pair.
        last: int64 (pairs,), the row of each pair's last token.
        attention: which rows attend to which.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    attention: Attention


def plan_batch(batch: Batch, device: torch.device, lay_out: LayOut) -> Plan:
    """Lay ``batch`` out on ``device``."""

    def placed(rows: NDArray[np.int32] | NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(device, non_blocking=True)

    return Plan(
        ids=placed(np.concatenate([batch.prefix_ids, batch.tail_ids])),
        positions=placed(_positions(batch)),
        last=placed(len(batch.prefix_ids) + batch.tail_offsets[1:] - 1),
        attention=lay_out(batch),
    )


def _positions(batch: Batch) -> NDArray[np.int64]:
    """Each prefix counts from 0, each tail goes on where its group's prefix ended."""
    prefixes = np.repeat(np.diff(batch.prefix_offsets), np.diff(batch.group_offsets))
    begins = np.concatenate([np.zeros(batch.groups, dtype=np.int64), prefixes])
    lengths = np.concatenate([np.diff(batch.prefix_offsets), np.diff(batch.tail_offsets)])
    before = np.cumsum(lengths) - lengths
    positions: NDArray[np.int64] = np.arange(batch.tokens) + np.repeat(begins - before, lengths)
    return positions
