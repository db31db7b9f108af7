"""Two replicas behind nginx: what least connections and hash by query do to the score cache and the prefix cache.

    python benchmarks/routing.py --requests 600 --json routing.json
    python -m benchmarks.routing --random small --cache off     # a query-first prompt: the prefix cache alone

Two servers with the embedded model, or with random weights in a layout of Qwen3-Reranker whose prompt has the query
before the document, each with a score cache of its own, behind the nginx files of ``deploy/nginx``,
whose addresses alone are changed. A request is one of ``--queries`` queries, drawn from a Zipf distribution, with
``--documents`` of the query's own 40: what a search engine sends that finds about the same again. Queries and
documents are the same for both rules, and both start with empty caches.

Of the figures, "from the cache" is the share of pairs whose score was known where the request went, and "tokens a
pair" what the engines computed for all others, after prefixes in the KV cache and those shared in a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS, write_checkpoint

from benchmarks.http_load import Connection
from benchmarks.machine import print_table

ROOT = Path(__file__).parents[1]
RULES = ("least-connections", "hash-by-query")
_OWN_DOCUMENTS = 40
_WORDS = ("river", "mountain", "copper", "engine", "winter", "garden", "letter", "bridge", "market", "silver")
TOKENIZER = ROOT.parent / "shared" / "tokenizer" / "qwen3"
_NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def random_checkpoint(folder: Path, layout: str) -> Path:
    """Random weights with the tokenizer of the shared folder: what is counted does not depend on the weights."""
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return write_checkpoint(folder, LAYOUTS[layout])


def bodies(options: argparse.Namespace) -> list[bytes]:
    """The requests, the same for every rule."""
    source = random.Random(0)
    weights = [1 / (rank + 1) ** options.zipf for rank in range(options.queries)]

    def text(name: str, words: int) -> str:
        return " ".join([name, *random.Random(name).choices(_WORDS, k=words)])

    found = []
    for query in source.choices(range(options.queries), weights, k=options.requests):
        places = source.sample(range(_OWN_DOCUMENTS), options.documents)
        body = {
            "query": text(f"question {query}", 8),
            "documents": [text(f"document {query} {place}", options.words) for place in places],
            "return_documents": False,
        }
        found.append(json.dumps(body).encode())
    return found


@contextlib.contextmanager
def servers(flags: list[str]) -> Iterator[list[int]]:
    """Two servers that are ready, by port."""
    ports = [free_port() for _ in range(2)]
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rerankd",
                "serve",
                "--port",
                str(port),
                "--threads",
                "1",
                "--allowed-hosts",
                "*",
                *flags,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    try:
        for port, process in zip(ports, running, strict=True):
            while process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                        break
                time.sleep(0.1)
            else:
                raise RuntimeError("a server ended")
        yield ports
    finally:
        for process in running:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def nginx(rule: str, ports: list[int]) -> Iterator[str]:
    """The shipped configuration with one of its upstreams."""
    own = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "deploy" / "nginx", folder, dirs_exist_ok=True)
        for file in folder.glob("*.conf"):
            text = file.read_text().replace("include least-connections.conf;", f"include {rule}.conf;")
            for shipped, port in ((8080, own), *zip((8000, 8001), ports, strict=True)):
                text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{port}")
            file.write_text(text)
        words = [_NGINX, "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off; user root;"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while socket.socket().connect_ex(("127.0.0.1", own)):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{own}"
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def send(url: str, requests: list[bytes], connections: int) -> list[float]:
    """Every request once, from some callers that each wait for their answer; seconds each."""
    waiting = iter(requests)
    seconds: list[float] = []

    async def caller() -> None:
        connection = await Connection.open(url)
        for body in waiting:
            started = time.perf_counter()
            status = await connection.ask(body)
            if status != 200:
                raise RuntimeError(f"status {status}")
            seconds.append(time.perf_counter() - started)
        await connection.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    return seconds


def counted(port: int) -> dict[str, float]:
    """A server's counters, summed over labels."""
    found: dict[str, float] = {}
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.split("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def measure(rule: str, options: argparse.Namespace) -> dict[str, object]:
    requests = bodies(options)
    flags = ["--prefix-cache-tokens", str(options.prefix_cache_tokens), "--engine", options.engine]
    flags += ["--model", options.model, "--cache", options.cache]
    with servers(flags) as ports, nginx(rule, ports) as url:
        before = [counted(port) for port in ports]
        started = time.perf_counter()
        seconds = sorted(asyncio.run(send(url, requests, options.connections)))
        elapsed = time.perf_counter() - started
        after = [counted(port) for port in ports]

    def grown(name: str) -> list[float]:
        return [then.get(name, 0.0) - first.get(name, 0.0) for first, then in zip(before, after, strict=True)]

    hits, misses = sum(grown("reranker_cache_hits_total")), sum(grown("reranker_cache_misses_total"))
    pairs, tokens = sum(grown("reranker_batch_pairs_sum")), sum(grown("reranker_batch_tokens_sum"))
    shares = grown("reranker_documents_count")
    return {
        "rule": rule,
        "from the cache": f"{hits / (hits + misses):.0%}" if hits + misses else "off",
        "pairs scored": int(pairs),
        "tokens a pair": f"{tokens / pairs:.1f}",
        "tokens computed": int(tokens),
        "busier replica": f"{max(shares) / sum(shares):.0%} of requests",
        "p50, ms": f"{seconds[len(seconds) // 2] * 1000:.0f}",
        "requests/s": f"{len(seconds) / elapsed:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--words", type=int, default=40, help="of a document")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--random", choices=LAYOUTS, help="random weights in this layout of Qwen3-Reranker")
    parser.add_argument("--cache", default="memory", help="of scores: memory or off")
    parser.add_argument("--prefix-cache-tokens", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.random:
            options.model = str(random_checkpoint(Path(folder), options.random))
        rows = [measure(rule, options) for rule in RULES]
    print_table("Two replicas behind nginx", rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
