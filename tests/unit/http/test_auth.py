from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import structlog
from tests.standin import StandInService
from tests.unit.http.conftest import Connect

from rerankd.errors import ConfigurationError
from rerankd.http import auth
from rerankd.http.auth import KeyRing, check_address, parse_keys
from rerankd.settings import Settings

BODY = {"query": "q", "documents": ["d"]}


def test_keys_have_a_name_and_only_their_digest_is_kept() -> None:
    (key,) = parse_keys(["alice:s3cret"])
    assert key.name == "alice"
    assert "s3cret" not in repr(key)


def test_a_secret_may_contain_a_colon() -> None:
    ring = KeyRing(Settings(api_keys="a:one:two"))
    assert ring.find(b"one:two") is not None


@pytest.mark.parametrize("row", ["secret", ":secret", "name:", "name: "])
def test_a_row_that_is_no_key_is_refused_without_showing_it(row: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_keys([row])
    assert "secret" not in caught.value.message.replace("name:secret", "")


@pytest.mark.parametrize("header", ["Authorization", "authorization"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_a_bearer_key_opens_the_server(connect: Connect, header: str, scheme: str) -> None:
    client = connect(api_keys="alice:s3cret")
    assert (await client.post("/rerank", json=BODY, headers={header: scheme + "s3cret"})).status_code == 200


@pytest.mark.parametrize("header", ["api-key", "x-api-key", "X-Api-Key"])
async def test_the_headers_of_other_clients_open_it_too(connect: Connect, header: str) -> None:
    client = connect(api_keys="alice:s3cret")
    assert (await client.post("/rerank", json=BODY, headers={header: "s3cret"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "s3cret"},
        {"Authorization": "Basic s3cret"},
        {"x-api-key": "S3CRET"},
        {"Cookie": "key=s3cret"},
    ],
)
async def test_no_key_or_a_wrong_one_is_401(connect: Connect, headers: dict[str, str]) -> None:
    response = await connect(api_keys="alice:s3cret").post("/rerank", json=BODY, headers=headers)
    assert response.status_code == 401
    assert response.json()["code"] == "unauthorized"


async def test_a_key_in_the_address_opens_nothing(connect: Connect) -> None:
    response = await connect(api_keys="alice:s3cret").post("/rerank?api_key=s3cret&key=s3cret", json=BODY)
    assert response.status_code == 401


async def test_the_caller_is_known_by_the_name_of_the_key(connect: Connect, service: StandInService) -> None:
    client = connect(api_keys="alice:one,bob:two")
    await client.post("/rerank", json=BODY, headers={"Authorization": "Bearer two"})
    assert service.calls[0][1].tenant == "bob"


async def test_without_keys_the_caller_is_its_address(connect: Connect, service: StandInService) -> None:
    await connect().post("/rerank", json=BODY, headers={"Authorization": "Bearer anything"})
    assert service.calls[0][1].tenant == "127.0.0.1"


async def test_a_wrong_key_beside_a_right_one_does_no_harm(connect: Connect) -> None:
    headers = {"Authorization": "Bearer dummy", "x-api-key": "s3cret"}
    assert (await connect(api_keys="a:s3cret").post("/rerank", json=BODY, headers=headers)).status_code == 200


def rewrite(file: Path, text: str) -> None:
    """Write so that the stamp changes even within the file system's resolution."""
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_SECONDS_BETWEEN_LOOKS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nalice:old\n\n")
    ring = KeyRing(Settings(api_keys_file=str(file)))
    assert ring.find(b"old") is not None
    rewrite(file, "alice:new\n")
    assert ring.find(b"old") is None
    assert ring.find(b"new") is not None


@pytest.mark.usefixtures("impatient")
def test_an_unreadable_key_file_leaves_the_last_keys_in_force(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alice:old\n")
    ring = KeyRing(Settings(api_keys_file=str(file)))
    rewrite(file, "no colon here\n")
    assert ring.find(b"old") is not None
    file.unlink()
    assert ring.find(b"old") is not None


@pytest.mark.usefixtures("impatient")
async def test_an_emptied_key_file_closes_the_server(tmp_path: Path, connect: Connect) -> None:
    file = tmp_path / "keys"
    file.write_text("alice:old\n")
    client = connect(api_keys_file=str(file))
    rewrite(file, "")
    for headers in ({}, {"x-api-key": "old"}):
        assert (await client.post("/rerank", json=BODY, headers=headers)).status_code == 401


def test_a_missing_key_file_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="api_keys_file"):
        KeyRing(Settings(api_keys_file=str(tmp_path / "none")))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_a_public_address_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="api_keys"):
        check_address(Settings(host=host))
    with pytest.raises(ConfigurationError):
        check_address(Settings(host=host, admin_keys="root:secret"))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(host="127.0.0.1"),
        Settings(host="::1"),
        Settings(host="localhost"),
        Settings(host="0.0.0.0", api_keys="a:b"),
        Settings(host="0.0.0.0", api_keys_file="keys"),
        Settings(host="0.0.0.0", insecure=True),
    ],
)
def test_a_private_address_or_a_key_or_a_clear_wish_is_enough(settings: Settings) -> None:
    check_address(settings)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "tenant"),
    [
        ("", "9.9.9.9", "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.1, 10.0.0.1", "1.1.1.1, 9.9.9.9, 10.0.0.1", "9.9.9.9"),
        ("127.0.0.1", "not an address", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("10.0.0.1", "9.9.9.9", "127.0.0.1"),
    ],
)
async def test_only_a_trusted_proxy_may_say_who_calls(
    connect: Connect, service: StandInService, trusted: str, forwarded: str, tenant: str
) -> None:
    client = connect(trusted_proxies=trusted)
    await client.post("/rerank", json=BODY, headers={"X-Forwarded-For": forwarded})
    assert service.calls[0][1].tenant == tenant


