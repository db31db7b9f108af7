"""Every client of the world, unmodified, against a running server: ``make clients``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.clients.table import CASES, HIDES, KEYLESS, SILENT, explains, name_of, ranks, ranks_with_a_key

pytestmark = [pytest.mark.clients, pytest.mark.timeout(0)]

Reports = dict[str, list[dict[str, Any]]]
EXPECTED = {
    "sdks": 19,
    "frameworks": 18,
    "gateways": 17,
    "stores": 13,
    "adapters": 6,
    "load": 3,
    "older": 1,
    "shapes": 8,
    "node": 14,
}
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
    refused = {name_of(report): report["keyed"] for report in environment if not ranks_with_a_key(report)}
    assert set(refused) <= KEYLESS, refused


@pytest.mark.parametrize("case", CASES)
def test_every_client_that_reads_errors_tells_its_user_what_happened(
    environment: list[dict[str, Any]], case: str
) -> None:
    unclear = {name_of(report): report[case] for report in environment if not explains(report, case)}
    assert set(unclear) <= SILENT | HIDES, unclear


def test_no_client_takes_an_error_for_an_answer(environment: list[dict[str, Any]]) -> None:
    for report in environment:
        mistaken = [case for case in CASES if not isinstance(report[case], str) and not explains(report, case)]
        assert not mistaken or name_of(report) in HIDES, name_of(report)
