"""The language of parent and child: one frame a message, over a socket pair that nobody else holds.

    frame    uint32 bytes of the head | uint32 bytes of the body | head (JSON) | body (bytes)

The head says what is asked (``{"do": "score", ...}``) or answered (``{"ok": ...}`` or ``{"error": ...}``), the body
holds arrays one after another. All numbers are little-endian.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
from typing import Any

import numpy as np

from rerankd.engine.base import Batch

_SIZES = struct.Struct("<II")
_INT32 = np.dtype("<i4")


def send(link: socket.socket, head: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame; raises OSError when the other side is gone."""
    text = json.dumps(head).encode("ascii")
    link.sendall(_SIZES.pack(len(text), len(body)) + text + body)


def receive(link: socket.socket) -> tuple[dict[str, Any], bytes]:
    """The next frame.

    Raises:
        EOFError: the other side has closed.
        OSError: the connection broke.
    """
    head, body = _SIZES.unpack(_read(link, _SIZES.size))
    return json.loads(_read(link, head)), _read(link, body)


def _read(link: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = link.recv_into(view)
        if not count:
            raise EOFError("the other side has closed")
        view = view[count:]
    return bytes(data)


def batch_frame(batch: Batch) -> tuple[dict[str, Any], bytes]:
    """A batch as head and body: five int32 arrays and one of bytes."""
    arrays = (batch.token_ids, batch.slots, batch.offsets, batch.parents, batch.leaves)
    body = b"".join(np.ascontiguousarray(array, dtype=_INT32).tobytes() for array in arrays)
    head = {"do": "score", "tokens": len(batch.token_ids), "segments": batch.segments, "pairs": batch.pairs}
    return head, body + batch.cached.astype(np.uint8).tobytes()


def batch_of_frame(head: dict[str, Any], body: bytes) -> Batch:
    """What :func:`batch_frame` was made of."""
    tokens, segments, pairs = head["tokens"], head["segments"], head["pairs"]
    ends = np.cumsum([0, tokens, tokens, segments + 1, segments, pairs])
    numbers = np.frombuffer(body, dtype=_INT32, count=int(ends[-1]))
    token_ids, slots, offsets, parents, leaves = (numbers[begin:end] for begin, end in itertools.pairwise(ends))
    cached = np.frombuffer(body, dtype=np.uint8, offset=4 * int(ends[-1])).astype(np.bool_)
    return Batch(token_ids, offsets, parents, leaves, cached, slots)
