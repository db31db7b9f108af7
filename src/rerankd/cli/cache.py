"""``rerankd cache``: what the score cache holds, and how to empty it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rerankd.cache.open import REDIS_SCHEMES
from rerankd.cli.table import table
from rerankd.errors import RerankdError

if TYPE_CHECKING:
    from rerankd.cache.redis import RedisCache

_SECONDS = 60.0
"""For a Redis of many millions of entries."""


@click.group()
def cache() -> None:
    """Look at the score cache, or empty it.

    TARGET is the address of a running server, whose admin key is needed, or the redis:// address of a shared cache.
    """


_target = click.argument("target")
_admin_key = click.option(
    "--admin-key", envvar="RERANKD_ADMIN_KEY", help="Admin key of the server. (RERANKD_ADMIN_KEY)"
)


@cache.command()
@_target
@_admin_key
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def stats(target: str, admin_key: str | None, as_json: bool) -> None:
    """Print how many scores TARGET holds, and how often they answered."""
    found = (
        _redis_stats(target) if target.startswith(REDIS_SCHEMES) else _call("GET", target, "/admin/cache", admin_key)
    )
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(table((), [(name.replace("_", " "), _shown(value)) for name, value in found.items()], left=(0,)))


@cache.command()
@_target
@_admin_key
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(target: str, admin_key: str | None, yes: bool) -> None:
    """Forget every score that TARGET holds; the next requests are computed again."""
    if not yes:
        click.confirm("Forget all cached scores?", abort=True, err=True)
    if target.startswith(REDIS_SCHEMES):
        click.echo(f"{asyncio.run(_clear_redis(target))} scores forgotten")
    else:
        _call("POST", target, "/admin/cache/flush", admin_key)
        click.echo("the cache is empty")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _call(method: str, target: str, path: str, admin_key: str | None) -> Mapping[str, Any]:
    """One call of the administration.

    Raises:
        RerankdError: there is no such server, or it refuses the key.
    """
    # Imported here: the other commands start faster without it.
    import httpx

    from rerankd.client._core import base_address, default_headers

    try:
        address, headers = base_address(target), default_headers(admin_key)
        answer = httpx.request(method, address + path, headers=headers, timeout=_SECONDS)
        body = answer.json()
    except httpx.HTTPError as error:
        raise RerankdError(f"the server at {target} does not answer: {type(error).__name__}") from None
    except ValueError as error:
        raise RerankdError(f"{target}: {error}") from None
    if not answer.is_success or not isinstance(body, dict):
        message = body.get("message") if isinstance(body, dict) else ""
        raise RerankdError(f"the server at {target} answered {answer.status_code}: {message} (--admin-key)")
    return body


def _redis_stats(url: str) -> Mapping[str, Any]:
    async def ask() -> Mapping[str, Any]:
        store = await _redis(url)
        try:
            entries = await store.count()
        finally:
            await store.close()
        return {"cache": "redis", "entries": entries}

    return asyncio.run(ask())


async def _clear_redis(url: str) -> int:
    store = await _redis(url)
    try:
        return await store.flush()
    finally:
        await store.close()


async def _redis(url: str) -> RedisCache:
    from rerankd.cache.open import open_redis_store
    from rerankd.observe.metrics import Metrics

    return await open_redis_store(url, Metrics(), ttl=1.0, budget=_SECONDS)
