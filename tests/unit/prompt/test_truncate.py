from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.prompt.truncate import DOCUMENT_SHARE, INSTRUCTION_SHARE, Shares, divide

TOKENS = st.integers(0, 20_000)


def test_what_fits_is_not_touched() -> None:
    assert divide(100, 10, 40, 50, 0.75) == Shares(query=40, document=50)


def test_the_document_goes_first() -> None:
    assert divide(100, 10, 40, 900, 0.75) == Shares(query=40, document=50)


@pytest.mark.promise("S16")
def test_an_over_long_query_loses_what_has_to_go() -> None:
    assert divide(100, 10, 80, 900, 0.75) == Shares(query=65, document=25)
    assert divide(100, 10, 88, 10, 0.75) == Shares(query=80, document=10)
    assert divide(100, 10, 88, 11, 0.75) == Shares(query=79, document=11)


@pytest.mark.promise("S16")
def test_one_token_more_of_a_query_costs_no_more_than_a_step() -> None:
    for document in (10, 50, 900, 9000):
        kept = [divide(8192, 20, query, document, 0.75).query for query in range(5000, 8192, 7)]
        assert max(one - other for one, other in itertools.pairwise(kept)) <= 8192 // 64


def test_a_query_is_cut_at_one_length_for_all_documents_within_a_step() -> None:
    """A step is a 64th of the budget: 100 tokens here."""
    assert {divide(6400, 0, 6399, document, 0.75).query for document in (101, 150, 200)} == {6200}
    assert divide(6400, 0, 6399, 201, 0.75).query == 6100


def test_a_long_query_keeps_all_its_tokens_beside_a_short_document() -> None:
    assert divide(100, 10, 80, 10, 0.75) == Shares(query=80, document=10)


def test_a_smaller_share_of_the_query_is_a_higher_floor_of_the_document() -> None:
    assert divide(100, 0, 200, 900, 0.4) == Shares(query=40, document=60)


def test_the_share_of_the_query_yields_to_the_floor_of_the_document() -> None:
    assert divide(100, 50, 200, 900, 0.9) == Shares(query=25, document=25)


@given(st.integers(0, 10_000), st.floats(0, INSTRUCTION_SHARE), TOKENS, TOKENS, st.floats(0, 1))
def test_every_division_keeps_the_budget_and_the_floor(
    budget: int, instruction_share: float, query: int, document: int, query_truncation_share: float
) -> None:
    instruction = int(budget * instruction_share)
    shares = divide(budget, instruction, query, document, query_truncation_share)
    assert 0 <= shares.query <= query
    assert 0 <= shares.document <= document
    assert instruction + shares.query + shares.document <= budget
    assert shares.document >= min(document, int(budget * DOCUMENT_SHARE))
    if instruction + query + document <= budget:
        assert shares == Shares(query, document)
