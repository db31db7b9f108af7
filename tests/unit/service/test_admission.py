from __future__ import annotations

import math
from typing import Any

import pytest

from rerankd.errors import InvalidRequest, TooLarge
from rerankd.observe.metrics import EngineMetrics, Metrics
from rerankd.prompt.fair_semaphore import FairSemaphore
from rerankd.service.admission import CHARACTERS_PER_TOKEN, Admission, SizeLimits, Ticket, check_sizes
from rerankd.settings import Settings
from rerankd.types import RerankRequest

LIMITS = SizeLimits(max_documents=3, max_document_characters=10, max_query_characters=8, max_request_characters=20)


def request(**fields: Any) -> RerankRequest:
    return RerankRequest(**{"query": "q", "documents": ("d",), **fields})


@pytest.mark.parametrize("query", ["", " ", "\n\t "])
def test_a_query_without_words_is_invalid(query: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_sizes(request(query=query), LIMITS)
    assert refused.value.param == "query"


def test_a_request_without_documents_is_invalid() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_sizes(request(documents=()), LIMITS)
    assert refused.value.param == "documents"


def test_an_empty_document_is_scored_like_any_other() -> None:
    check_sizes(request(documents=("", " ", "d")), LIMITS)


def test_exactly_the_limit_is_allowed() -> None:
    check_sizes(request(query="q" * 8, instruction="i" * 8, documents=("d" * 10, "d" * 10)), LIMITS)


@pytest.mark.parametrize(
    ("fields", "param", "setting", "limit", "value"),
    [
        ({"documents": ("d",) * 4}, "documents", "max_documents", "3", "4"),
        ({"query": "q" * 9}, "query", "max_query_characters", "8", "9"),
        ({"instruction": "i" * 9}, "instruction", "max_query_characters", "8", "9"),
        ({"documents": ("d", "d" * 11)}, "documents[1]", "max_document_characters", "10", "11"),
        ({"documents": ("d" * 7,) * 3}, "documents", "max_request_characters", "20", "21"),
    ],
)
def test_what_is_too_large_is_named_with_limit_value_and_setting(
    fields: dict[str, Any], param: str, setting: str, limit: str, value: str
) -> None:
    with pytest.raises(TooLarge) as refused:
        check_sizes(request(**fields), LIMITS)
    assert (refused.value.param, refused.value.setting) == (param, setting)
    assert limit in refused.value.message
    assert value in refused.value.message


def test_a_refusal_never_repeats_the_input() -> None:
    with pytest.raises(TooLarge) as refused:
        check_sizes(request(documents=("secret words here",)), LIMITS)
    assert "secret" not in refused.value.message


def test_limits_come_from_the_settings_and_the_served_name() -> None:
    limits = SizeLimits.from_settings(Settings(max_document_characters=5), max_documents=7)
    assert (limits.max_documents, limits.max_document_characters) == (7, 5)


def test_two_of_the_largest_requests_fit_however_few_tokens_may_wait() -> None:
    def room(**settings: int) -> int:
        return Admission(Settings(**settings), FairSemaphore(1, 1000), EngineMetrics(Metrics(), "m")).characters.limit

    assert room(queue_tokens=1_000_000, max_request_characters=10_000) == CHARACTERS_PER_TOKEN * 1_000_000
    assert room(queue_tokens=20_000, max_request_characters=500_000) == 1_000_000


def test_a_call_gives_back_exactly_what_it_held() -> None:
    admission = Admission(Settings(), FairSemaphore(1, 1000), EngineMetrics(Metrics(), "m"))
    status: Any = None  # nothing waits, so that nothing is asked of the engine
    for has_tokens in (False, True):
        ticket = Ticket(admission, "", math.inf)
        ticket.take_texts(2, 100)
        assert (admission.requests.held, admission.characters.held) == (2, 100)
        if has_tokens:
            ticket.take_tokens({}, status)
            assert (admission.requests.held, admission.characters.held) == (2, 0)
        ticket.close()
        assert (admission.requests.held, admission.characters.held) == (0, 0)
