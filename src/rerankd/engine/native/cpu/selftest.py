"""Whether the C kernels give what torch gives, on small random rows: a compiler is not to be trusted blindly."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from rerankd.engine.base import Batch, Group
from rerankd.engine.native import tiled
from rerankd.engine.native.cpu.library import CpuKernels, load_kernels
from rerankd.engine.native.kept import Loan
from rerankd.engine.native.kernel_attention import KernelAttention, has_kernel
from rerankd.engine.native.layers import Activations, Pieces, TorchPieces, plain, rms_norm
from rerankd.engine.native.linear import Int8Linear, VectorLinear
from rerankd.engine.native.plan import Placed
from rerankd.engine.native.stacks import Stacks

_HEADS, _KEY_HEADS, _SIZE = 4, 2, 32
_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far attention may be from torch's in float32 ..."""
_PRODUCT_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.uint8: 5e-2}
"""... and products, by the format of their rows, as a share of the largest."""


@cache
def kernels() -> CpuKernels | None:
    """The kernels, built where they are not yet; None where there is no compiler or what it builds is not right."""
    found = load_kernels()
    if found is None:
        return None
    generator = torch.Generator().manual_seed(0)
    checks = (_pieces_agree, _attention_agrees, _products_agree, _vectors_agree)
    return found if all(check(found, generator) for check in checks) else None


def _pieces_agree(found: CpuKernels, generator: torch.Generator) -> bool:
    rows, added, heads = (torch.randn(*shape, generator=generator) for shape in ((3, 64), (3, 64), (3, 2, 32)))
    weight, angles = torch.randn(64, generator=generator), torch.randn(3, 16, generator=generator)
    turns = (angles.cos(), angles.sin())
    results = []
    pieces: Pieces
    for pieces in (found, TorchPieces()):
        turned = torch.empty(3, 2, 32)
        pieces.qk_norm_rope(Activations(heads), weight.view(2, 32), 1e-6, turns, turned)
        normed = plain(pieces.add_rms_norm(rows.clone(), Activations(added), weight, 1e-6, torch.float32)).values
        gated = pieces.silu_and_mul(Activations(rows.clone()), Activations(added), torch.float32).values
        results.append(torch.cat([turned.flatten(), normed.flatten(), gated.flatten()]))
    return bool(torch.allclose(results[0], results[1], rtol=1e-5, atol=1e-5))


def _attention_agrees(found: CpuKernels, generator: torch.Generator) -> bool:
    """In every format that the kernels know, without a prefix, with a new and a kept one, over several blocks."""
    ids = np.zeros(70, dtype=np.int32)
    batch = Batch.of([Group(ids[:40], (ids[:33], ids[:5])), Group(ids[:0], (ids,)), Group(ids[:40], (ids[:3],))])
    placed = Placed.of(batch, Loan(counts=np.array([0, 0, 37]), places=np.array([0, 0, 0])))
    rows = (placed.computed, batch.tokens, batch.tokens)
    shapes = zip(rows, (_HEADS, _KEY_HEADS, _KEY_HEADS), (_SIZE,) * 3, strict=True)
    given = [torch.randn(*shape, generator=generator) for shape in shapes]
    stacks = Stacks(placed, torch.device("cpu"), torch.float32)
    for dtype, bound in _BOUNDS.items():
        if has_kernel(found, dtype, _SIZE):
            rounded = [tensor.to(dtype) for tensor in given]
            attended = KernelAttention(placed, found, _HEADS // _KEY_HEADS).every(*rounded)
            expected = stacks.every(*(tensor.float() for tensor in rounded))
            if not (attended.float() - expected).abs().max() <= bound:  # what is not a number is not right either
                return False
    return True


def _products_agree(found: CpuKernels, generator: torch.Generator) -> bool:
    """Norm, gate and product in tiles one after another, in every format and of every shape."""
    if not found.has_amx:
        return True
    rows, weight = torch.randn(33, 192, generator=generator), torch.randn(192, generator=generator)
    gate, up = torch.randn(2, 128, 192, generator=generator).bfloat16()
    down = torch.randn(64, 128, generator=generator).bfloat16()
    wide = rms_norm(rows, weight, 1e-6)
    expected = (F.silu(wide @ gate.float().t()) * (wide @ up.float().t())) @ down.float().t()
    for dtype, bound in _PRODUCT_BOUNDS.items():
        eight = dtype == torch.uint8
        out = torch.bfloat16 if eight else dtype
        normed = found.with_amx_packing().add_rms_norm(rows.clone(), None, weight, 1e-6, dtype)
        gated = tiled.TiledGate(found, tiled.gated(gate, up, in_eight_bits=eight), out)(normed)
        kinds = (tiled.rounded, tiled.finely_rounded) if eight else (tiled.in_place,)
        for product in tiled.TiledLinear(found, [kind(down) for kind in kinds], out)(gated):
            # What is not a number is not right either.
            if not (product.values.float() - expected).abs().max() <= bound * expected.abs().max():
                return False
    return True


def _vectors_agree(found: CpuKernels, generator: torch.Generator) -> bool:
    """Products in vectors, over more than one slice of the inputs."""
    if not found.has_avx2:
        return True
    rows, weight = (torch.randn(count, 576, generator=generator) for count in (33, 64))
    eight = TorchPieces().add_rms_norm(rows.clone(), None, torch.ones(576), 1e-6, torch.uint8)
    products = {
        torch.float32: (VectorLinear(found, [weight])(Activations(rows)), rows),
        torch.bfloat16: (VectorLinear(found, [weight.bfloat16()])(Activations(rows)), rows),
        torch.uint8: (
            Int8Linear([weight], torch.float32, kernels=found)(eight),
            rms_norm(rows, torch.ones(576), 1e-6),
        ),
    }
    for dtype, ((product,), given) in products.items():
        expected = given @ weight.t()
        # What is not a number is not right either.
        if not (product.numbers() - expected).abs().max() <= _PRODUCT_BOUNDS[dtype] * expected.abs().max():
            return False
    return True
