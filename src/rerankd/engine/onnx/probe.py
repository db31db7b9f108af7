"""What this processor's products of eight-bit numbers do, found by computing some."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime

from rerankd.engine.onnx.graph import MICROSOFT, GraphBuilder
from rerankd.engine.onnx.protobuf import DataType

_WIDTH = 256
_OUTPUTS = 32


@functools.cache
def signed_products_are_exact() -> bool:
    """Whether unsigned rows times signed weights give the exact sum, as with VNNI, AMX and on ARM.

    Where they do they are several times as fast as unsigned weights. Where they do not, on AVX2 and AVX-512 without
    VNNI, two products are added in sixteen bits (``pmaddubsw``) and saturate without a word. ONNX Runtime's kernels
    are asked themselves: no list of processors knows which of them it takes.
    """
    builder = GraphBuilder({})
    rows = builder.node("Cast", "input_ids", to=DataType.UINT8)
    weight = builder.constant(np.full((_WIDTH, _OUTPUTS), 127, np.int8))
    one = builder.constant(np.float32(1))
    zeros = builder.constant(np.uint8(0)), builder.constant(np.int8(0))
    sums = builder.node("MatMulIntegerToFloat", rows, weight, one, one, *zeros, domain=MICROSOFT)
    least = builder.node("ReduceMin", sums, builder.constant([1]), keepdims=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = builder.model(("input_ids",), least)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input_ids": np.full((_OUTPUTS, _WIDTH), 255, np.int64)})[0]
    return bool((found == _WIDTH * 255 * 127).all())
