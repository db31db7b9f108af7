from __future__ import annotations

from rerankd.schedule.options import ScheduleOptions
from rerankd.settings import Settings


def test_the_default_queue_holds_the_largest_request_twice() -> None:
    settings = Settings()
    largest = settings.max_request_characters + settings.max_documents * 256
    assert ScheduleOptions.from_settings(settings).queue_tokens == 2 * largest


def test_the_default_queue_holds_a_pair_of_any_allowed_length() -> None:
    settings = Settings(max_request_characters=10, max_documents=1, max_pair_tokens=100_000)
    assert ScheduleOptions.from_settings(settings).queue_tokens >= 200_000


def test_a_queue_of_a_given_size_has_that_size() -> None:
    options = ScheduleOptions.from_settings(Settings(queue_tokens=123, queue_requests=4, engine_timeout_seconds=5.0))
    assert (options.queue_tokens, options.queue_requests, options.engine_timeout_seconds) == (123, 4, 5.0)
