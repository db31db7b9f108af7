"""rerankd models: list, download, verify and path, against a small hub of the test's own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.live import ROOT

from rerankd.cli.main import cli
from rerankd.model_hub import EMBEDDED, local_checkpoint

pytestmark = pytest.mark.timeout(900)
NAME = "someone/small-reranker"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = local_checkpoint(EMBEDDED)
LARGE = "model.safetensors"


class Hub(http.server.ThreadingHTTPServer):
    """What the hub's library asks of a hub: a revision's files, their hashes, and ranges of their bytes."""

    def __init__(self) -> None:
        assert TINY is not None
        self.files = {
            file.name: file.read_bytes() for file in TINY.iterdir() if file.suffix in (".json", ".safetensors")
        }
        self.breaks_off = False
        """Does the connection end in the middle of the large file, and the hub refuse to go on with it?"""
        self.ranges: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name == LARGE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        if re.match(f"/api/models/{NAME}/revision/", self.path):
            rows = [{"rfilename": name} for name in self.server.files]
            self._send(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": rows}).encode(), {})
            return
        if re.match(f"/api/models/{NAME}/tree/", self.path):
            self._send(200, json.dumps([self._entry(name) for name in self.server.files]).encode(), {})
            return
        found = re.match(f"/{NAME}/resolve/[^/]+/([^?]+)", self.path)
        if found is None or found[1] not in self.server.files:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        self._file(found[1], with_body=with_body)

    def _entry(self, name: str) -> dict[str, Any]:
        """A file as a listing of the hub has it."""
        size, etag = len(self.server.files[name]), self.server.etag(name)
        row = {"type": "file", "path": name, "size": size, "oid": etag[:40]}
        return row | ({"lfs": {"oid": etag, "size": size, "pointerSize": 134}} if name == LARGE else {})

    def _file(self, name: str, *, with_body: bool) -> None:
        content, first = self.server.files[name], 0
        headers = {"ETag": f'"{self.server.etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            self.server.ranges.append(asked[0])
            first = int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if first and self.server.breaks_off:
            self._send(403, b"{}", {})
            return
        part = content[first:]
        self.send_response(206 if asked else 200)
        for key, value in {**headers, "Content-Length": str(len(part))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body and name == LARGE and self.server.breaks_off:
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        elif with_body:
            self.wfile.write(part)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Any:
    """The command in a process of its own: the hub's library reads its variables when it is imported."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RERANKD_"))}
        environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT / "src")}
        environ |= {"HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "rerankd", "models", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)

    return call


def test_a_model_is_fetched_and_verified(run: Any, hub: Hub) -> None:
    done = run("download", NAME)
    assert (Path(done.stdout.strip()) / LARGE).read_bytes() == hub.files[LARGE], done.stderr
    assert run("verify", NAME).returncode == 0


@pytest.mark.thorough
def test_a_model_is_fetched_gone_on_with_verified_and_found(run: Any, hub: Hub) -> None:
    assert run("path", NAME).returncode == 2
    hub.breaks_off = True
    assert run("download", NAME).returncode == 2
    hub.breaks_off = False
    done = run("download", NAME)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert any(int(part.removeprefix("bytes=").rstrip("-")) > 1_000_000 for part in hub.ranges)
    assert (folder / LARGE).read_bytes() == hub.files[LARGE]
    assert run("path", NAME).stdout.strip() == str(folder)
    listed = {row["model"]: row for row in json.loads(run("list", "--json").stdout)}
    assert listed.keys() == {"tiny", NAME}
    assert listed[NAME]["revision"] == COMMIT

    verified = run("verify", NAME)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert re.search(r"model.safetensors +28.0 MB +sha256 +good", verified.stdout)
    assert re.search(r"config.json +\d+ B +git sha1 +good", verified.stdout)

    with (folder / LARGE).open("r+b") as weights:
        weights.seek(10_000_000)
        weights.write(b"\0" * 16)
    damaged = run("verify", NAME)
    assert damaged.returncode == 1
    assert "its sha256 is not the hub's: it is damaged" in damaged.stdout
    again = run("download", NAME)
    assert again.returncode == 0
    assert "fetched again" in again.stderr
    assert run("verify", NAME).returncode == 0


def test_a_name_that_no_hub_knows_is_one_line(run: Any) -> None:
    done = run("download", "someone/else")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rerankd: there is no model 'someone/else'")


def test_a_folder_is_verified_by_its_own_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["models", *arguments], catch_exceptions=False)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # The command sets it: it has its process for itself elsewhere.
    assert TINY is not None
    assert run("verify", "tiny").exit_code == 0
    shutil.copytree(TINY, tmp_path / "copy")
    assert run("path", str(tmp_path / "copy")).stdout.strip() == str(tmp_path / "copy")
    with (tmp_path / "copy" / LARGE).open("ab") as weights:
        weights.truncate(20_000_000)
    done = run("verify", str(tmp_path / "copy"))
    assert done.exit_code == 1
    assert "it is not whole" in done.stdout
