"""Log lines: JSON for machines, columns for people, one form for ours and for every library's.

Texts and keys are never logged. That is why an exception is logged by its type and the places in the source
that it came through, and never by its message: a message may quote what a client sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FRAMES = 8

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""The request that is being answered, on every line that is written meanwhile."""

_encode = json.JSONEncoder(default=repr).encode
"""One encoder for all lines: ``json.dumps`` with a fallback makes a new one for each."""

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def configure_logs(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Send every log line of the process to ``stream`` (standard error) in one form.

    Args:
        log_format: ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.
        log_level: the least level that is written, by name.
    """
    target = sys.stderr if stream is None else stream
    level = _LEVELS[log_level]
    shared: list[Processor] = [
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        scrub_exception,
    ]
    render = _renderer(log_format, target)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=True,
    )
    _route_library_logs(shared, render, level, target)


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The id of the request under way, if there is one."""
    if request_id := REQUEST_ID.get(""):
        event["request_id"] = request_id
    return event


def scrub_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """``exc_info`` -> the exception's type and the last places it came through."""
    error = _exception_of(event.pop("exc_info", None))
    if error is not None:
        event["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        event["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _exception_of(info: Any) -> BaseException | None:
    if info is True:
        return sys.exc_info()[1]
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return info if isinstance(info, BaseException) else None


def _renderer(log_format: str, target: TextIO) -> Processor:
    if log_format == "json" or (log_format == "auto" and not target.isatty()):
        return render_json
    return structlog.dev.ConsoleRenderer(colors=target.isatty())


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """The line as a JSON object."""
    return _encode(event)


def _route_library_logs(shared: list[Processor], render: Processor, level: int, target: TextIO) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries talk at info about what our own lines say already.
    root.setLevel(max(level, logging.WARNING))
