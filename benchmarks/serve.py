"""Load on running reranking servers, side by side.

    rerankd serve --cache off --deadline-seconds 300 --model out/bench/0.6B &
    python benchmarks/serve.py --payload 10x64@0.5 --payload 50x256@0.05*5
    python benchmarks/serve.py --payload 10x64 --concurrency 1 --concurrency 8 --concurrency 64 --pid $!
    python benchmarks/serve.py --payload 10x64*5 --payload 100x512*1 --limit 120 \\
        --server usual=http://127.0.0.1:8001/rerank \\
        --start 'usual=python benchmarks/rivals/transformers_baseline.py out/bench/0.6B 8001'

A payload is ``DOCUMENTSxTOKENS[@REQUESTS A SECOND][*REQUESTS]``. At a rate requests leave on time, and latency counts
from the moment one was due, so that a server which falls behind cannot hide it. Without a rate one client asks, its
next request as soon as it has an answer; with ``--concurrency`` so many clients do.

Before its first row each server is asked for a token count; one that reads other tokens than rerankd's prompt has is
void. Its scores are compared with the first server's. Servers that are started here run one after another, so that
each has the machine and its memory to itself. One that leaves a payload without an answer for ``--limit`` seconds may
still be at work on it, and is not asked the payloads after it: name the small ones first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS

from benchmarks import process_stats
from benchmarks.flops import request_flops
from benchmarks.machine import command, machine, print_table
from benchmarks.matmul_peak import peaks
from benchmarks.payloads import PAYLOADS, Body, Payload
from benchmarks.rivals.tokens import in_template, shape, verdict
from benchmarks.server_process import started
from benchmarks.workloads import Texts

_LOCAL = "rerankd=http://127.0.0.1:8000/rerank"
_OFF = "largest difference of a score"
_WARM = PAYLOADS["10x64"]
"""What comes before each row, uncounted: a larger one would double the time that the row takes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate. ``seconds`` counts from when it was due; ``fault`` is empty if there are scores."""

    seconds: float
    fault: str = ""
    is_lost: bool = False
    """The server was gone, or is still at work on it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One row: a payload, at a rate or from so many clients."""

    payload: Payload
    rate: float | None
    concurrency: int | None
    requests: int

    @classmethod
    def of(cls, name: str, requests: int, concurrency: Sequence[int]) -> list[Plan]:
        """The rows of a payload as the command line names it."""
        head, _, count = name.partition("*")
        payload, _, rate = head.partition("@")
        clients = [None] if rate else [*concurrency] or [1]
        return [cls(PAYLOADS[payload], float(rate) if rate else None, one, int(count or requests)) for one in clients]


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
    off: float | None = None
    """The largest difference of a score from the first server's, on one small request."""
    void: str = ""

    @classmethod
    def lost(cls, server: str, void: str, plan: Plan | None = None) -> Load:
        """Of a server that did not come up, or of a row that it was not asked."""
        return cls(
            server=server,
            payload=str(plan.payload) if plan else "all",
            pair_tokens=0,
            rate=plan.rate if plan else None,
            concurrency=plan.concurrency if plan else None,
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
    plans = [plan for name in arguments.payload for plan in Plan.of(name, arguments.requests, arguments.concurrency)]
    loads, truth = list[Load](), list[float]()
    for server, url in servers.items():
        extra: Body = {"model": models[server]} if server in models else {}
        try:
            with started(commands.get(server), url, extra) as pid:
                void, scores = verdict(texts, url, extra, is_framed=server in arguments.framed)
                truth = truth or [*scores]
                off = float(np.abs(np.subtract(scores, truth)).max())
                print(f"{server}: {void or 'it reads the same tokens'}; {_OFF}: {off:.1e}", flush=True)
                measure = Measure(arguments, texts, server, url, extra, rate, pid or arguments.pid)
                loads += [replace(load, off=off, void=void or load.void) for load in measure.rows(plans)]
        except (RuntimeError, httpx.HTTPError) as error:
            print(f"{server}: {error}", flush=True)
            loads.append(Load.lost(server, f"void: {error}"))
    print_table("Servers", [row(asdict(load)) for load in loads])
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
    parser.add_argument("--payload", action="append", required=True, help=f"{', '.join(PAYLOADS)}; @RATE, *REQUESTS")
    parser.add_argument("--concurrency", action="append", type=int, default=[], help="clients at once; 1")
    parser.add_argument("--requests", type=int, default=20, help="requests of a payload that does not say")
    parser.add_argument("--limit", type=float, default=600, help="seconds that an answer may take")
    parser.add_argument("--tokenizer", type=Path, default=Path("out/bench/0.6B/tokenizer.json"))
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="0.6B", help="the model's, for its operations")
    parser.add_argument("--format", default="bfloat16", help="whose peak is measured; empty for none")
    parser.add_argument("--pid", type=int, help="the server's process, to watch its memory")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Measure:
    """One server under one load after another."""

    arguments: argparse.Namespace
    texts: Texts
    server: str
    url: str
    extra: Body
    peak: float | None
    pid: int | None

    def rows(self, plans: Sequence[Plan]) -> Iterator[Load]:
        """One row after another, until the server is lost."""
        lost = ""
        for plan in plans:
            if lost:
                load = Load.lost(self.server, lost, plan)
            else:
                load, is_lost = asyncio.run(self._run(plan))
                lost = f"not asked after {plan.payload}" if is_lost else ""
            print(json.dumps(asdict(load)), flush=True)
            yield load

    async def _run(self, plan: Plan) -> tuple[Load, bool]:
        # Made beforehand: writing 500 kB of text takes longer than the gap between requests.
        bodies = [self._body(plan.payload, number) for number in range(plan.requests)]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=self.arguments.limit, limits=limits) as client:
            await self._ask(client, self._body(_WARM, plan.requests), time.perf_counter())
            watch = process_stats.watched(self.pid) if self.pid else contextlib.nullcontext()
            with watch as peak:
                began = time.perf_counter()
                if plan.concurrency:
                    answers = await self._closed(client, bodies, plan.concurrency)
                else:
                    due = [began + number / (plan.rate or 1) for number in range(plan.requests)]
                    answers = await asyncio.gather(
                        *(self._ask(client, body, at) for body, at in zip(bodies, due, strict=True))
                    )
                took = time.perf_counter() - began
        load = self._summary(plan, answers, took, peak.mb if peak else None)
        return load, any(answer.is_lost for answer in answers)

    def _body(self, payload: Payload, number: int) -> bytes:
        body = payload.body(number)
        sent = in_template(body, self.texts.instruction) if self.server in self.arguments.framed else body
        return json.dumps({**sent, **self.extra}).encode()

    async def _closed(self, client: httpx.AsyncClient, bodies: list[bytes], concurrency: int) -> list[Answer]:
        waiting, answers = iter(bodies), list[Answer]()

        async def ask_on() -> None:
            for body in waiting:
                answers.append(await self._ask(client, body, time.perf_counter()))
                if answers[-1].is_lost:
                    break

        await asyncio.gather(*(ask_on() for _ in range(concurrency)))
        return answers

    async def _ask(self, client: httpx.AsyncClient, body: bytes, due: float) -> Answer:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            response = await client.post(self.url, content=body, headers={"Content-Type": "application/json"})
        except httpx.TimeoutException:
            return Answer(time.perf_counter() - due, f"no answer within {self.arguments.limit:g} s", is_lost=True)
        except httpx.HTTPError as error:
            return Answer(time.perf_counter() - due, f"it hung up: {type(error).__name__}", is_lost=True)
        fault = "" if response.is_success else f"it answered {response.status_code}"
        return Answer(time.perf_counter() - due, fault)

    def _summary(self, plan: Plan, answers: Sequence[Answer], took: float, peak_mb: float | None) -> Load:
        good = [answer.seconds for answer in answers if not answer.fault]
        p50, p95, p99 = np.percentile(good or [0.0], [50, 95, 99]).tolist()
        lengths = shape(self.texts, plan.payload.body(0))
        operations = request_flops(lengths, LAYOUTS[self.arguments.layout]) * len(good)
        return Load(
            server=self.server,
            payload=str(plan.payload),
            pair_tokens=lengths.prefix + lengths.tail,
            rate=plan.rate,
            concurrency=plan.concurrency,
            requests=len(answers),
            failed=len(answers) - len(good),
            p50=p50,
            p95=p95,
            p99=p99,
            pairs_per_second=len(good) * plan.payload.documents / took,
            tokens_per_second=len(good) * lengths.tokens / took,
            share_of_peak=operations / took / 1e9 / self.peak if self.peak else None,
            peak_mb=peak_mb,
            void="" if good else answers[-1].fault,
        )


def row(load: Mapping[str, Any]) -> dict[str, object]:
    """The figures as a page shows them; a void row keeps its reason and none of them."""
    how = f"{load['concurrency']} at once" if load["concurrency"] else f"{load['rate'] or 0:g}/s"
    head = {"server": load["server"], "payload": load["payload"], "load": how, "requests": load["requests"]}
    names = ("failed", "p50 s", "p95 s", "p99 s", "pairs/s", "tokens/s", "share of peak", "peak MB", _OFF)
    if load["void"]:
        return {**head, **dict.fromkeys(names, ""), "p50 s": load["void"]}
    share, memory, off = load["share_of_peak"], load["peak_mb"], load.get("off")
    figures = (
        load["failed"],
        f"{load['p50']:.3f}",
        f"{load['p95']:.3f}",
        f"{load['p99']:.3f}",
        f"{load['pairs_per_second']:.1f}",
        f"{load['tokens_per_second']:.0f}",
        "" if share is None else f"{share:.0%}",
        "" if memory is None else f"{memory:.0f}",
        "" if off is None else f"{off:.1e}",
    )
    return {**head, **dict(zip(names, figures, strict=True))}


if __name__ == "__main__":
    main()
