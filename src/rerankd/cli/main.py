"""The ``rerankd`` command."""

from __future__ import annotations

import click

import rerankd
from rerankd.cli.bench import bench
from rerankd.cli.cache import cache
from rerankd.cli.calibrate import calibrate, suggest_threshold
from rerankd.cli.completion import completion
from rerankd.cli.doctor import doctor
from rerankd.cli.evaluate import evaluate
from rerankd.cli.experiments import experiments
from rerankd.cli.models import models
from rerankd.cli.rank import rank
from rerankd.cli.serve import serve
from rerankd.errors import RerankdError
from rerankd.printable import printable


class _Group(click.Group):
    """Shows an error that we raised on purpose as one line, never as a traceback."""

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


cli.add_command(serve)
cli.add_command(rank)
cli.add_command(evaluate)
cli.add_command(calibrate)
cli.add_command(suggest_threshold)
cli.add_command(bench)
cli.add_command(experiments)
cli.add_command(doctor)
cli.add_command(models)
cli.add_command(cache)
cli.add_command(completion)
