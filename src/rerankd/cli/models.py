"""``rerankd models``: what can be done with a checkpoint beside serving it."""

from __future__ import annotations

from pathlib import Path

import click

from rerankd.engine.base import DType


@click.group()
def models() -> None:
    """Work on checkpoints."""


@models.command()
@click.argument("model")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--dtype", type=click.Choice(("float32", "int8")), default="float32", show_default=True)
def convert(model: str, out: Path, dtype: DType) -> None:
    """Write the encoder MODEL, a folder or hub name, to the folder OUT as an ONNX graph.

    Its scores are compared with those of transformers, which has to be installed.
    """
    # Imported here: the other commands start faster without it.
    from rerankd.engine.onnx.convert import convert as convert_checkpoint
    from rerankd.model_hub import resolve_checkpoint

    difference = convert_checkpoint(resolve_checkpoint(model), out, dtype)
    click.echo(f"{out}/onnx: the largest difference to transformers is {difference:.1e}")
