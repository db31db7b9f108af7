"""One ONNX graph under construction: nodes, and initializers that stay where the checkpoint stores them.

Rows of all sequences lie in one matrix (batch * length, width), so that every linear layer is one GEMM; attention
alone sees (batch, length, width). A weight that is stored in float32 is external data: the file's own bytes,
memory-mapped. Half-precision weights are cast by nodes that ONNX Runtime folds when it loads the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.onnx import protobuf
from rerankd.engine.onnx.protobuf import Attribute, DataType
from rerankd.engine.onnx.quantize import QMAX, ZERO_POINT, quantize_rows
from rerankd.engine.onnx.weights import StoredTensor
from rerankd.errors import ConfigurationError

OPSETS = {"": 20, "com.microsoft": 1}
"""Opset 20 has ``Gelu``; the contributed operators are ONNX Runtime's own."""
MICROSOFT = "com.microsoft"

_STORED = {"F32": DataType.FLOAT, "F16": DataType.FLOAT16, "BF16": DataType.BFLOAT16}
_ARRAYS = {
    np.dtype(np.float32): DataType.FLOAT,
    np.dtype(np.int64): DataType.INT64,
    np.dtype(np.int32): DataType.INT32,
    np.dtype(np.uint8): DataType.UINT8,
    np.dtype(np.int8): DataType.INT8,
    np.dtype(np.bool_): DataType.BOOL,
}
_IGNORED = (".position_ids", ".inv_freq", "lm_head.weight")
"""Endings of stored tensors that no forward pass of a classifier reads."""


