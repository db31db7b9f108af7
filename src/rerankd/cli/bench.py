"""``rerankd bench``: how a running server holds under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from rerankd.cli.table import table
from rerankd.errors import InvalidRequest

if TYPE_CHECKING:
    from rerankd.cli.load import Measured

_LATE_SECONDS = 0.05
"""A generator that is later than this does not measure the server alone."""


@click.command()
@click.argument("url")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Requests a second, sent by the clock whether answers came or not.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long requests are sent.",
)
@click.option(
    "--documents", type=click.IntRange(min=1), default=10, show_default=True, help="Documents of a request."
)
@click.option("--words", type=click.IntRange(min=1), default=64, show_default=True, help="Words of a document.")
@click.option(
    "--repeated",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of requests that repeat an earlier one, for the score cache to answer.",
)
@click.option("--model", help="A served name; without it the server's first.")
@click.option("--instruction", help="What counts as relevant, in a sentence.")
@click.option("--path", default="/rerank", show_default=True, help="Route of the server.")
@click.option("--api-key", envvar="RERANKD_API_KEY", help="API key of the server. (RERANKD_API_KEY)")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds after which a request counts as unanswered.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Texts of another seed are other texts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench(url: str, path: str, api_key: str | None, as_json: bool, **load: Any) -> None:
    """Send requests of random words to the server at URL and print how long the answers took.

    The time of a request counts from the moment it was due, so that a server which falls behind cannot hide it.
    The exit code is 1 where a request was not answered with 200.
    """  # fmt: skip
    from rerankd.cli.load import Load, run_load
    from rerankd.client._core import base_address

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        address = base_address(url)
    except ValueError as error:
        raise InvalidRequest(f"URL: {error}") from None
    with _display(not as_json) as show:
        measured = asyncio.run(run_load(Load(url=address + path, **load), headers, show))
    if as_json:
        click.echo(json.dumps(_figures(measured), indent=2))
    else:
        _print(measured)
    if measured.failed:
        raise SystemExit(1)


@contextlib.contextmanager
def _display(wanted: bool) -> Iterator[Callable[[Measured], None]]:
    """A line on a terminal that moves while the load runs; in a pipe, nothing."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda measured: None
        return
    yield lambda measured: click.echo(f"\r{measured.sent} sent, {measured.answered} answered", err=True, nl=False)
    click.echo(err=True)


def _print(measured: Measured) -> None:
    load = measured.load
    click.echo(f"{load.rate:g} requests a second of {load.documents} documents of {load.words} words")
    click.echo(table((), list(_rows(measured).items()), left=(0,)))
    if measured.late > _LATE_SECONDS:
        click.echo(
            f"requests left up to {measured.late * 1000:.0f} ms late: this machine could not send "
            f"{load.rate:g} a second, so the times are too long; lower --rate or use several machines"
        )


def _rows(measured: Measured) -> dict[str, str]:
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(measured.statuses.items()))
    return {
        "sent, waiting for an answer": f"{measured.sent}, {measured.sent - measured.answered}",
        "answers": statuses or "none yet",
        "answered with 200, a second": f"{measured.rate:.1f}",
        "pairs a second": f"{measured.rate * measured.load.documents:.0f}",
        **{f"p{share * 100:g}": _milliseconds(measured.percentile(share)) for share in (0.5, 0.95, 0.99)},
        "longest": _milliseconds(measured.percentile(1.0)),
    }


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def _figures(measured: Measured) -> dict[str, Any]:
    load = measured.load
    return {
        "rate": load.rate,
        "documents": load.documents,
        "words": load.words,
        "sent": measured.sent,
        "statuses": dict(measured.statuses),
        "requests_per_second": measured.rate,
        "pairs_per_second": measured.rate * load.documents,
        "latency_seconds": {f"p{share * 100:g}": measured.percentile(share) for share in (0.5, 0.95, 0.99, 1.0)},
        "generator_late_seconds": measured.late,
    }
