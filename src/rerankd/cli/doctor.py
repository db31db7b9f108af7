"""``rerankd doctor``: what stands in the way of a good start, or of right scores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options
from rerankd.printable import printable

if TYPE_CHECKING:
    from rerankd.cli.checks.check import Check

_SETTINGS = (
    "model", "revision", "template", "engine", "dtype", "device", "host", "port", "cache", "rate_limit_store"
)  # fmt: skip
_BAD = 1
"""Exit status where something is bad; warnings leave it 0."""


@click.command(cls=SettingsCommand)
@click.option("--url", help="Check the running server at this address instead of this machine.")
@click.option(
    "--path", default="/rerank", show_default=True, help="Route of that server, in Cohere's or Jina's shape."
)
@click.option("--served-name", help="Model that is asked of that server; without it its first.")
@click.option("--api-key", envvar="RERANKD_API_KEY", help="API key of that server. (RERANKD_API_KEY)")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@settings_options(_SETTINGS)
def doctor(
    url: str | None,
    path: str,
    served_name: str | None,
    api_key: str | None,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Check this machine for a start with these settings, or with --url the scores of a running server.

    Of this machine: the processor and the kernels in use, GPUs, the model's files, the memory that it needs and that
    is there, the port, Redis. Of a server of any make: whether it answers, and whether template, calibration,
    precision, determinism and truncation are right, by pairs whose order is known. Exit status 1: something is bad.
    """
    if url is not None:
        from rerankd.cli.checks.asking import Server
        from rerankd.cli.checks.served import check_server

        with Server(url, path, api_key, served_name) as server:
            _report(check_server(server), as_json)
    else:
        from rerankd.cli.checks.machine import check_machine

        _report(check_machine(settings_from(config, flags)), as_json)


def _report(checks: Iterable[Check], as_json: bool) -> None:
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            click.echo(printable(f"{check.status:<8} {check.name:<12} {check.says}"))
            if check.advice and check.status != "good":
                click.echo(printable(f"{'':<22}{check.advice}"))
    is_bad = any(check.status == "bad" for check in found)
    if as_json:
        rows = [
            {"name": one.name, "status": one.status, "says": one.says, "cause": one.cause, "advice": one.advice}
            for one in found
        ]
        click.echo(json.dumps({"healthy": not is_bad, "checks": rows}, ensure_ascii=False, indent=2))
    if is_bad:
        raise SystemExit(_BAD)
