"""The ``rerankd`` command."""

from __future__ import annotations

import importlib

import click

import rerankd
from rerankd.errors import RerankdError
from rerankd.printable import printable

_COMMANDS = {
    "serve": "serve",
    "rank": "rank",
    "evaluate": "evaluate",
    "calibrate": "calibrate",
    "suggest-threshold": "calibrate",
    "bench": "bench",
    "experiments": "experiments",
    "doctor": "doctor",
    "models": "models",
    "cache": "cache",
    "completion": "completion",
}
"""Each command with the module that has it, in the order of the help."""


class _Group(click.Group):
    """Imports a command when it is asked for, and shows an error that we raised on purpose as one line, never as a
    traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"rerankd.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RerankdError as error:
            # It may repeat a name from somebody's file.
            click.echo(f"rerankd: {printable(error.message)}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(rerankd.__version__, prog_name="rerankd")
def cli() -> None:
    """Order documents by how well they answer a query, with the Qwen3-Reranker models."""
