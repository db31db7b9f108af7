"""Eight-bit floating-point products: the arithmetic, and who is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.native.activations import FP8, QuantizedTensor, quantize_fp8
from rerankd.engine.native.cuda.linear import Fp8Linear
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError


def rows(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random rows of very different sizes, one of them all zero."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, size, generator=generator) * torch.logspace(-6, 4, count)[:, None]
    made[count // 2] = 0
    return made.bfloat16()


def product(weight: torch.Tensor, given: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``weight`` as two matrices that share their input, the results side by side again."""
    biases = None if bias is None else [bias[:16], bias[16:]]
    parts = Fp8Linear([weight[:16], weight[16:]], torch.bfloat16, biases)(QuantizedTensor(*quantize_fp8(given)))
    assert [part.values.shape[1] for part in parts] == [16, len(weight) - 16]
    return torch.cat([part.dequantize() for part in parts], dim=1)


def test_a_quantised_row_is_off_by_a_sixteenth_at_most() -> None:
    original = rows(33, 256).float()
    quantised, scales = quantize_fp8(original)
    assert quantised.dtype == FP8
    assert scales.shape == (33,)
    restored = quantised.float() * scales[:, None]
    assert torch.isfinite(restored).all()
    # Three bits after the leading one; below 2 ** -6 times the scale the steps no longer shrink.
    assert ((restored - original).abs() <= original.abs() / 16 + scales[:, None] * 2**-10).all()
    assert set(quantised.float().abs().amax(dim=1).tolist()) == {0.0, torch.finfo(FP8).max}


@pytest.mark.parametrize("count", [1, 2, 17])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_near_the_exact_one(count: int, has_bias: bool) -> None:
    weight, given = rows(48, 256, seed=1), rows(count, 256, seed=2)
    bias = torch.linspace(-1, 1, 48).bfloat16() if has_bias else None
    found = product(weight, given, bias)
    exact = torch.nn.functional.linear(given.double(), weight.double(), None if bias is None else bias.double())
    assert found.dtype == torch.bfloat16
    allowed = 0.05 * given.double().norm(dim=1, keepdim=True) * weight.double().norm(dim=1) + 2**-8 * exact.abs()
    assert ((found - exact).abs() <= allowed).all()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    weight, given = rows(48, 256, seed=1), rows(9, 256, seed=2)
    alone = torch.cat([product(weight, row[None]) for row in given])
    assert torch.allclose(product(weight, given), alone, rtol=2**-7, atol=0)


def test_matrices_that_no_card_multiplies_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="multiples of 16"):
        Fp8Linear([torch.zeros(48, 100)], torch.bfloat16)


def test_fp8_is_refused_where_nothing_computes_it(small_checkpoint: Path) -> None:
    options = EngineOptions(small_checkpoint, HeadSpec("words", positive=9, negative=8), dtype="fp8", device="cpu")
    with pytest.raises(ConfigurationError, match=r"capability 8\.9"):
        create_engine("native", options)
