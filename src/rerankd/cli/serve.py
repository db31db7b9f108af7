"""``rerankd serve``: the HTTP server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options


@click.command(cls=SettingsCommand)
@click.option("--ray", "on_ray", is_flag=True, help="Serve on a Ray cluster: RAY_ADDRESS, else one of this machine.")
@settings_options()
def serve(config: Path | None, on_ray: bool, **flags: Any) -> None:
    """Serve a reranker over HTTP.

    On a terminal it says, once it is ready, what it serves and how to ask it; elsewhere it logs JSON.

    More settings, for special cases, are in docs/reference/settings.md.
    """
    # Imported here: the other commands start faster without the web side.
    import structlog

    from rerankd.cli.greeting import greeting
    from rerankd.http.server import Ready, run
    from rerankd.observe.logs import configure_logs

    unused: list[str] = []
    settings = settings_from(config, flags, warn=unused.append)
    configure_logs(settings.log_format, settings.log_level)
    for message in unused:
        structlog.get_logger(__name__).warning("unused variable", reason=message)
    if on_ray:
        from rerankd.cluster.command import run as run_on_ray

        raise SystemExit(run_on_ray(settings))

    def greet(ready: Ready) -> None:
        click.echo(f"\n{greeting(ready, settings)}", err=True)

    is_for_people = sys.stderr.isatty() and settings.log_format != "json"
    raise SystemExit(run(settings, greet if is_for_people else None))
