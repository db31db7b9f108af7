"""What both clients share below a call: address, headers, timeouts, the bytes of an answer, and errors told apart."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

from rerankd.client import errors
from rerankd.client._error_table import BY_CODE, BY_STATUS
from rerankd.client.values import Timeout

T = TypeVar("T")
Json: TypeAlias = Any

_ROUTE = re.compile(r"(/v[0-9]{1,2})?(/rerank|/batch_rerank|/info)?$")
DEADLINE_HEADER = "X-Request-Timeout-Ms"

MAX_RESPONSE_BYTES = 64 * 1024 * 1024

# From the special to the general: the first row whose left side fits counts.
TRANSPORT_ERRORS: Sequence[tuple[type[httpx.HTTPError], type[errors.ClientError], str]] = (
    (httpx.ConnectTimeout, errors.ConnectTimeout, "no connection in time"),
    (httpx.WriteTimeout, errors.WriteTimeout, "the request could not be sent in time"),
    (httpx.ReadTimeout, errors.ReadTimeout, "no answer in time"),
    (httpx.PoolTimeout, errors.PoolTimeout, "all connections of this client stayed busy"),
    (httpx.TimeoutException, errors.CallTimeout, "out of time"),
    (httpx.DecodingError, errors.InvalidResponse, "the answer cannot be decoded"),
    (httpx.HTTPError, errors.ConnectionFailed, "the connection failed"),
)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call: where it goes, what it says (nothing: a GET), and how its answer is read."""

    path: str
    body: Json
    read: Callable[[Json], T]
    also_answers: tuple[int, ...] = ()
    """Statuses beside 2xx whose body is the answer."""

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


def base_address(base_url: str) -> str:
    """The server's address; a path before the routes is kept, a route's own beginning (``/v1``) is not.

    Raises:
        ValueError: it is no address of HTTP.
    """
    try:
        url = httpx.URL(base_url.strip())
    except (httpx.InvalidURL, TypeError, ValueError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url has to be an address such as http://127.0.0.1:8000")
    # Other clients are given the address with the version, or with the whole route.
    path = _ROUTE.sub("", url.path.rstrip("/"))
    return str(url.copy_with(path=path or "/", query=None, fragment=None)).rstrip("/")


def default_headers(api_key: str | None) -> dict[str, str]:
    """What every call says.

    Raises:
        ValueError: the key has letters that no header can carry; the message does not show it.
    """
    headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "rerankd-python"}
    if api_key is None:
        return headers
    if not api_key.isascii() or not api_key.isprintable():
        raise ValueError("api_key has line ends or letters beyond ASCII, which no header can carry")
    return headers | {"Authorization": f"Bearer {api_key}"}


def attempt_headers(remaining: float | None) -> dict[str, str]:
    """What each attempt says of the time that is left; at least a millisecond, for 0 would mean none."""
    return {} if remaining is None else {DEADLINE_HEADER: str(max(1, math.ceil(remaining * 1000)))}


def attempt_timeout(timeout: Timeout, remaining: float | None) -> httpx.Timeout:
    """The phases of one attempt, none longer than the whole call still has."""
    left = math.inf if remaining is None else max(remaining, 0.001)
    return httpx.Timeout(
        connect=min(timeout.connect, left),
        write=min(timeout.write, left),
        read=min(timeout.read, left),
        pool=min(timeout.pool, left),
    )


def encoded(call: Call[Any]) -> bytes | None:
    """The body of a call as JSON; None for a call without one.

    Raises:
        InvalidRequest: a text is no valid Unicode.
    """
    if call.body is None:
        return None
    try:
        return json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        reason = "a text holds half a surrogate pair, which is no character"
        raise errors.InvalidRequest(reason, status=0, code="invalid_request") from None


class Collected:
    """The bytes of an answer as they come, unpacked, up to a bound in bytes and in time.

    Args:
        most: bytes; a small answer may unpack to a very large one.
        until: ``time.monotonic()`` of the end of the call; None for none.
    """

    def __init__(self, most: int, until: float | None) -> None:
        self._most = most
        self._until = until
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Raises InvalidResponse or CallTimeout where the answer goes on beyond a bound."""
        self._size += len(part)
        if self._size > self._most:
            raise errors.InvalidResponse(f"the answer has more than {self._most} bytes (max_response_bytes)")
        if self._until is not None and time.monotonic() > self._until:
            raise total_is_over()
        self._parts.append(part)

    def content(self) -> bytes:
        return b"".join(self._parts)


def total_is_over() -> errors.CallTimeout:
    return errors.ReadTimeout("the call was not over in its total time")


def seconds_until(until: float | None) -> float | None:
    """What is left of a call's time; raises CallTimeout where nothing is."""
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise total_is_over()
    return left


def read_answer(call: Call[T], response: httpx.Response, content: bytes) -> T:
    """The answer's value; raises the error that the response stands for."""
    if not response.is_success and response.status_code not in call.also_answers:
        raise status_error(response, content)
    return call.read(_decode(content))


def transport_error(error: httpx.HTTPError) -> errors.ClientError:
    """The client's word for a failure below HTTP."""
    kind, sentence = next((ours, text) for theirs, ours, text in TRANSPORT_ERRORS if isinstance(error, theirs))
    return kind(f"{sentence}: {error}" if str(error) else sentence)


def status_error(response: httpx.Response, content: bytes) -> errors.StatusError:
    """The error that an answer other than 2xx stands for."""
    try:
        body = _decode(content)
    except errors.InvalidResponse:
        body = None
    code, message, param = error_facts(body)
    kind = BY_CODE.get(code) or BY_STATUS.get(response.status_code) or _general_kind(response.status_code)
    return kind(
        message or f"the server answered {response.status_code} {response.reason_phrase}".rstrip(),
        status=response.status_code,
        code=code,
        param=param,
        request_id=response.headers.get("X-Request-Id"),
        retry_after=retry_after_seconds(response.headers.get("Retry-After")),
    )


def retry_after_seconds(value: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds of a ``Retry-After`` header in either of its forms, seconds or a date; None if there is none."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _general_kind(status: int) -> type[errors.StatusError]:
    return errors.ServerError if status >= 500 else errors.StatusError


def error_facts(body: Json) -> tuple[str, str, str | None]:
    """(code, message, param) of an error body, as far as it has them.

    Our own answers say all at the top; inside ``error`` other services say it, with a status for a ``code``.
    """
    if not isinstance(body, dict):
        return "", text_of(body), None
    inner = body.get("error")
    inner = inner if isinstance(inner, dict) else {"message": inner}
    code = text_of(body.get("code")) or text_of(inner.get("code"))
    message = text_of(body.get("message")) or text_of(inner.get("message")) or text_of(body.get("detail"))
    return code, message, text_of(inner.get("param")) or None


def text_of(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _decode(content: bytes) -> Json:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise errors.InvalidResponse("the answer is not JSON; is this the address of a rerankd server?") from None
