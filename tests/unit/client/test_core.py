from __future__ import annotations

import email.utils
import inspect
import json

import httpx
import pytest

import rerankd.client
from rerankd import errors as server_errors
from rerankd.client import Client, Query, Timeout, _calls, _core, errors


def subclasses(kind: type) -> set[type]:
    return {kind} | {below for sub in kind.__subclasses__() for below in subclasses(sub)}


def test_every_error_of_the_server_has_its_class_here() -> None:
    wider = dict.fromkeys(("InvalidJSON", "EmptyInput", "InvalidDocument"), "InvalidRequest")
    for ours in subclasses(server_errors.ServiceError) - {server_errors.ServiceError, server_errors.ClientClosed}:
        body = json.dumps({"code": ours.code, "message": "m"}).encode()
        found = _core.status_error(httpx.Response(ours.status), body)
        assert type(found).__name__ == wider.get(ours.__name__, ours.__name__)
        assert found.retryable == ours.retryable


def test_every_status_of_the_server_has_a_class_without_its_code() -> None:
    for ours in subclasses(server_errors.ServiceError) - {server_errors.ClientClosed}:
        found = _core.status_error(httpx.Response(ours.status), b"a proxy's page")
        assert type(found) is not errors.StatusError
        assert found.retryable == ours.retryable


def test_every_failure_below_http_is_an_error_of_the_client() -> None:
    for theirs in subclasses(httpx.RequestError):
        found = _core.transport_error(theirs("on purpose"))
        assert isinstance(found, errors.ClientError)
        assert isinstance(found, errors.CallTimeout) == issubclass(theirs, httpx.TimeoutException)


def test_the_tree_of_errors_is_drawn_whole() -> None:
    drawn = {line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    assert drawn | {"ClientError"} == {kind.__name__ for kind in subclasses(errors.ClientError)}


def test_the_public_names_are_listed_in_order() -> None:
    public = {name for name, value in vars(rerankd.client).items() if inspect.isclass(value)}
    assert set(rerankd.client.__all__) == public
    assert rerankd.client.__all__ == sorted(rerankd.client.__all__)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        (email.utils.formatdate(1_000_060, usegmt=True), 60.0),
        (email.utils.formatdate(999_000, usegmt=True), 0.0),
    ],
)
def test_retry_after_is_read_in_both_of_its_forms(header: str | None, seconds: float | None) -> None:
    assert _core.retry_after_seconds(header, now=lambda: 1_000_000) == seconds


@pytest.mark.parametrize("address", ["localhost:8000", "127.0.0.1", "ftp://server.test", "http://", ""])
def test_an_address_without_a_scheme_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(address)


def test_one_text_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="list of texts"):
        _calls.rank_call(Query("q", "not a list"), model=None, raw_scores=False)


def test_no_phase_is_longer_than_the_whole_call_still_has() -> None:
    timeout = _core.attempt_timeout(Timeout(connect=5, read=30, total=20), remaining=2.0)
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (2.0, 2.0, 2.0, 2.0)
    assert _core.attempt_timeout(Timeout(read=600, total=None), remaining=None).read == 600


def test_a_call_without_a_limit_sends_no_deadline() -> None:
    assert _core.attempt_headers(None) == {}
    assert _core.attempt_headers(1.5) == {"X-Request-Timeout-Ms": "1500"}
    assert _core.attempt_headers(-1.0) == {"X-Request-Timeout-Ms": "1"}


@pytest.mark.parametrize("phase", ["connect", "write", "read", "pool", "total"])
def test_a_timeout_of_nothing_is_refused(phase: str) -> None:
    with pytest.raises(ValueError, match=phase):
        Timeout(**{phase: 0})


@pytest.mark.promise("U17")
@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("http://h:8000/v2", "http://h:8000"),
        ("http://h:8000/v1/rerank", "http://h:8000"),
        ("http://h:8000/rerank", "http://h:8000"),
        (" http://h:8000 ", "http://h:8000"),
        ("https://h/team/v1", "https://h/team"),
        ("https://h/v1/team", "https://h/v1/team"),
        ("https://h/team/rerankd", "https://h/team/rerankd"),
        ("http://[::1]:8000/v1?x=1#y", "http://[::1]:8000"),
    ],
)
def test_an_address_may_end_as_other_clients_want_it(given: str, address: str) -> None:
    assert _core.base_address(given) == address


@pytest.mark.parametrize("given", ["", "h:8000", "ftp://h", "http://", "http://h:port", "\x00", "http://h\n:1"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="base_url has to be an address"):
        _core.base_address(given)
