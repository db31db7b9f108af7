"""Whether the C kernels give what torch gives, on small random rows: a compiler is not to be trusted blindly."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.activations import QuantizedTensor, require_unpacked
from rerankd.engine.native.cpu import linear_amx
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.cpu.library import CpuKernels, load_kernels
from rerankd.engine.native.cpu.linear_avx2 import Avx2Linear
from rerankd.engine.native.cpu.linear_int8 import Int8Linear
from rerankd.engine.native.cpu.torch_ops import TorchOps, rms_norm
from rerankd.engine.native.forward_batch import TokenLayout
from rerankd.engine.native.kept import Loan
from rerankd.engine.native.ops import FusedOps

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
    pieces: FusedOps
    for pieces in (found, TorchOps()):
        turned = torch.empty(3, 2, 32)
        pieces.qk_norm_rope(QuantizedTensor(heads), weight.view(2, 32), 1e-6, turns, turned)
        normed = pieces.add_rms_norm(rows.clone(), QuantizedTensor(added), weight, 1e-6, torch.float32)
        gated = pieces.silu_and_mul(QuantizedTensor(rows.clone()), QuantizedTensor(added), torch.float32).values
        results.append(torch.cat([turned.flatten(), require_unpacked(normed).values.flatten(), gated.flatten()]))
    return bool(torch.allclose(results[0], results[1], rtol=1e-5, atol=1e-5))


def _attention_agrees(found: CpuKernels, generator: torch.Generator) -> bool:
    """In every format that the kernels know, without a prefix, with a new and a kept one, over several blocks."""
    ids = np.zeros(70, dtype=np.int32)
    batch = Batch.of([Group(ids[:40], (ids[:33], ids[:5])), Group(ids[:0], (ids,)), Group(ids[:40], (ids[:3],))])
    placed = TokenLayout.of(batch, Loan(counts=np.array([0, 0, 37]), places=np.array([0, 0, 0])))
    rows = (placed.computed, batch.tokens, batch.tokens)
    shapes = zip(rows, (_HEADS, _KEY_HEADS, _KEY_HEADS), (_SIZE,) * 3, strict=True)
    given = [torch.randn(*shape, generator=generator) for shape in shapes]
    stacks = PaddedSDPA(placed, torch.device("cpu"), torch.float32)
    for dtype, bound in _BOUNDS.items():
        if VarlenAttention.supports(found, dtype, _SIZE):
            rounded = [tensor.to(dtype) for tensor in given]
            attended = VarlenAttention(placed, found, _HEADS // _KEY_HEADS).prefill(*rounded)
            expected = stacks.prefill(*(tensor.float() for tensor in rounded))
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
        pack_gate_up = linear_amx.pack_gate_up_int8 if eight else linear_amx.gate_up_in_place
        gated = linear_amx.AmxGateUpLinear(found, pack_gate_up(gate, up), out)(normed)
        kinds = (linear_amx.pack_int8, linear_amx.pack_two_term_int8) if eight else (linear_amx.in_place,)
        for product in linear_amx.AmxLinear(found, [kind(down) for kind in kinds], out)(gated):
            # What is not a number is not right either.
            if not (product.values.float() - expected).abs().max() <= bound * expected.abs().max():
                return False
    return True


def _vectors_agree(found: CpuKernels, generator: torch.Generator) -> bool:
    """Products in vectors, over more than one slice of the inputs."""
    if not found.has_avx2:
        return True
    rows, weight = (torch.randn(count, 576, generator=generator) for count in (33, 64))
    eight = TorchOps().add_rms_norm(rows.clone(), None, torch.ones(576), 1e-6, torch.uint8)
    products = {
        torch.float32: (Avx2Linear(found, [weight])(QuantizedTensor(rows)), rows),
        torch.bfloat16: (Avx2Linear(found, [weight.bfloat16()])(QuantizedTensor(rows)), rows),
        torch.uint8: (
            Int8Linear([weight], torch.float32, kernels=found)(eight),
            rms_norm(rows, torch.ones(576), 1e-6),
        ),
    }
    for dtype, ((product,), given) in products.items():
        expected = given @ weight.t()
        # What is not a number is not right either.
        if not (product.dequantize() - expected).abs().max() <= _PRODUCT_BOUNDS[dtype] * expected.abs().max():
            return False
    return True
