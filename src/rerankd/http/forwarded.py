"""Who calls: the connection's address, or the one that trusted proxies say.

``X-Forwarded-For`` may come in several lines and grows to the right: each proxy appends the address it was called
from. So it is read from the right, as far as the addresses are those of trusted proxies; the first other one is the
caller. What stands left of it was written by the caller and is not looked at.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from starlette.types import Scope

from rerankd.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOPS = 32


class TrustedProxies:
    """Addresses and networks whose word is taken.

    Args:
        rows: each an address, or a network such as ``10.0.0.0/8``.

    Raises:
        ConfigurationError: a row is neither.
    """

    def __init__(self, rows: Iterable[str]) -> None:
        self._networks = []
        for row in rows:
            try:
                self._networks.append(ipaddress.ip_network(row, strict=False))
            except ValueError:
                raise ConfigurationError(
                    f"the setting 'trusted_proxies' has {row[:60]!r}, which is neither an address nor a network"
                ) from None

        self.peer = functools.lru_cache(1024)(self._peer)

    def _peer(self, peer: str) -> tuple[str, Address | None]:
        """A connection's other end, which comes back with every request of it: as it is shown, and its address if it
        is a proxy's."""
        address = parse_address(peer)
        if address is None:
            return peer, None
        return _shown(address), address if address in self else None

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def caller_address(scope: Scope, trusted: TrustedProxies) -> str:
    """The caller as rates and fairness know it: an IPv4 address, or the /64 of an IPv6 one.

    Whoever has one IPv6 address has all of its network.
    """
    client = scope.get("client")
    shown, address = trusted.peer(client[0] if client else "")
    if address is None:
        return shown
    for hop in _hops(scope):
        found = parse_address(hop)
        if found is None:
            # "unknown", or nonsense: the proxy that wrote it is the last we know of.
            break
        address = found
        if address not in trusted:
            break
    return _shown(address)


def parse_address(text: str) -> Address | None:
    """``1.2.3.4``, ``1.2.3.4:80``, ``2001:db8::1``, ``[2001:db8::1]:80``; None for anything else."""
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _hops(scope: Scope) -> list[str]:
    """The entries of all lines, from the nearest to the farthest."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(lines).split(",")[: -_MAX_HOPS - 1 : -1] if lines else []


def _shown(address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
