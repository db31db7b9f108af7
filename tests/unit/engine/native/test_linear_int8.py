"""Products in eight bits: how near they are to the exact ones."""

from __future__ import annotations

import pytest
import torch

from rerankd.engine.native.activations import QuantizedTensor
from rerankd.engine.native.cpu.linear_int8 import QMAX, Int8Linear, concat_outputs, onednn_qmax
from rerankd.engine.native.cpu.torch_ops import TorchOps

LOSS = QMAX / onednn_qmax()
"""What a step of a weight is larger where the processor lets weights have fewer of them."""


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(9, 256, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(48, 256, generator=torch.Generator().manual_seed(2))


def in_eight_bits(rows: torch.Tensor) -> QuantizedTensor:
    """Rows whose norm and weight are one, as the engine makes them for a product."""
    return TorchOps().add_rms_norm(rows, None, torch.ones(rows.shape[1]), 1e-6, torch.uint8)


def error(linear: Int8Linear, given: QuantizedTensor, weight: torch.Tensor) -> float:
    """Of the product, relative, what the rounding of the rows gave aside."""
    assert given.scales is not None
    exact = ((given.values.float() - 128) * given.scales[:, None]) @ weight.t()
    (found,) = linear(given)
    return float((found.dequantize() - exact).norm() / exact.norm())


def test_weights_in_eight_bits_give_a_hundredth(rows: torch.Tensor, weight: torch.Tensor) -> None:
    assert error(Int8Linear([weight], torch.float32), in_eight_bits(rows), weight) < 1e-2 * LOSS


def test_weights_in_twice_eight_bits_are_all_but_exact(rows: torch.Tensor, weight: torch.Tensor) -> None:
    assert error(Int8Linear([weight], torch.float32, two_term=True), in_eight_bits(rows), weight) < 1e-4 * LOSS**2


def test_products_of_the_largest_numbers_are_exact() -> None:
    """Not all processors can: those without VNNI would cut the sum of two such products off."""
    weight = torch.ones(32, 256)
    weight[::2] *= -3
    given = QuantizedTensor(torch.full((40, 256), 255, dtype=torch.uint8), torch.ones(40))
    (found,) = Int8Linear([weight], torch.float32)(given)
    assert torch.allclose(found.dequantize(), torch.full((40, 1), 127.0) @ weight.sum(dim=1)[None], rtol=1e-6)


def test_products_side_by_side_are_those_of_each(rows: torch.Tensor, weight: torch.Tensor) -> None:
    given = in_eight_bits(rows)
    whole = Int8Linear([weight[:32], weight[32:]], torch.float32)(given)
    parts = [Int8Linear([weight[begin:end]], torch.float32) for begin, end in ((0, 32), (32, 48))]
    for one, other in zip(whole, concat_outputs(*parts)(given), strict=True):
        assert torch.equal(one.dequantize(), other.dequantize())


def test_biases_are_added_to_the_numbers(rows: torch.Tensor, weight: torch.Tensor) -> None:
    given, bias = in_eight_bits(rows), torch.arange(48.0)
    (plain,) = Int8Linear([weight], torch.float32)(given)
    (shifted,) = Int8Linear([weight], torch.float32, [bias])(given)
    assert torch.allclose(shifted.dequantize(), plain.dequantize() + bias)
