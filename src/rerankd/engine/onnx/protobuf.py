"""The ONNX messages that a graph needs, in protobuf's wire format.

Field numbers are those of ``onnx.proto`` (ONNX IR version 10); the wire format is the one of
https://protobuf.dev/programming-guides/encoding. Writing these nine messages takes a page; the package ``onnx`` would
add 60 MB to an installation that never reads a graph.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

Value: TypeAlias = "int | float | str | bytes"
Field: TypeAlias = "tuple[int, Value]"

_VARINT, _LENGTH_DELIMITED, _FIXED32 = 0, 2, 5
_IR_VERSION = 10


class DataType(IntEnum):
    """``TensorProto.DataType``."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    BFLOAT16 = 16


class _AttributeType(IntEnum):
    FLOAT = 1
    INT = 2
    STRING = 3
    GRAPH = 5
    INTS = 7


class Graph(bytes):
    """An encoded ``GraphProto``: as an attribute, a subgraph."""


Attribute: TypeAlias = "int | float | str | Sequence[int] | Graph"


def message(fields: Iterable[Field]) -> bytes:
    """One message: integers as varints, floats as fixed32, text, bytes and nested messages length-delimited."""
    out = bytearray()
    for number, value in fields:
        match value:
            case int():
                out += _varint(number << 3 | _VARINT) + _varint(value)
            case float():
                out += _varint(number << 3 | _FIXED32) + struct.pack("<f", value)
            case _:
                encoded = value.encode() if isinstance(value, str) else value
                out += _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(encoded)) + encoded
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers as two's complement of 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: Mapping[str, Attribute]
) -> bytes:
    """A ``NodeProto``; an empty input name is an optional input left out."""
    fields: list[Field] = [(1, name) for name in inputs]
    fields += [(2, name) for name in outputs]
    fields += [(3, outputs[0]), (4, op)]
    fields += [(5, _attribute(name, value)) for name, value in attributes.items()]
    fields += [(7, domain)]
    return message(fields)


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case int():
            content: list[Field] = [(3, value), (20, _AttributeType.INT)]
        case float():
            content = [(2, value), (20, _AttributeType.FLOAT)]
        case str():
            content = [(4, value), (20, _AttributeType.STRING)]
        case Graph():
            content = [(6, value), (20, _AttributeType.GRAPH)]
        case _:
            content = [*((8, number) for number in value), (20, _AttributeType.INTS)]
    return message([(1, name), *content])


def tensor(name: str, data_type: DataType, shape: Sequence[int], raw: bytes) -> bytes:
    """A ``TensorProto`` that holds its little-endian bytes."""
    return message([*((1, size) for size in shape), (2, data_type), (8, name), (9, raw)])


def external_tensor(
    name: str, data_type: DataType, shape: Sequence[int], file_name: str, offset: int, length: int
) -> bytes:
    """A ``TensorProto`` whose bytes are a part of another file in the graph's folder."""
    place = {"location": file_name, "offset": str(offset), "length": str(length)}
    entries: list[Field] = [(13, message([(1, key), (2, value)])) for key, value in place.items()]
    return message([*((1, size) for size in shape), (2, data_type), (8, name), *entries, (14, 1)])


def value_info(name: str, data_type: DataType, shape: Sequence[str | int] | None) -> bytes:
    """A ``ValueInfoProto``; a dimension is a number or a name, and no shape means any."""
    fields: list[Field] = [(1, data_type)]
    if shape is not None:
        dimensions = [message([(2 if isinstance(size, str) else 1, size)]) for size in shape]
        fields.append((2, message([(1, dimension) for dimension in dimensions])))
    return message([(1, name), (2, message([(1, message(fields))]))])


def graph(
    nodes: Iterable[bytes], initializers: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes]
) -> Graph:
    """A ``GraphProto``."""
    fields: list[Field] = [(1, encoded) for encoded in nodes]
    fields += [(2, "rerankd")]
    fields += [(5, encoded) for encoded in initializers]
    fields += [(11, encoded) for encoded in inputs]
    fields += [(12, encoded) for encoded in outputs]
    return Graph(message(fields))


def model(encoded_graph: Graph, opsets: Mapping[str, int]) -> bytes:
    """A ``ModelProto``: a whole ONNX file."""
    imports: list[Field] = [(8, message([(1, domain), (2, version)])) for domain, version in opsets.items()]
    return message([(1, _IR_VERSION), (2, "rerankd"), (7, encoded_graph), *imports])
