"""Fixtures for all tests; each kind in a module of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from build_kernels import BuildError, build_if_stale
from tests.live import LiveServer, running_server

pytest_plugins = ["tests.figures", "tests.redis_fixtures", "tests.tokenizer_fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Tests run the kernels of this source tree, not those of yesterday's."""
    if hasattr(config, "workerinput"):
        return
    try:
        build_if_stale()
    except BuildError as error:
        config.issue_config_time_warning(
            pytest.PytestConfigWarning(f"the engine runs on torch: {error}"), stacklevel=2
        )


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A real server on the embedded model, shared by the tests that only ask it questions."""
    with running_server(log=tmp_path_factory.mktemp("tiny") / "server.log") as server:
        yield server
