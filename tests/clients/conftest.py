"""Three servers behind recording proxies, the report of every call, and the table that is written at the end."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.clients import table
from tests.clients.environments import FOLDER, PYTHON_ENVIRONMENTS, node_environment, python_environment
from tests.clients.proxy import recording_proxy
from tests.live import running_server

Report = dict[str, Any]
PATIENT = ("--deadline-seconds", "300", "--engine-timeout-seconds", "600")
"""A machine that is busy with something else makes a client wait, and not fail."""
SHOWN = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses by what they do: rank with the embedded model, want a key, have no room left."""
    folder = tmp_path_factory.mktemp("servers")
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(running_server(*PATIENT, log=folder / "open.log"))
        locked = stack.enter_context(
            running_server(*PATIENT, log=folder / "locked.log", env={"RERANKD_API_KEYS": "test:the-right-key"})
        )
        busy = stack.enter_context(
            running_server("--engine", "fake", log=folder / "busy.log", env={"RERANKD_RATE_LIMIT": "1/day"})
        )
        body = {"query": "the one request of the day", "documents": ["that is allowed"]}
        assert httpx.post(f"{busy.url}/rerank", json=body).status_code == 200
        urls = {"open": opened.url, "locked": locked.url, "busy": busy.url}
        yield {name: stack.enter_context(recording_proxy(url)) for name, url in urls.items()}


@pytest.fixture(scope="session")
def reports(servers: dict[str, str], pytestconfig: pytest.Config) -> dict[str, list[Report]]:
    """What every call of every environment met; the table is written from it."""
    found = {name: run(python_environment(name), servers) for name in PYTHON_ENVIRONMENTS}
    if shutil.which("node"):
        found["node"] = run(node_environment(), servers)
    rows = [report for reports in found.values() for report in reports]
    pytestconfig.stash[SHOWN] = table.lines(rows)
    table.write(pytestconfig.stash[SHOWN])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table at the end of the run."""
    for line in config.stash.get(SHOWN, []):
        terminalreporter.write_line(line)


def run(command: list[str], servers: dict[str, str]) -> list[Report]:
    """The reports that a script of calls prints."""
    folder = FOLDER / "node" if command[0] == "node" else None
    done = subprocess.run(
        [*command, json.dumps(servers)], cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
