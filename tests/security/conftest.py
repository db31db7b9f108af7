"""A real server on the fake engine, shared by the tests of a module that only send requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.live import LiveServer, running_server


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server("--engine", "fake", log=tmp_path_factory.mktemp("fake") / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Its deadlines are short, so that a test need not wait for the real ones."""
    flags = (
        "--header-timeout-seconds",
        "1",
        "--receive-timeout-seconds",
        "1",
        "--send-timeout-seconds",
        "1",
        "--keep-alive-seconds",
        "2",
    )
    log = tmp_path_factory.mktemp("impatient") / "server.log"
    with running_server("--engine", "fake", *flags, log=log) as server:
        yield server
