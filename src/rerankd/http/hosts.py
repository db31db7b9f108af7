"""Which ``Host`` a request may name.

A page in a browser on this machine can be made to call a local server under a name of its own (DNS rebinding): for
the browser that name is the page's own origin. The name stays in ``Host``, and that is what gives it away.
"""

from __future__ import annotations

import functools
import ipaddress

from rerankd.errors import Forbidden
from rerankd.settings import Settings


@functools.lru_cache(64)
def is_loopback(host: str) -> bool:
    """Whether an address or a name stands for this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class AllowedHosts:
    """Refuses requests under a foreign name.

    The names are those of ``allowed_hosts``: ``example.org``, ``*.example.org``, or ``*`` for any. Where none are
    given, a server that listens on a loopback address and asks for no key takes the names of this machine alone; a
    key protects as well, for no page knows it, and other addresses may be reached under names that we cannot know.

    Args:
        needs_key: whether every request has to bring a key.
    """

    def __init__(self, settings: Settings, needs_key: bool) -> None:
        self._names = frozenset(name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip())
        self._only_loopback = not self._names and not needs_key and is_loopback(settings.host)
        self._are_known = functools.lru_cache(64)(self._is_allowed)

    def check(self, given: bytes | None) -> None:
        """Raises Forbidden for a value of ``Host`` that is none of the names."""
        if given is not None and not self._are_known(given):
            raise Forbidden("this server is not reached under the name in the Host header", setting="allowed_hosts")

    def _is_allowed(self, given: bytes) -> bool:
        host = _without_port(given.decode("latin-1").lower())
        if self._only_loopback:
            return is_loopback(host)
        if not self._names or "*" in self._names or host in self._names:
            return True
        return any(host.endswith(name[1:]) for name in self._names if name.startswith("*."))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
