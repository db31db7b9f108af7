"""rerankd serve on a terminal greets; in a pipe it logs JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.live import NO_GRACE, ROOT, LiveServer, free_port

pytestmark = pytest.mark.timeout(600)

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("RERANKD_")}


def seen_on_a_terminal(*flags: str, folder: Path, until: str) -> tuple[str, subprocess.Popen[bytes]]:
    """What a server writes to its terminal, up to a text."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rerankd", "serve", *flags],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRON, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
    )
    os.close(theirs)
    seen, deadline = "", time.monotonic() + 300
    while until not in seen and time.monotonic() < deadline:
        try:
            seen += os.read(ours, 65536).decode()
        except OSError:
            break
    assert until in seen, seen
    return seen.replace("\r\n", "\n"), process


def test_a_terminal_is_greeted_with_a_call_that_works(tmp_path: Path) -> None:
    port = free_port()
    flags = ("--engine", "onnx", "--threads", "1", "--port", str(port), *NO_GRACE)
    seen, process = seen_on_a_terminal(*flags, folder=tmp_path, until="of France.\"]}'")
    try:
        greeting = seen[seen.index("ready in") :]
        assert re.search(r"tiny +\w+ on \w+, [\d,]+ M parameters", greeting)
        assert f"http://127.0.0.1:{port}/docs" in greeting
        assert f"http://127.0.0.1:{port}/playground" in greeting
        call = shlex.split(greeting[greeting.index("curl") :].replace("\\\n", ""))
        answer = json.loads(subprocess.run(call, capture_output=True, check=True, timeout=200).stdout)
        assert answer["results"][0]["index"] == 1
    finally:
        process.terminate()
        process.wait(timeout=40)


def test_a_pipe_gets_json_alone(tiny_server: LiveServer) -> None:
    lines = tiny_server.log.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines][:2] == ["listening", "ready"]


@pytest.mark.parametrize(
    ("settings", "says", "never"),
    [
        ({"api_keys": "me:secret"}, "-H 'Authorization: Bearer KEY'", "secret"),
        ({"playground": False}, "/docs", "/playground"),
        ({"root_path": "/api"}, "http://127.0.0.1:8000/api/rerank", "Bearer"),
    ],
)
def test_the_greeting_says_what_holds_and_no_secret(settings: dict[str, object], says: str, never: str) -> None:
    from tests.standin import INFO

    from rerankd.cli.greeting import greeting
    from rerankd.http.server import Ready
    from rerankd.settings import Settings

    text = greeting(Ready("0.0.0.0", 8000, 0.5, {"tiny": INFO}), Settings(**settings))  # type: ignore[arg-type]
    assert says in text
    assert never not in text
