"""Section G-14: whatever the OpenAPI document lets through, and what it does not, is answered without a fault.

Bodies are derived from the server's own document, so a new path is tried as soon as it exists. ``FUZZ_SECONDS``
says how long the slow run goes on.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from tests.figures import Measured
from tests.live import LiveServer

SECONDS = float(os.environ.get("FUZZ_SECONDS", "150"))


def fuzz(url: str, examples: int) -> Counter[int]:
    """Statuses of ``examples`` fitting and as many unfitting requests of every operation."""
    # Imported here, as it takes seconds, which every collection of tests would.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import response_schema_conformance

    checks = [not_a_server_error, response_schema_conformance]
    statuses: Counter[int] = Counter()
    for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = result.ok()
        # A request without a body or a parameter cannot be unfitting.
        for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=strategy)
            def send(case: schemathesis.Case) -> None:
                response = case.call()
                statuses[response.status_code] += 1
                case.validate_response(response, checks=checks)

            send()
    return statuses


@pytest.mark.promise("G-14")
@pytest.mark.parametrize(
    ("examples", "seconds"),
    [
        pytest.param(1, 0.0, marks=pytest.mark.thorough),
        pytest.param(10, SECONDS, marks=[pytest.mark.slow, pytest.mark.timeout(0)]),
    ],
)
def test_no_request_makes_the_server_fail(
    fake_server: LiveServer, measured: Measured, examples: int, seconds: float
) -> None:
    until = time.monotonic() + seconds
    statuses = fuzz(fake_server.url, examples)
    while time.monotonic() < until:
        statuses += fuzz(fake_server.url, examples)
    faults = sum(count for status, count in statuses.items() if status >= 500)
    measured(
        "G-14",
        f"{statuses.total()} requests from the document, {seconds:.0f} s",
        "0 x 5xx, 0 crashes",
        f"{dict(statuses)}",
    )
    assert statuses[200] > 0
    assert faults == 0
    assert fake_server.process.poll() is None
