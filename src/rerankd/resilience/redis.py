"""A client of Redis that gives up quickly, and addresses that never show a password."""

from __future__ import annotations

import re

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rerankd.errors import ConfigurationError

_CONNECTIONS = 32
_START_SECONDS = 2.0
_SHOWN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)?(:[0-9]{1,5})?(/[0-9]{0,5})?|/[A-Za-z0-9._/-]+")
"""Host, port and database, or the path of a socket."""


def connect(url: str, timeout: float) -> aioredis.Redis:
    """A client that gives up after ``timeout`` seconds and never retries; it connects at the first command.

    With its own defaults a dead Redis costs 4 s a call, and a hanging one more than 20 s.

    Raises:
        ConfigurationError: the address is not one of Redis.
    """
    _refuse_ambiguous(url)
    try:
        pool = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (ValueError, TypeError):
        # The library's own message may quote the address.
        raise ConfigurationError(f"the Redis address {without_secret(url)} cannot be read") from None
    return aioredis.Redis.from_pool(pool)


async def check_connection(url: str) -> None:
    """Prove that a Redis answers at the address and lets us in.

    Raises:
        ConfigurationError: it does not; the message has the cause and never the password.
    """
    client = connect(url, _START_SECONDS)
    try:
        await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        cause = str(error) or type(error).__name__
        raise ConfigurationError(f"the Redis at {without_secret(url)} cannot be used: {cause}") from None
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"the Redis at {without_secret(url)} cannot be used") from None
    finally:
        await client.aclose()


def _refuse_ambiguous(url: str) -> None:
    """A password with ``/``, ``#``, ``?`` or ``@`` as they are would be taken for host, path or database."""
    rest = url.partition("://")[2]
    secret, at, _ = rest.rpartition("@")
    if at and any(letter in secret for letter in "/#?@"):
        raise ConfigurationError(
            f"the Redis address {without_secret(url)} has one of / # ? @ in its user or password: write them as "
            "%2F %23 %3F %40"
        )


def without_secret(url: str) -> str:
    """An address as it may be shown: scheme, host, port and database; what may be part of a password is left out."""
    scheme, _, rest = url.partition("://")
    secret, _, behind = rest.rpartition("@")
    place = re.split(r"[?#]", behind)[0]
    # An @ behind a ? or # may belong to a password in the query.
    is_clear = _SHOWN.fullmatch(place) and not any(letter in secret for letter in "/#?@")
    shown = place if is_clear else "…"
    return f"{scheme if scheme in ('redis', 'rediss', 'unix') else '…'}://{shown}"
