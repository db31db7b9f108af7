"""Every client of the world, unmodified, against a running server: ``make clients``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.clients.table import CASES, SILENT, explains, name_of, ranks, ranks_with_a_key

pytestmark = [pytest.mark.clients, pytest.mark.timeout(0)]

Reports = dict[str, list[dict[str, Any]]]
EXPECTED = {"sdks": 12, "frameworks": 16, "gateways": 14, "node": 8}
"""Calls of each environment."""


@pytest.fixture(params=EXPECTED)
def environment(request: pytest.FixtureRequest, reports: Reports) -> list[dict[str, Any]]:
    """The reports of one environment."""
    if request.param not in reports:
        pytest.skip("node is not installed")
    assert len(reports[request.param]) == EXPECTED[request.param]
    return reports[request.param]


def test_every_client_gets_the_right_order(environment: list[dict[str, Any]]) -> None:
    assert [name_of(report) for report in environment if not ranks(report)] == []


@pytest.mark.promise("U3")
def test_every_client_ranks_with_the_right_key_on_a_server_that_needs_one(environment: list[dict[str, Any]]) -> None:
    assert {name_of(report): report["keyed"] for report in environment if not ranks_with_a_key(report)} == {}


@pytest.mark.parametrize("case", CASES)
def test_every_client_that_reads_errors_tells_its_user_what_happened(
    environment: list[dict[str, Any]], case: str
) -> None:
    unclear = {name_of(report): report[case] for report in environment if not explains(report, case)}
    assert set(unclear) <= SILENT, unclear


def test_no_client_takes_an_error_for_an_answer(environment: list[dict[str, Any]]) -> None:
    for report in environment:
        assert all(isinstance(report[case], str) for case in CASES), name_of(report)
