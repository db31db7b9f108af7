"""The attacks of one small request each: bodies and bytes that once stopped everyone, or ate the memory.

    python -m tests.load.attacks http://127.0.0.1:8000 SECRET --seconds 60 --only large_bodies

sends them in turn, two at a time, and prints how each was answered. In a process of its own, which gives way to the
server's: an attacker has a machine of its own, and what it spends on making its bodies is not to be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

Answer = int | str
"""A status; or what happened in its place: ``left`` (the attacker did not wait), ``sent``, ``closed``."""

Attack = Callable[[httpx.AsyncClient, int], Awaitable[list[Answer]]]
"""One attack on the server of a client; the number makes its texts new."""


async def _post(client: httpx.AsyncClient, path: str, body: bytes | dict[str, Any], patience: float = 30.0) -> Answer:
    """Send a body; how it was answered."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    try:
        return (await client.post(path, content=content, headers=headers, timeout=patience)).status_code
    except httpx.TimeoutException:
        return "left"
    except httpx.HTTPError:
        return "closed"


async def _send(client: httpx.AsyncClient, data: bytes, seconds: float) -> Answer:
    """Bytes on a connection of their own, whose answers nobody reads."""
    url = client.base_url
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(data)
        await asyncio.sleep(seconds)
        writer.close()
    except OSError:
        return "closed"
    return "sent"


async def brackets(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A1: a text full of brackets and escaped quotes."""
    return [await _post(client, "/rerank", b"[" * 50_001 + b'"' + b'\\"' * 10_000)]


async def rank_fields(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A2: the same field named 20,000 times."""
    body = {"query": f"{number}", "documents": [{"t": "a" * 1000}] * 50, "rank_fields": ["t"] * 20_000}
    return [await _post(client, "/rerank", body)]


async def nested_text(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A3: options in a string, for 250 queries."""
    body = {"text_1": [f"{number}"] * 250, "text_2": ["a"] * 250, "kwargs": json.dumps({"instruction": "a" * 60_000})}
    return [await _post(client, "/score", body)]


async def pipelined(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A4: a quarter of a megabyte of requests on one connection whose answers nobody reads."""
    return [await _send(client, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6_800, seconds=5)]


async def upgrades(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A9: two thousand offers to speak HTTP/2 on one connection."""
    offer = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    return [await _send(client, offer * 2_000, seconds=2)]


async def long_queries(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A5: many queries of digits, each with a thousand documents of one letter."""
    pairs = [{"query": f"{number}{place}" + "7" * 7_900, "documents": ["a"] * 1000} for place in range(64)]
    return [await _post(client, "/batch_rerank", {"pairs": pairs})]


async def cut_documents(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A6: a long query whose every document has to be cut; the client leaves after a second."""
    query = f"{number} " + "word " * 3_900
    body = {"query": query, "documents": ["abc"] * 1000, "max_tokens_per_doc": 1}
    return [await _post(client, "/rerank", body, patience=1.0)]


async def equal_pairs(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A7, A8: a thousand equal documents for many queries; the client leaves after a second and a half."""
    pairs = [{"query": f"{number}", "documents": ["a"] * 1000}] * 256
    return [await _post(client, "/batch_rerank", {"pairs": pairs}, patience=1.5)]


async def large_bodies(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A10: sixteen bodies of 3.5 MB at once."""
    body = {"query": f"{number}", "documents": ["a" * 3_500] * 1000}
    content = json.dumps(body).encode()
    return await asyncio.gather(*(_post(client, "/rerank", content) for _ in range(16)))


async def long_documents(client: httpx.AsyncClient, number: int) -> list[Answer]:
    """A10: four bodies of nearly 2 MB at once, which no limit refuses; the client leaves after two seconds."""
    body = {"query": f"{number}", "documents": ["word " * 390] * 1000}
    content = json.dumps(body).encode()
    return await asyncio.gather(*(_post(client, "/rerank", content, patience=2.0) for _ in range(4)))


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
    long_documents,
)


async def send_attacks(url: str, secret: str, seconds: float, chosen: list[Attack]) -> dict[str, Counter[Answer]]:
    """Each attack in turn, two at a time; by attack, how often it was answered in which way."""
    answers = {attack.__name__: Counter[Answer]() for attack in chosen}
    # Texts of this run only: no run before it has filled the cache with them.
    numbers, end = itertools.count(time.time_ns()), time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {secret}", "Cache-Control": "no-cache"}

    async def one_after_another(client: httpx.AsyncClient, first: int) -> None:
        for attack in itertools.islice(itertools.cycle(chosen), first, None):
            if time.monotonic() > end:
                return
            answers[attack.__name__].update(await attack(client, next(numbers)))

    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        await asyncio.gather(one_after_another(client, 0), one_after_another(client, (len(chosen) + 1) // 2))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("secret")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="", help="names of attacks, with commas; all of them otherwise")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [attack.__name__ for attack in ATTACKS]
    chosen = [attack for attack in ATTACKS if attack.__name__ in wanted]
    os.nice(10)
    print(json.dumps(asyncio.run(send_attacks(options.url, options.secret, options.seconds, chosen))))


if __name__ == "__main__":
    main()
