"""The way of one request through the package: how many calls, how many files, how often the reader changes file.

    python benchmarks/request_path.py                    # this tree
    python benchmarks/request_path.py --engine onnx      # as it is served where torch is not installed
    python benchmarks/request_path.py --source ../other/src   # another checkout, the same client
    python benchmarks/request_path.py --lines            # every call, in order, the event loop's first

A server on the embedded model runs in a process of its own under ``sys.setprofile``. After a few requests that fill
whatever is built once, one `/rerank` with three new documents is counted. A call is a Python function, generator or
coroutine of the package that starts or goes on; a switch is a call whose file is not the file of the call before it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine, print_table

_SOURCE = Path(__file__).parents[1] / "src"
_WARM_REQUESTS = 5
_QUIET_SECONDS = 0.3
"""After an answer some of its work may still be under way: log lines, cache writes."""

_SERVER = """
import json, os, signal, sys, threading
package, report, port, engine = sys.argv[1:5]
events = []
def profile(frame, event, argument):
    if event == "call" and frame.f_code.co_filename.startswith(package):
        code = frame.f_code
        events.append((threading.get_ident(), code.co_filename[len(package) + 1:], code.co_qualname))
def listen():
    main = threading.main_thread().ident
    for line in sys.stdin:
        if line.startswith("count"):
            events.clear()
        else:
            counted = [(thread == main, file, name) for thread, file, name in events]
            with open(report, "w") as stream:
                json.dump(counted, stream)
            print("reported", flush=True)
threading.Thread(target=listen, daemon=True).start()
threading.setprofile(profile)
# The event loop's thread starts the server first: its imports would take a minute under a profile.
signal.signal(signal.SIGUSR2, lambda *_: sys.setprofile(profile))
sys.argv = ["rerankd", "serve", "--port", port, "--engine", engine, "--log-level", "error"]
from rerankd.cli.main import cli
cli()
"""

Call = tuple[bool, str, str]
"""Whether it ran on the event loop's thread, its file within the package, its qualified name."""


def trace(source: Path, port: int, engine: str) -> list[Call]:
    """The calls that one request of three documents takes, in the order in which they began."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "calls.json"
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(source / "rerankd"), str(report), str(port), engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                _wait_until_ready(client, process)
                process.send_signal(signal.SIGUSR2)
                for number in range(_WARM_REQUESTS):
                    _rank(client, number)
                time.sleep(_QUIET_SECONDS)
                _tell(process.stdin, "count")
                time.sleep(_QUIET_SECONDS)
                _rank(client, _WARM_REQUESTS)
                time.sleep(_QUIET_SECONDS)
                _tell(process.stdin, "report")
                while process.stdout.readline().strip() != "reported":
                    pass
            calls: list[Call] = [(on_loop, file, name) for on_loop, file, name in json.loads(report.read_text())]
            return calls
        finally:
            process.terminate()
            process.wait(20)


def _tell(stream: Any, word: str) -> None:
    stream.write(word + "\n")
    stream.flush()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.get("/health").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


def _rank(client: httpx.Client, number: int) -> None:
    documents = [f"Document {index} of request {number} is about rivers." for index in range(3)]
    body = {"query": f"which document is number {number}?", "documents": documents}
    client.post("/rerank", json=body).raise_for_status()


def switches(calls: Sequence[Call]) -> int:
    """How often the file changes from one call to the next."""
    return sum(one[1] != other[1] for one, other in itertools.pairwise(calls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=_SOURCE, help="the src folder that is traced")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--engine", default="native", help="native, or onnx: what runs where torch is not installed")
    parser.add_argument("--lines", action="store_true", help="print every call")
    chosen = parser.parse_args()
    calls = trace(chosen.source.resolve(), chosen.port, chosen.engine)
    on_loop = [call for call in calls if call[0]]
    elsewhere = [call for call in calls if not call[0]]
    if chosen.lines:
        for is_on_loop, file, name in (*on_loop, *elsewhere):
            print(f"{'loop' if is_on_loop else 'other':6} {file:40} {name}")
    print_table("machine", [machine()])
    by_thread = {"all": calls, "event loop": on_loop, "others": elsewhere}
    print_table("one /rerank of three documents", [_row(thread, counted) for thread, counted in by_thread.items()])


def _row(thread: str, calls: Sequence[Call]) -> dict[str, object]:
    return {
        "threads": thread,
        "calls": len(calls),
        "files": len({file for _, file, _ in calls}),
        "file switches": switches(calls),
    }


if __name__ == "__main__":
    main()
