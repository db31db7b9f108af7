"""A Ray cluster of the tests' own, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster that counts four CPUs, whatever the machine has."""
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'rerankd[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # As `rerankd serve --ray` has it for a cluster of its own.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "50")
    given = os.environ.get("RAY_ADDRESS")
    ray.init(
        address=given,
        **({} if given else {"num_cpus": 4, "include_dashboard": False}),
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
