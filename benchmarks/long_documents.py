"""Short requests beside one of long documents: what does the long one cost them?

    rerankd serve --port 8000 --cache off --max-deadline-seconds 3600 &
    python benchmarks/long_documents.py --url http://127.0.0.1:8000 --pid $!

Sixteen requests of short documents leave together, first alone, then while a request of 20 documents of 100,000
characters is under way (``long_documents: chunk``), in turns, so that both meet the same machine. Prints the
percentiles of both, their ratio and, with ``--pid``, the server's largest memory. The long request is then given up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

SHORT_REQUESTS = 16
LONG_DOCUMENTS = 20
LONG_CHARACTERS = 100_000
_HEAD_START = 1.0
"""Seconds after which a long request is under way."""


class Texts:
    """Texts that no request before has had, for equal pairs are scored once."""

    def __init__(self) -> None:
        self._number = 0

    def document(self, characters: int) -> str:
        sentences, length = [], 0
        while length < characters:
            self._number += 1
            sentences.append(
                f"Sentence {self._number} says that the capital of the country is where it is governed. "
            )
            length += len(sentences[-1])
        return "".join(sentences)[:characters]

    def body(self, documents: int, characters: int, **fields: Any) -> dict[str, Any]:
        texts = [self.document(characters) for _ in range(documents)]
        return {"query": "what is the capital of France?", "documents": texts, "return_documents": False, **fields}


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> float:
    """Seconds until the answer."""
    started = time.monotonic()
    response = await client.post("/rerank", json=body)
    response.raise_for_status()
    return time.monotonic() - started


async def short_round(client: httpx.AsyncClient, texts: Texts, documents: int, characters: int) -> list[float]:
    bodies = [texts.body(documents, characters) for _ in range(SHORT_REQUESTS)]
    return list(await asyncio.gather(*(ask(client, body) for body in bodies)))


async def measure(url: str, rounds: int, documents: int, characters: int) -> dict[str, Any]:
    texts = Texts()
    alone: list[float] = []
    beside: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=600, headers={"X-Request-Timeout-Ms": "3600000"}) as client:
        await short_round(client, texts, documents, characters)
        for _ in range(rounds):
            alone += await short_round(client, texts, documents, characters)
            body = texts.body(LONG_DOCUMENTS, LONG_CHARACTERS, long_documents="chunk")
            under_way = asyncio.create_task(ask(client, body))
            await asyncio.sleep(_HEAD_START)
            beside += await short_round(client, texts, documents, characters)
            if under_way.done():
                raise SystemExit("the long request was over before the short ones: nothing was measured")
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)
    figures = {
        name: {f"p{share}": float(np.percentile(seconds, share)) for share in (50, 99)}
        for name, seconds in (("alone", alone), ("beside", beside))
    }
    ratio = {share: figures["beside"][share] / figures["alone"][share] for share in ("p50", "p99")}
    return {"requests": len(alone), "seconds": figures, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, help="the server's process, for its largest memory")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--documents", type=int, default=20, help="of a short request")
    parser.add_argument("--characters", type=int, default=400, help="of a short document")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.url, options.rounds, options.documents, options.characters))
    if options.pid:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{options.pid}/status").read_text()
            figures["peak_rss_mb"] = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
