"""Whether the C kernels give what torch gives, on small random rows: a compiler is not to be trusted blindly."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.kernel_attention import KernelAttention, has_kernel
from rerankd.engine.native.kernels import Kernels, load_kernels
from rerankd.engine.native.layers import Activations, Pieces, TorchPieces
from rerankd.engine.native.stacks import Stacks
from rerankd.engine.native.tiled import (
    TiledLinear,
    finely_rounded,
    gated_in_place,
    gated_rounded,
    in_place,
    rounded,
)

_HEADS, _KEY_HEADS, _SIZE = 4, 2, 32
_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far attention may be from torch's in float32."""


@cache
def kernels() -> Kernels | None:
    """The kernels, built where they are not yet; None where there is no compiler or what it builds is not right."""
    found = load_kernels()
    if found is None:
        return None
    generator = torch.Generator().manual_seed(0)
    right = (
        _pieces_agree(found, generator) and _attention_agrees(found, generator) and _products_agree(found, generator)
    )
    return found if right else None


def _pieces_agree(found: Kernels, generator: torch.Generator) -> bool:
    rows, added, heads = (torch.randn(*shape, generator=generator) for shape in ((3, 64), (3, 64), (3, 2, 32)))
    weight, angles = torch.randn(64, generator=generator), torch.randn(3, 16, generator=generator)
    turns = (angles.cos(), angles.sin())
    results = []
    pieces: Pieces
    for pieces in (found, TorchPieces()):
        turned = torch.empty(3, 2, 32)
        pieces.turn(Activations(heads), weight.view(2, 32), 1e-6, turns, turned)
        normed = pieces.norm(rows.clone(), Activations(added), weight, 1e-6, torch.float32).values
        gated = pieces.gate(Activations(rows.clone()), Activations(added), torch.float32).values
        results.append(torch.cat([turned.flatten(), normed.flatten(), gated.flatten()]))
    return bool(torch.allclose(results[0], results[1], rtol=1e-5, atol=1e-5))


def _attention_agrees(found: Kernels, generator: torch.Generator) -> bool:
    """In every format that the kernels know, with and without a prefix, over more keys than one block has."""
    ids = np.zeros(70, dtype=np.int32)
    batch = Batch.of([Group(ids[:40], (ids[:33], ids[:5])), Group(ids[:0], (ids,))])
    shapes = ((batch.tokens, heads, _SIZE) for heads in (_HEADS, _KEY_HEADS, _KEY_HEADS))
    given = [torch.randn(*shape, generator=generator) for shape in shapes]
    stacks = Stacks(batch, torch.device("cpu"), torch.float32)
    for dtype, bound in _BOUNDS.items():
        if has_kernel(found, dtype, _SIZE):
            rounded = [tensor.to(dtype) for tensor in given]
            attended = KernelAttention(batch, found, _HEADS // _KEY_HEADS).every(*rounded)
            expected = stacks.every(*(tensor.float() for tensor in rounded))
            if not (attended.float() - expected).abs().max() <= bound:  # what is not a number is not right either
                return False
    return True


def _products_agree(found: Kernels, generator: torch.Generator) -> bool:
    """In every format, and with all that can become of a product."""
    if not found.has_tiles:
        return True
    rows = torch.randn(33, 192, generator=generator)
    gate, up = torch.randn(2, 64, 192, generator=generator).bfloat16()
    gated = F.silu(rows @ gate.float().t()) * (rows @ up.float().t())
    plain = rows @ up.float().t()
    bounds = ((torch.float32, 1e-5), (torch.bfloat16, 2e-2))
    cases = [(dtype, [in_place(up), gated_in_place(gate, up)], [plain, gated], bound) for dtype, bound in bounds]
    eight = [rounded(up), finely_rounded(up), gated_rounded(gate, up)]
    cases.append((torch.bfloat16, eight, [plain, plain, gated], 5e-2))
    for dtype, panels, expected, bound in cases:
        for one, right in zip(panels, expected, strict=True):
            (product,) = TiledLinear(found, [one], dtype)(Activations(rows.to(dtype)))
            # What is not a number is not right either.
            if not (product.values.float() - right).abs().max() <= bound * right.abs().max():
                return False
    return True
