from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rerankd.prompt.truncate import DOCUMENT_SHARE, INSTRUCTION_SHARE, Shares, divide

TOKENS = st.integers(0, 20_000)


def test_what_fits_is_not_touched() -> None:
    assert divide(100, 10, 40, 50, 0.25) == Shares(query=40, document=50)


def test_the_document_goes_first() -> None:
    assert divide(100, 10, 40, 900, 0.25) == Shares(query=40, document=50)


def test_an_over_long_query_is_cut_to_its_share_and_the_document_gets_the_rest() -> None:
    assert divide(100, 10, 80, 900, 0.25) == Shares(query=25, document=65)


def test_a_long_query_keeps_all_its_tokens_beside_a_short_document() -> None:
    assert divide(100, 10, 80, 10, 0.25) == Shares(query=80, document=10)


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
    if shares.query < query:
        assert shares.query >= min(
            int(budget * query_truncation_share), int(budget * (1 - DOCUMENT_SHARE)) - instruction
        )
