"""An answer -> bytes on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from starlette.types import Send

from rerankd.wire.base import Json, WireResponse

_WHOLE = 256
"""Documents of an answer that is encoded in one go: the encoder holds the interpreter until it is done, for .6
milliseconds with so many, and for 150 with the answer to 64 queries with a thousand documents."""

_AT_ONCE = 64
"""Items of a list that are encoded in one go in a larger answer."""

_PART_BYTES = 2**18
"""Bytes of a body that are given to the connection in one go."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def json_bytes(body: Json) -> bytes:
    """UTF-8 JSON; a float that is not finite is a fault of ours and raises ValueError."""
    return _encode(body).encode("utf-8")


def encode(answer: WireResponse, documents: int) -> tuple[WireResponse, bytes]:
    """An answer about so many documents with the bytes of its body; off the event loop where they are many."""
    if documents <= _WHOLE:
        return answer, json_bytes(answer.body)
    return answer, b"".join([part.encode("utf-8") for part in parts(answer.body)])


def parts(value: Json) -> Iterator[str]:
    """What :data:`_encode` makes of a value, in parts; between two of them another thread may have its turn."""
    if type(value) is dict and value:
        before = "{"
        for key, item in value.items():
            yield f"{before}{_encode(key)}:"
            yield from parts(item)
            before = ","
        yield "}"
    elif type(value) is list and value:
        before = "["
        for start in range(0, len(value), _AT_ONCE):
            some = value[start : start + _AT_ONCE]
            if any(map(_is_long, some)):
                for item in some:
                    yield before
                    yield from parts(item)
                    before = ","
            else:
                yield before + _encode(some)[1:-1]
                before = ","
        yield "]"
    else:
        yield _encode(value)


def _is_long(item: Json) -> bool:
    """Does an item of a list hold a list that is not encoded in one go?"""
    found = item.values() if type(item) is dict else (item,)
    return any(type(value) is list and len(value) > _AT_ONCE for value in found)


async def send_body(send: Send, answer: WireResponse, body: bytes) -> None:
    """Send a whole answer; a large one in parts, for a socket takes no more at once and the rest would be copied."""
    await start_json(send, answer.status, answer.headers, len(body))
    for start in range(0, len(body) - _PART_BYTES, _PART_BYTES):
        await send({"type": "http.response.body", "body": body[start : start + _PART_BYTES], "more_body": True})
    rest = (len(body) - 1) // _PART_BYTES * _PART_BYTES
    await send({"type": "http.response.body", "body": body[rest:]})


async def start_json(send: Send, status: int, headers: Mapping[str, str], length: int) -> None:
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    for name, value in headers.items():
        raw.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": status, "headers": raw})
