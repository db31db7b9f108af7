"""Load on running reranking servers, side by side: requests leave on time, whether or not answers are back.

    rerankd serve --cache off --deadline-ms 300000 --model out/bench/0.6B &
    python benchmarks/serve.py --payload 10x64@0.5 --payload 50x256@0.05 --requests 20
    python benchmarks/serve.py --payload 10x64 --concurrency 1 --concurrency 8 --concurrency 64 --pid $!
    python benchmarks/serve.py --payload 10x64@0.5 --server usual=http://127.0.0.1:8001/rerank \\
        --start 'usual=python benchmarks/rivals/usual_code.py out/bench/0.6B 8001'

Latency counts from the moment a request was due, so that a server which falls behind cannot hide it. With
``--concurrency`` so many clients ask at once instead, each its next request as soon as it has an answer. Before its
first row each server is asked for a token count; one that reads other tokens than rerankd's prompt has is void.
Servers that are started here run one after another, so that each has the machine and its memory to itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import proc
from benchmarks.checkpoints import LAYOUTS
from benchmarks.machine import command, machine, print_table
from benchmarks.payloads import PAYLOADS, Body, Payload
from benchmarks.peak import peaks
from benchmarks.rivals.tokens import in_template, shape, verdict
from benchmarks.work import work
from benchmarks.workloads import Texts

_STARTUP_SECONDS = 600
_LOCAL = "rerankd=http://127.0.0.1:8000/rerank"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate. ``seconds`` counts from when it was due."""

    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What one payload at one rate, or from so many clients, gave."""

    server: str
    payload: str
    pair_tokens: int
    rate: float | None
    concurrency: int | None
    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    pairs_per_second: float
    tokens_per_second: float
    share_of_peak: float | None
    peak_mb: float | None
    void: str = ""

    @classmethod
    def lost(cls, server: str, void: str) -> Load:
        """Of a server that did not come up, or fell."""
        return cls(
            server=server,
            payload="all",
            pair_tokens=0,
            rate=None,
            concurrency=None,
            requests=0,
            failed=0,
            p50=0.0,
            p95=0.0,
            p99=0.0,
            pairs_per_second=0.0,
            tokens_per_second=0.0,
            share_of_peak=None,
            peak_mb=None,
            void=void,
        )


def main() -> None:
    arguments = _arguments()
    where, texts = machine(), Texts(arguments.tokenizer)
    print(json.dumps(where, indent=2), flush=True)
    ceiling = peaks() if arguments.format else {}
    rate = float(str(ceiling[arguments.format]["rate"])) if arguments.format else None
    servers = dict(one.split("=", 1) for one in arguments.server or [_LOCAL])
    models = dict(one.split("=", 1) for one in arguments.model)
    commands = dict(one.split("=", 1) for one in arguments.start)
    loads = list[Load]()
    for server, url in servers.items():
        extra: Body = {"model": models[server]} if server in models else {}
        try:
            with started(commands.get(server), url, extra) as pid:
                void = verdict(texts, url, extra, is_framed=server in arguments.framed)
                measure = Measure(arguments, texts, server, url, extra, rate, void, pid or arguments.pid)
                for name in arguments.payload:
                    for plan in _plans(name, arguments.concurrency):
                        loads.append(asyncio.run(measure.run(*plan)))
                        print(json.dumps(asdict(loads[-1])), flush=True)
        except (RuntimeError, httpx.HTTPError) as error:
            print(f"{server}: {error}", flush=True)
            loads.append(Load.lost(server, f"void: {error}"))
    print_table(f"{arguments.requests} requests a row", [row(asdict(load)) for load in loads])
    record = {
        "kind": "serve",
        "machine": where,
        "command": command(),
        "layout": arguments.layout,
        "peaks": ceiling,
        "loads": [asdict(load) for load in loads],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", metavar="NAME=URL", help=f"as often as you like; {_LOCAL}")
    parser.add_argument("--start", action="append", default=[], metavar="NAME=COMMAND", help="run it meanwhile")
    parser.add_argument("--framed", action="append", default=[], metavar="NAME", help="write the template into texts")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=MODEL", help="the name to send, if any")
    parser.add_argument("--payload", action="append", required=True, help=f"{', '.join(PAYLOADS)}, each @REQUESTS/S")
    parser.add_argument("--concurrency", action="append", type=int, help="clients at once, instead of a rate")
    parser.add_argument("--requests", type=int, default=20, help="requests of each row")
    parser.add_argument("--tokenizer", type=Path, default=Path("out/bench/0.6B/tokenizer.json"))
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="0.6B", help="the model's, for its operations")
    parser.add_argument("--format", default="bfloat16", help="whose peak is measured; empty for none")
    parser.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


@contextlib.contextmanager
def started(words: str | None, url: str, extra: Body) -> Iterator[int | None]:
    """Run a server until the block ends, if there is a command; its process once it ranks."""
    if not words:
        yield None
        return
    process = subprocess.Popen(shlex.split(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _STARTUP_SECONDS
        while not _ranks(url, extra):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{words}: it {'ended' if process.poll() is not None else 'does not answer'}")
            time.sleep(0.5)
        yield process.pid
    finally:
        pids = proc.tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _ranks(url: str, extra: Body) -> bool:
    try:
        return httpx.post(url, json={"query": "a", "documents": ["b"], **extra}, timeout=60).is_success
    except httpx.HTTPError:
        return False


def _plans(name: str, concurrency: list[int] | None) -> Iterator[tuple[Payload, float | None, int | None]]:
    payload, _, rate = name.partition("@")
    if concurrency:
        yield from ((PAYLOADS[payload], None, clients) for clients in concurrency)
    else:
        yield PAYLOADS[payload], float(rate or 1), None


@dataclass(frozen=True, slots=True)
class Measure:
    """One server under one load after another."""

    arguments: argparse.Namespace
    texts: Texts
    server: str
    url: str
    extra: Body
    peak: float | None
    void: str
    pid: int | None

    async def run(self, payload: Payload, rate: float | None, concurrency: int | None) -> Load:
        count = self.arguments.requests
        # Made beforehand: writing 500 kB of text takes longer than the gap between requests.
        bodies = [self._body(payload, number) for number in range(count + 1)]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as client:
            await self._ask(client, bodies.pop(), time.perf_counter())
            watch = proc.watched(self.pid) if self.pid else contextlib.nullcontext()
            with watch as peak:
                began = time.perf_counter()
                if concurrency:
                    answers = await self._closed(client, bodies, concurrency)
                else:
                    due = [began + number / (rate or 1) for number in range(count)]
                    answers = await asyncio.gather(
                        *(self._ask(client, body, at) for body, at in zip(bodies, due, strict=True))
                    )
                took = time.perf_counter() - began
        return self._summary(payload, rate, concurrency, answers, took, peak.mb if peak else None)

    def _body(self, payload: Payload, number: int) -> bytes:
        body = payload.body(number)
        sent = in_template(body, self.texts.instruction) if self.server in self.arguments.framed else body
        return json.dumps({**sent, **self.extra}).encode()

    async def _closed(self, client: httpx.AsyncClient, bodies: list[bytes], concurrency: int) -> list[Answer]:
        waiting, answers = iter(bodies), list[Answer]()

        async def ask_on() -> None:
            for body in waiting:
                answers.append(await self._ask(client, body, time.perf_counter()))

        await asyncio.gather(*(ask_on() for _ in range(concurrency)))
        return answers

    async def _ask(self, client: httpx.AsyncClient, body: bytes, due: float) -> Answer:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            response = await client.post(self.url, content=body, headers={"Content-Type": "application/json"})
        except httpx.HTTPError:
            return Answer(0, time.perf_counter() - due)
        return Answer(response.status_code, time.perf_counter() - due)

    def _summary(
        self, payload: Payload, rate: float | None, concurrency: int | None, answers: list[Answer], took: float,
        peak_mb: float | None,
    ) -> Load:  # fmt: skip
        good = [answer for answer in answers if answer.status == 200]
        p50, p95, p99 = np.percentile([answer.seconds for answer in good] or [float("nan")], [50, 95, 99]).tolist()
        lengths = shape(self.texts, payload.body(0))
        operations = work(lengths, LAYOUTS[self.arguments.layout]) * len(good)
        return Load(
            server=self.server,
            payload=str(payload),
            pair_tokens=lengths.prefix + lengths.tail,
            rate=rate,
            concurrency=concurrency,
            requests=len(answers),
            failed=len(answers) - len(good),
            p50=p50,
            p95=p95,
            p99=p99,
            pairs_per_second=len(good) * payload.documents / took,
            tokens_per_second=len(good) * lengths.tokens / took,
            share_of_peak=operations / took / 1e9 / self.peak if self.peak else None,
            peak_mb=peak_mb,
            void=self.void,
        )


def row(load: Mapping[str, Any]) -> dict[str, object]:
    """The figures as a page shows them; a void row keeps its reason and none of them."""
    how = f"{load['concurrency']} at once" if load["concurrency"] else f"{load['rate'] or 0:g}/s"
    head = {"server": load["server"], "payload": load["payload"], "load": how, "requests": load["requests"]}
    names = ("failed", "p50 s", "p95 s", "p99 s", "pairs/s", "tokens/s", "share of peak", "peak MB")
    if load["void"]:
        return {**head, **dict.fromkeys(names, ""), "p50 s": load["void"]}
    share, memory = load["share_of_peak"], load["peak_mb"]
    figures = (
        load["failed"],
        f"{load['p50']:.3f}",
        f"{load['p95']:.3f}",
        f"{load['p99']:.3f}",
        f"{load['pairs_per_second']:.1f}",
        f"{load['tokens_per_second']:.0f}",
        "" if share is None else f"{share:.0%}",
        "" if memory is None else f"{memory:.0f}",
    )
    return {**head, **dict(zip(names, figures, strict=True))}


if __name__ == "__main__":
    main()
