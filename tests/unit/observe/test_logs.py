from __future__ import annotations

import contextvars
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from rerankd.observe.logs import REQUEST_ID, configure_logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(text: str) -> None:
    raise ValueError(f"cannot read {text}")


def test_our_lines_and_those_of_libraries_have_one_form() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    structlog.get_logger("ours").info("ready", seconds=1.5)
    logging.getLogger("library").warning("something %s", "odd")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["level"], ours["seconds"]) == ("ready", "info", 1.5)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("something odd", "warning", "library")
    assert {"timestamp"} < set(ours) & set(theirs) | {"x"}


def test_an_exception_is_logged_by_its_place_and_never_by_its_message() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    for log in (structlog.get_logger("ours").exception, logging.getLogger("library").exception):
        try:
            fail_with("the secret text")
        except ValueError:
            log("failed")
    assert "secret" not in stream.getvalue()
    for line in lines(stream):
        assert line["error"] == "ValueError"
        assert str(line["frames"][-1]).endswith("fail_with")  # type: ignore[index]


def test_the_level_holds_for_our_own_lines() -> None:
    stream = io.StringIO()
    configure_logs("json", "warning", stream)
    structlog.get_logger("ours").info("quiet")
    structlog.get_logger("ours").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_a_line_inside_of_a_request_carries_its_id() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)

    def answer() -> None:
        REQUEST_ID.set("abc")
        structlog.get_logger("ours").info("inside")

    contextvars.copy_context().run(answer)
    structlog.get_logger("ours").info("outside")
    assert [line.get("request_id") for line in lines(stream)] == ["abc", None]


def test_auto_is_json_where_no_person_reads() -> None:
    stream = io.StringIO()
    configure_logs("auto", "info", stream)
    structlog.get_logger("ours").info("ready")
    assert lines(stream)[0]["event"] == "ready"


def test_the_console_form_is_for_people() -> None:
    stream = io.StringIO()
    configure_logs("console", "info", stream)
    structlog.get_logger("ours").info("ready", seconds=2)
    assert "ready" in stream.getvalue()
    assert "seconds=2" in stream.getvalue()
