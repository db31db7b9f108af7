"""Open-loop load on a running reranking server: requests leave on time, whether or not answers are back.

    rerankd serve --cache off &
    python benchmarks/serve.py --payload 10x64 --rate 0.5 --rate 2 --seconds 30
    python benchmarks/serve.py --url http://127.0.0.1:8001 --path /rerank --payload 50x256 --json out.json

Latency counts from the moment a request was due, so that a server which falls behind cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine, print_table
from benchmarks.payloads import PAYLOADS, Payload


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate. ``seconds`` counts from when it was due."""

    status: int
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one payload at one rate gave."""

    payload: str
    rate: float
    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    pairs_per_second: float
    tokens_per_second: float


def main() -> None:
    arguments = _arguments()
    loads = []
    where = machine()
    print(json.dumps(where, indent=2))
    for name in arguments.payload or ["10x64"]:
        for rate in arguments.rate or [1.0]:
            loads.append(asyncio.run(_measure(arguments, PAYLOADS[name], rate)))
    tables = {f"{arguments.url}{arguments.path}, {arguments.seconds:g} s a row": [_row(load) for load in loads]}
    print_table(*next(iter(tables.items())))
    if arguments.json:
        record = {"machine": where, "command": sys.argv, "tables": tables, "loads": [asdict(load) for load in loads]}
        arguments.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--path", default="/rerank")
    parser.add_argument("--model", help="model name to send, for servers that ask for one")
    parser.add_argument("--payload", action="append", choices=sorted(PAYLOADS), help="documents x tokens")
    parser.add_argument("--rate", action="append", type=float, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


async def _measure(arguments: argparse.Namespace, payload: Payload, rate: float) -> Load:
    extra = {"model": arguments.model} if arguments.model else {}
    count = max(1, round(rate * arguments.seconds))
    # Made beforehand: writing 500 kB of text takes longer than the gap between requests.
    bodies = [json.dumps({**payload.body(number), **extra}).encode() for number in range(count + 1)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=arguments.url, timeout=600, limits=limits) as client:
        await _ask(client, arguments.path, bodies.pop(), time.perf_counter())
        began = time.perf_counter()
        due = [began + number / rate for number in range(count)]
        answers = await asyncio.gather(
            *(_ask(client, arguments.path, body, at) for body, at in zip(bodies, due, strict=True))
        )
        took = time.perf_counter() - began
    return _summary(payload, rate, answers, took)


async def _ask(client: httpx.AsyncClient, path: str, body: bytes, due: float) -> Answer:
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    try:
        response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    except httpx.HTTPError:
        return Answer(0, time.perf_counter() - due, 0)
    seconds = time.perf_counter() - due
    return Answer(response.status_code, seconds, _tokens(response) if response.is_success else 0)


def _tokens(response: httpx.Response) -> int:
    usage = response.json().get("usage") or {}
    return int(usage.get("total_tokens") or 0)


def _summary(payload: Payload, rate: float, answers: list[Answer], took: float) -> Load:
    good = [answer for answer in answers if answer.status == 200]
    seconds = [answer.seconds for answer in good] or [float("nan")]
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return Load(
        payload=str(payload),
        rate=rate,
        requests=len(answers),
        failed=len(answers) - len(good),
        p50=p50,
        p95=p95,
        p99=p99,
        pairs_per_second=len(good) * payload.documents / took,
        tokens_per_second=sum(answer.tokens for answer in good) / took,
    )


def _row(load: Load) -> dict[str, object]:
    return {
        "payload": load.payload,
        "requests/s": f"{load.rate:g}",
        "requests": load.requests,
        "failed": load.failed,
        "p50 ms": f"{load.p50 * 1e3:.0f}",
        "p95 ms": f"{load.p95 * 1e3:.0f}",
        "p99 ms": f"{load.p99 * 1e3:.0f}",
        "pairs/s": f"{load.pairs_per_second:.1f}",
        "tokens/s": f"{load.tokens_per_second:.0f}",
    }


if __name__ == "__main__":
    main()
