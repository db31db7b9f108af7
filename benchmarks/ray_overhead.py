"""Ray beside the bare process: the same requests at both, one engine each, in turns.

    python benchmarks/ray_overhead.py --seconds 10 --turns 3

The fake engine scores in no time, so that what is left is the way there and back: Ray's proxy, the ingress, its
router, and the replica, instead of one process. ``RAY_ADDRESS`` joins a running cluster; else each turn starts one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.http_load import closed_loop, make_body
from benchmarks.machine import print_table
from benchmarks.routing import free_port

_READY_SECONDS = 300.0


@contextlib.contextmanager
def running(flags: list[str]) -> Iterator[str]:
    """A server that is ready."""
    port = free_port()
    words = [sys.executable, "-m", "rerankd", "serve", "--port", str(port), "--engine", "fake", "--cache", "off"]
    words += ["--allowed-hosts", "*"]
    environ = {**os.environ, "RERANKD_TESTING": "1"}  # for the fake engine
    process = subprocess.Popen([*words, *flags], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + _READY_SECONDS
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"rerankd serve {' '.join(flags)} does not get ready")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def measure(url: str, options: argparse.Namespace) -> dict[str, float]:
    """One caller for the time of a request, several for how many there are a second."""
    body = make_body(options.documents, 200, same=False)
    asyncio.run(closed_loop(url, options.connections, 1.0, body))
    alone = asyncio.run(closed_loop(url, 1, options.seconds, body))
    many = asyncio.run(closed_loop(url, options.connections, options.seconds, body))
    return {
        "p50": alone.percentile(0.5) * 1000,
        "p99": alone.percentile(0.99) * 1000,
        "rate": many.rate,
        "failed": alone.failed + many.failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = {"one process": [], "Ray, one replica": ["--ray", "--ray-replica-cpus", "0.5"]}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, flags in ways.items():
            with running(flags) as url:
                turns[name].append(measure(url, options))
    rows = []
    for name, figures in turns.items():
        p50, p99, rate = (statistics.median(turn[key] for turn in figures) for key in ("p50", "p99", "rate"))
        failed = sum(turn["failed"] for turn in figures)
        row = {"p50, ms": f"{p50:.1f}", "p99, ms": f"{p99:.1f}", "requests/s": f"{rate:.0f}", "failed": int(failed)}
        rows.append({"way": name, **row})
    print_table(f"{options.documents} documents, medians of {options.turns} turns", rows)
    if options.json:
        options.json.write_text(json.dumps(turns, indent=2))


if __name__ == "__main__":
    main()