@pytest.mark.promise("P1")
def test_a_key_file_that_could_not_be_read_is_tried_again_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerankd.http.auth._SECONDS_BETWEEN_LOOKS", 0.0)
    file = tmp_path / "keys"
    file.write_text("a:old-secret\n")
    ring = KeyRing(Settings(api_keys_file=str(file)))
    file.write_text("a:new-secret\n")

    def fail(*_: object) -> str:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr("rerankd.http.auth.read_text", fail)
        for _ in range(3):
            assert ring.find(b"old-secret") is not None
    assert ring.find(b"old-secret") is None
    assert ring.find(b"new-secret") is not None


@pytest.mark.promise("P1")
@pytest.mark.parametrize("broken", [b"no colon\n", b"\xff\xfe", b"a:" + b"x" * 2_000_000])
def test_a_key_file_that_is_broken_for_a_while_keeps_the_keys_and_then_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    monkeypatch.setattr("rerankd.http.auth._SECONDS_BETWEEN_LOOKS", 0.0)
    file = tmp_path / "keys"
    file.write_text("a:old-secret\n")
    ring = KeyRing(Settings(api_keys_file=str(file)))
    file.write_bytes(broken)
    assert ring.find(b"old-secret") is not None
    file.write_text("a:new-secret\n")
    assert ring.find(b"old-secret") is None
    assert ring.find(b"new-secret") is not None


@pytest.mark.promise("P1")
@pytest.mark.usefixtures("impatient")
def test_a_key_file_that_is_broken_is_logged_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("a:old-secret\n")
    ring = KeyRing(Settings(api_keys_file=str(file)))
    monkeypatch.setattr(auth, "_log", structlog.get_logger())
    with structlog.testing.capture_logs() as lines:
        for content in (b"half-a-secret\n", b"\xffhalf-a-secret", None):
            rewrite(file, "x")
            file.unlink() if content is None else file.write_bytes(content)
            assert ring.find(b"old-secret") is not None
    assert {line["log_level"] for line in lines} == {"error"}
    assert len(lines) >= 3
    assert "secret" not in str(lines)


@pytest.mark.promise("P1")
def test_two_changes_within_the_resolution_of_the_clock_are_both_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerankd.http.auth._SECONDS_BETWEEN_LOOKS", 0.0)
    file = tmp_path / "keys"
    file.write_text("a:first-one\n")
    now = time.time_ns()
    monkeypatch.setattr("rerankd.http.auth._stamp", lambda _: (now, now, 0, 0))
    ring = KeyRing(Settings(api_keys_file=str(file)))
    file.write_text("a:other-one\n")
    assert ring.find(b"other-one") is not None
    assert ring.find(b"first-one") is None


@pytest.mark.promise("U3")
async def test_a_client_is_told_without_a_key_whether_it_needs_one(connect: Connect) -> None:
    for settings, needed in (({"api_keys": "a:secret"}, True), ({}, False)):
        for path in ("/v1/cluster/auth", "/xinference/v1/cluster/auth"):
            answer = await connect(**settings).get(path)
            assert (answer.status_code, answer.json()) == (200, {"auth": needed})
