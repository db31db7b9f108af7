"""Runs the calls of one environment against the servers and prints one JSON line a call.

Only the standard library is imported here: the file runs inside every environment.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

QUERY = "What is the capital of France?"
DOCUMENTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "Bananas are yellow."]
MODEL = "tiny"
RIGHT_KEY = "the-right-key"

Rank = Callable[[str, str, str], Sequence[int]]
"""(base URL, key, query) -> indices of DOCUMENTS, best first."""


@dataclass(frozen=True)
class ClientCall:
    """One way to rerank with one package."""

    package: str
    name: str
    rank: Rank
    version: str | None


CALLS: list[ClientCall] = []


def call(package: str, name: str, version: str | None = None) -> Callable[[Rank], Rank]:
    """Register a function that ranks DOCUMENTS through a package; ``version`` of what is no package here."""

    def register(rank: Rank) -> Rank:
        CALLS.append(ClientCall(package, name, rank, version))
        return rank

    return register


def main() -> None:
    """Ranks on the open server and with the right key on the locked one, then meets a wrong key, an empty query and
    a full server."""
    servers: dict[str, str] = json.loads(sys.argv[1])
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    logging.disable(logging.CRITICAL)
    for client in CALLS:
        if wanted in f"{client.package} {client.name}":
            print(json.dumps(report(client, servers)), flush=True)
    # Some clients leave threads behind that would keep the process.
    os._exit(0)


def report(client: ClientCall, servers: dict[str, str]) -> dict[str, Any]:
    order, paths = attempt(client, servers["open"], "any-key", QUERY)
    return {
        "package": client.package,
        "version": client.version or importlib.metadata.version(client.package),
        "call": client.name,
        "order": order,
        "paths": paths,
        "keyed": attempt(client, servers["locked"], RIGHT_KEY, QUERY)[0],
        "401": attempt(client, servers["locked"], "wrong-key", QUERY)[0],
        "400": attempt(client, servers["open"], "any-key", " ")[0],
        "429": attempt(client, servers["busy"], "any-key", QUERY)[0],
    }


def attempt(client: ClientCall, url: str, key: str, query: str) -> tuple[Any, list[str]]:
    """The order, or the error as its user would read it; and the paths that the client asked for."""
    talk(url, "forget")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            outcome: Any = [int(index) for index in client.rank(url, key, query)]
    except BaseException as error:
        outcome = f"{type(error).__module__}.{type(error).__qualname__}: {error}"[:600]
    return outcome, talk(url, "paths")


def talk(url: str, word: str) -> list[str]:
    """Tells the proxy in front of a server to forget the paths it saw, or asks for them."""
    with urllib.request.urlopen(f"{url}/-/{word}", timeout=10) as answer:
        paths: list[str] = json.load(answer)
    return paths
