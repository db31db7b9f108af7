"""The attacks of one small request each: bodies and bytes that once stopped everyone, or ate the memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

Attack = Callable[[httpx.AsyncClient, int], Awaitable[None]]
"""One attack on the server of a client; the number makes its texts new."""


async def _post(client: httpx.AsyncClient, path: str, body: bytes | dict[str, Any], patience: float = 30.0) -> None:
    """Send a body; how it is answered is of no interest here, only what it does to others."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with contextlib.suppress(httpx.HTTPError):
        headers = {"Content-Type": "application/json"}
        await client.post(path, content=content, headers=headers, timeout=patience)


async def brackets(client: httpx.AsyncClient, number: int) -> None:
    """A1: a text full of brackets and escaped quotes."""
    await _post(client, "/rerank", b"[" * 50_001 + b'"' + b'\\"' * 10_000)


async def rank_fields(client: httpx.AsyncClient, number: int) -> None:
    """A2: the same field named 20,000 times."""
    documents = [{"t": "a" * 1000}] * 50
    await _post(client, "/rerank", {"query": f"{number}", "documents": documents, "rank_fields": ["t"] * 20_000})


async def nested_text(client: httpx.AsyncClient, number: int) -> None:
    """A3: options in a string, for 400 queries."""
    body = {"text_1": [f"{number}"] * 400, "text_2": ["a"] * 400, "kwargs": json.dumps({"instruction": "a" * 60_000})}
    await _post(client, "/score", body)


async def pipelined(client: httpx.AsyncClient, number: int) -> None:
    """A4: a quarter of a megabyte of requests on one connection whose answers nobody reads."""
    url = client.base_url
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6_800)
        await asyncio.sleep(5)
        writer.close()


async def upgrades(client: httpx.AsyncClient, number: int) -> None:
    """A9: two thousand offers to speak HTTP/2 on one connection."""
    url = client.base_url
    offer = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(offer * 2_000)
        await asyncio.sleep(2)
        writer.close()


async def long_queries(client: httpx.AsyncClient, number: int) -> None:
    """A5: many queries of digits, each with a thousand documents of one letter."""
    pairs = [{"query": f"{number}{place}" + "7" * 7_900, "documents": ["a"] * 1000} for place in range(64)]
    await _post(client, "/batch_rerank", {"pairs": pairs})


async def cut_documents(client: httpx.AsyncClient, number: int) -> None:
    """A6: a long query whose every document has to be cut; the client leaves after a second."""
    query = f"{number} " + "word " * 4_250
    body = {"query": query, "documents": ["abc"] * 1000, "max_tokens_per_doc": 1}
    await _post(client, "/rerank", body, patience=1.0)


async def equal_pairs(client: httpx.AsyncClient, number: int) -> None:
    """A7, A8: a thousand equal documents for many queries; the client leaves after a second and a half."""
    pairs = [{"query": f"{number}", "documents": ["a"] * 1000}] * 256
    await _post(client, "/batch_rerank", {"pairs": pairs}, patience=1.5)


async def large_bodies(client: httpx.AsyncClient, number: int) -> None:
    """A10: sixteen bodies of 3.5 MB at once."""
    body = {"query": f"{number}", "documents": ["a" * 3_500] * 1000}
    await asyncio.gather(*(_post(client, "/rerank", body) for _ in range(16)))


ATTACKS: tuple[Attack, ...] = (
    brackets,
    rank_fields,
    nested_text,
    pipelined,
    upgrades,
    long_queries,
    cut_documents,
    equal_pairs,
    large_bodies,
)
