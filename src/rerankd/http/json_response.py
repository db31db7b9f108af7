"""An answer -> bytes on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.types import Send

from rerankd.wire.base import Json, WireResponse

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def json_bytes(body: Json) -> bytes:
    """UTF-8 JSON; a float that is not finite is a fault of ours and raises ValueError."""
    return _encode(body).encode("utf-8")


def encode(answer: WireResponse) -> tuple[WireResponse, bytes]:
    """An answer with the bytes of its body."""
    return answer, json_bytes(answer.body)


async def send_body(send: Send, answer: WireResponse, body: bytes) -> None:
    """Send a whole answer."""
    await start_json(send, answer.status, answer.headers, len(body))
    await send({"type": "http.response.body", "body": body})


async def start_json(send: Send, status: int, headers: Mapping[str, str], length: int) -> None:
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    raw += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
