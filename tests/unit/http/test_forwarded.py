"""rerankd.http.forwarded: who calls behind proxies, so that a rate limit cannot be passed by a header."""

from __future__ import annotations

import pytest

from rerankd.errors import ConfigurationError
from rerankd.http.forwarded import TrustedProxies, caller_address, parse_address

pytestmark = pytest.mark.promise("P2")

TRUSTED = TrustedProxies(["10.0.0.0/8", "192.168.1.1", "fd00::/8"])


def caller(peer: str, *lines: str) -> str:
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]
    return caller_address({"client": (peer, 1), "headers": headers}, TRUSTED)


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        ("1.2.3.4", (), "1.2.3.4"),
        ("1.2.3.4", ("5.6.7.8",), "1.2.3.4"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("5.6.7.8",), "5.6.7.8"),
        ("10.0.0.1", ("9.9.9.9, 5.6.7.8",), "5.6.7.8"),
        ("10.0.0.1", ("9.9.9.9", "5.6.7.8"), "5.6.7.8"),
        ("10.0.0.1", ("9.9.9.9", "5.6.7.8, 10.0.0.2"), "5.6.7.8"),
        ("10.0.0.1", ("5.6.7.8, 192.168.1.1", "10.0.0.2"), "5.6.7.8"),
        ("10.0.0.1", ("5.6.7.8:4711",), "5.6.7.8"),
        ("10.0.0.1", ("[2001:db8:1:2::9]:4711",), "2001:db8:1:2::/64"),
        ("10.0.0.1", ("2001:db8:1:2:ffff::1",), "2001:db8:1:2::/64"),
        ("10.0.0.1", ('"[2001:db8:1:2::9]"',), "2001:db8:1:2::/64"),
        ("10.0.0.1", ("::ffff:5.6.7.8",), "5.6.7.8"),
        ("::ffff:10.0.0.1", ("5.6.7.8",), "5.6.7.8"),
        ("fd00::1", ("5.6.7.8",), "5.6.7.8"),
        ("2001:db8::1%eth0", (), "2001:db8::/64"),
        ("10.0.0.1", ("5.6.7.8, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("5.6.7.8, unknown, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("testclient", ("5.6.7.8",), "testclient"),
    ],
)
def test_the_caller_is_the_first_address_from_the_right_that_is_no_trusted_proxy(
    peer: str, lines: tuple[str, ...], address: str
) -> None:
    assert caller(peer, *lines) == address


def test_what_a_caller_writes_before_the_proxy_does_changes_nothing() -> None:
    forged = ["7.7.7.7", "a" * 5000, ",".join(["10.0.0.9"] * 1000), "5.6.7.8, 1.1.1.1"]
    assert {caller("10.0.0.1", line, "5.6.7.8") for line in forged} == {"5.6.7.8"}
    assert {caller("10.0.0.1", f"{line}, 5.6.7.8") for line in forged} == {"5.6.7.8"}


def test_all_addresses_of_one_network_are_one_caller() -> None:
    addresses = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::3", "2001:db8:1:2:a::"]
    assert {caller(address) for address in addresses} == {"2001:db8:1:2::/64"}
    assert caller("2001:db8:1:3::1") == "2001:db8:1:3::/64"


@pytest.mark.parametrize("text", ["", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", ":80", "a:b:c", "256.1.1.1"])
def test_nonsense_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("row", ["proxy.local", "10.0.0.0/33", "10.0.0", "::/200"])
def test_a_trusted_proxy_that_is_no_address_is_refused_at_start(row: str) -> None:
    with pytest.raises(ConfigurationError, match="'trusted_proxies'"):
        TrustedProxies([row])
