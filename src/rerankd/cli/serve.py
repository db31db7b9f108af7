"""``rerankd serve``: the HTTP server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options


@click.command(cls=SettingsCommand)
@settings_options()
def serve(config: Path | None, **flags: Any) -> None:
    """Serve a reranker over HTTP."""
    # Imported here: the other commands start faster without the web side.
    from rerankd.http.server import run

    raise SystemExit(run(settings_from(config, flags)))
