"""A PostgreSQL of the tests' own: real, on a free port, as a user who is not root, in a folder that goes away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.live import free_port

PASSWORD = "a-password-that-no-log-may-show"
_NOBODY = 65534
"""PostgreSQL does not run as root."""


def program(name: str) -> str | None:
    """Debian keeps servers out of PATH, in a folder by version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)]))


class PostgresServer:
    """``postgres`` as a child process that a test may kill, pause and start again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rerankd-postgres-"))
        self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://rerankd:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (self._folder, secret):
                os.chown(path, _NOBODY, _NOBODY)
        words = [program("initdb"), "--pgdata", self._data, "--username", "rerankd", "--auth", "scram-sha-256"]
        words += ["--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        self._run(words)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, words: list[str | None]) -> None:
        done = subprocess.run(words, capture_output=True, text=True, cwd=self._folder, **self._user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        words = [program("postgres"), "-D", self._data, "-k", str(self._folder), "-p", str(self.port)]
        words += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"]
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder, **self._user)  # type: ignore[call-overload]
        log.close()
        deadline = time.monotonic() + 60
        ready = [program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode:  # type: ignore[arg-type]
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """At once, as when the machine goes: connections break, and what was committed is there again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'rerankd[postgres]'")
    if program("initdb") is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = PostgresServer()
    server.start()
    yield server
    server.close()