class GraphBuilder:
    """Collects a graph; methods that compute return the names of their outputs.

    Args:
        weights: the checkpoint's tensors by name.
        int8: linear layers multiply in eight bits.
        signed: their weights are int8 instead of uint8; see :mod:`rerankd.engine.onnx.probe`.
    """

    def __init__(self, weights: Mapping[str, StoredTensor], *, int8: bool = False, signed: bool = False) -> None:
        self._weights = weights
        self._int8, self._signed = int8, signed
        self._nodes: list[bytes] = []
        self._initializers: dict[str, bytes] = {}
        self._read: set[str] = set()
        self._quantized: dict[str, tuple[str, str]] = {}
        self._count = 0

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """The first output of a new node; a trailing or empty input is an optional one left out."""
        return self.nodes(op, 1, *inputs, domain=domain, **attributes)[0]

    def nodes(self, op: str, outputs: int, *inputs: str, domain: str = "", **attributes: Attribute) -> list[str]:
        """All outputs of a new node."""
        names = [self._name(op) for _ in range(outputs)]
        self._nodes.append(protobuf.node(op, inputs, names, domain, attributes))
        return names

    def constant(self, values: NDArray[np.generic] | np.generic | Sequence[int] | int) -> str:
        """A tensor of the graph's own; whole numbers are int64."""
        array = np.asarray(values, dtype=None if isinstance(values, np.ndarray | np.generic) else np.int64)
        raw = array.tobytes()
        name = f"constant_{array.dtype}_{array.shape}_{raw.hex() if len(raw) <= 64 else self._next()}"
        self._initializers.setdefault(name, protobuf.tensor(name, _ARRAYS[array.dtype], array.shape, raw))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """The tensor ``name``, which has to have this shape, as float32.

        Raises:
            ConfigurationError: the checkpoint has no such tensor, or one of another shape.
        """
        return self._external(name, self._stored(name, shape))

    def _external(self, label: str, stored: StoredTensor) -> str:
        """A float32 tensor whose bytes stay in the checkpoint's file."""
        self._store(label, stored)
        return label if stored.dtype == "F32" else self.to_float(label)

    def _store(self, label: str, stored: StoredTensor) -> None:
        place = (stored.file.name, stored.offset, stored.size)
        self._initializers.setdefault(
            label, protobuf.external_tensor(label, _STORED[stored.dtype], stored.shape, *place)
        )

    def to_float(self, name: str) -> str:
        return self.node("Cast", name, to=DataType.FLOAT)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor."""
        return name in self._weights

    def linear(
        self,
        rows: str,
        name: str,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        part: tuple[int, int] = (0, 1),
        quantize: bool = True,
    ) -> str:
        """``rows @ W.T + b`` with the stored ``name.weight`` and ``name.bias``; rows (n, inputs) -> (n, outputs).

        Args:
            part: (i, n) takes the i-th of n layers that are stored as one matrix, without bias.
            quantize: off for a layer that stays in float32 in an int8 graph too, as heads do.
        """
        index, parts = part
        stored = self._stored(f"{name}.weight", (parts * outputs, inputs)).part(index, parts)
        label = f"{name}.weight" if parts == 1 else f"{name}.weight.{index}"
        added = self.weight(f"{name}.bias", outputs) if bias else ""
        if self._int8 and quantize:
            return self._linear_int8(rows, label, stored, added)
        return self.node("Gemm", rows, self._external(label, stored), added, transB=1)

    def _linear_int8(self, rows: str, label: str, stored: StoredTensor, bias: str) -> str:
        """Eight-bit GEMM. A row's scale is its own, so that no score depends on the other rows of the batch."""
        if f"{label}.int8" not in self._initializers:
            quantized, scales = quantize_rows(stored.read(), signed=self._signed)
            self._add(f"{label}.int8", np.ascontiguousarray(quantized.T))
            self._add(f"{label}.scale", scales)
        zero = self.constant(np.uint8(ZERO_POINT))
        weight_zero = self.constant(np.int8(0)) if self._signed else zero
        one = self.constant(np.float32(1))
        quantized_rows, row_scales = self._quantize(rows)
        names = (quantized_rows, f"{label}.int8", one, f"{label}.scale", zero, weight_zero)
        product = self.node("MatMulIntegerToFloat", *names, domain=MICROSOFT)
        product = self.node("Mul", product, row_scales)
        return self.node("Add", product, bias) if bias else product

    def _quantize(self, rows: str) -> tuple[str, str]:
        """Rows as uint8 around the zero point, and the scale of each, (n, 1); once for all layers that read them."""
        if rows not in self._quantized:
            # Two reductions read the rows; their absolute values would be written and read again.
            ends = [self.node(op, rows, self.constant([1]), keepdims=1) for op in ("ReduceMax", "ReduceMin")]
            # A row of zeros gets the smallest normal scale instead of a division by zero.
            scales = self.node("Max", ends[0], self.node("Neg", ends[1]), self.constant(np.float32(1e-30)))
            scales = self.node("Mul", scales, self.constant(np.float32(1 / QMAX)))
            flat = self.reshape(scales, -1)
            zeros = self.node("Expand", self.constant(np.uint8(ZERO_POINT)), self.node("Shape", flat))
            self._quantized[rows] = (self.node("QuantizeLinear", rows, flat, zeros, axis=0), scales)
        return self._quantized[rows]

    def embedding(self, name: str, ids: str, rows: int, width: int) -> str:
        """Rows of a stored table (rows, width) as float32; the table stays in its format, memory-mapped."""
        stored = self._stored(name, (rows, width))
        self._store(name, stored)
        found = self.node("Gather", name, ids)
        return found if stored.dtype == "F32" else self.to_float(found)

    def layer_norm(self, rows: str, name: str, width: int, epsilon: float, *, bias: bool = True) -> str:
        added = self.weight(f"{name}.bias", width) if bias else ""
        scale = self.weight(f"{name}.weight", width)
        return self.node("LayerNormalization", rows, scale, added, epsilon=epsilon, axis=-1)

    def rms_norm(self, values: str, name: str, width: int, epsilon: float) -> str:
        """Root-mean-square norm over the last dimension."""
        scale = self.weight(f"{name}.weight", width)
        return self.node("SimplifiedLayerNormalization", values, scale, epsilon=epsilon, axis=-1)

    def reshape(self, values: str, *shape: int | str) -> str:
        """A new shape from numbers and names of int64 tensors of shape (1,); -1 is what is left."""
        if all(isinstance(size, int) for size in shape):
            return self.node("Reshape", values, self.constant([int(size) for size in shape]))
        sizes = [size if isinstance(size, str) else self.constant([size]) for size in shape]
        return self.node("Reshape", values, self.node("Concat", *sizes, axis=0))

    def either(self, condition: str, then: Callable[[], str], otherwise: Callable[[], str]) -> str:
        """What ``then`` computes where the boolean ``condition`` (1,) holds, else what ``otherwise`` does."""
        first, second = self._subgraph(then), self._subgraph(otherwise)
        return self.node("If", condition, then_branch=first, else_branch=second)

    def _subgraph(self, compute: Callable[[], str]) -> protobuf.Graph:
        outer, self._nodes = self._nodes, []
        try:
            result = compute()
            return protobuf.graph(self._nodes, (), (), [protobuf.value_info(result, DataType.FLOAT, None)])
        finally:
            self._nodes = outer

    def model(self, inputs: Sequence[str], logits: str) -> bytes:
        """The finished ONNX file: int64 inputs (batch, length), one output ``logits`` (batch, 1).

        Raises:
            ConfigurationError: a tensor of the checkpoint was not read: the graph is not this model.
        """
        unread = sorted(name for name in self._weights.keys() - self._read if not name.endswith(_IGNORED))
        if unread:
            raise ConfigurationError(
                f"the checkpoint holds tensors that this architecture does not have, {unread[0]!r} for one"
            )
        self._nodes.append(protobuf.node("Identity", [logits], ["logits"], "", {}))
        infos = [protobuf.value_info(name, DataType.INT64, ("batch", "length")) for name in inputs]
        output = protobuf.value_info("logits", DataType.FLOAT, ("batch", 1))
        return protobuf.model(protobuf.graph(self._nodes, self._initializers.values(), infos, [output]), OPSETS)

    def _add(self, name: str, array: NDArray[np.generic]) -> None:
        self._initializers[name] = protobuf.tensor(name, _ARRAYS[array.dtype], array.shape, array.tobytes())

    def _stored(self, name: str, shape: Sequence[int]) -> StoredTensor:
        stored = self._weights[name]
        if stored.shape != tuple(shape):
            raise ConfigurationError(f"{name!r} has shape {stored.shape} where config.json asks for {tuple(shape)}")
        self._read.add(name)
        return stored

    def _name(self, op: str) -> str:
        return f"{op}_{self._next()}"

    def _next(self) -> int:
        self._count += 1
        return self._count
