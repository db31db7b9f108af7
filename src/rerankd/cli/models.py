"""``rerankd models``: the checkpoints on this machine: list, download, verify, convert."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rerankd.cli.table import table
from rerankd.engine.base import DType
from rerankd.errors import ConfigurationError
from rerankd.integrity import FileCheck, check_files
from rerankd.printable import printable

_DAMAGED = 1
"""Exit status where a file is not what it should be."""

_model = click.argument("model")
_revision = click.option(
    "--revision", default="", help="A commit, tag or branch of a hub name; without it the newest."
)


@click.group()
def models() -> None:
    """Work on checkpoints. MODEL is `tiny`, a folder, or a hub name such as Qwen/Qwen3-Reranker-0.6B."""


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_models(as_json: bool) -> None:
    """Print the models on this machine: the embedded one, and those of the hub's cache."""
    rows = list(_on_this_machine())
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    cells = [(row["model"], row["revision"][:12], _size(row["bytes"]), row["folder"]) for row in rows]
    click.echo(table(("model", "revision", "size", "folder"), cells, left=(0, 1)))


def _on_this_machine() -> Iterator[dict[str, Any]]:
    # Imported here: it costs 0.3 s that the other commands need not pay.
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from rerankd.model_hub import EMBEDDED, local_checkpoint

    embedded = local_checkpoint(EMBEDDED)
    if embedded:
        size = sum(file.stat().st_size for file in embedded.iterdir() if file.is_file())
        yield {"model": EMBEDDED, "revision": "", "bytes": size, "folder": str(embedded)}
    try:
        repositories = sorted(scan_cache_dir().repos, key=lambda one: str(one.repo_id))
    except CacheNotFound:
        return
    for repository in repositories:
        for revision in repository.revisions:
            if repository.repo_type == "model" and (revision.snapshot_path / "config.json").exists():
                yield {
                    "model": repository.repo_id,
                    "revision": revision.commit_hash,
                    "bytes": revision.size_on_disk,
                    "folder": str(revision.snapshot_path),
                }


@models.command()
@_model
@_revision
def download(model: str, revision: str) -> None:
    """Fetch MODEL into the hub's cache, check every file, and print its folder.

    A download that was interrupted goes on where it stopped; a file that is damaged is fetched again. HF_ENDPOINT
    names a mirror, HF_TOKEN a login, HF_HOME another place for the cache.
    """
    from rerankd.model_hub import resolve_checkpoint

    folder = resolve_checkpoint(model, revision)
    damaged = [check for check in check_files(folder) if check.problem]
    if damaged:
        for check in damaged:
            click.echo(printable(f"{check.file.name}: {check.problem}; it is fetched again"), err=True)
            if check.file.is_symlink():
                check.file.resolve().unlink(missing_ok=True)
                check.file.unlink()
        folder = resolve_checkpoint(model, revision)
        _refuse_damage(check_files(folder))
    click.echo(folder)


@models.command()
@_model
@_revision
def verify(model: str, revision: str) -> None:
    """Read every file of MODEL and compare it with its hash, or with its own header. Asks no network.

    Files of the hub's cache carry their hashes. Exit status 1: a file is damaged or missing.
    """
    from rerankd.checkpoint import Checkpoint

    folder = _local(model, revision)
    checks = check_files(folder)
    rows = [(check.file.name, _size(check.bytes), check.how, check.problem or "good") for check in checks]
    click.echo(table(("file", "size", "compared", "result"), rows, left=(0, 2)))
    _refuse_damage(checks)
    # The files are whole; do they belong together?
    found = Checkpoint.open(str(folder))
    click.echo(f"{len(checks)} files are whole; template {found.template.name}, fingerprint {found.fingerprint}")


@models.command()
@_model
@_revision
def path(model: str, revision: str) -> None:
    """Print the folder of MODEL on this machine. Asks no network; exit status 2: it is not here."""
    click.echo(_local(model, revision))


@models.command()
@_model
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


def _local(model: str, revision: str) -> Path:
    """A model's folder, without the network.

    Raises:
        ConfigurationError: it is not on this machine.
    """
    # The hub's library reads this when it is first imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from rerankd.model_hub import resolve_checkpoint

    try:
        return resolve_checkpoint(model, revision)
    except ConfigurationError as error:
        if "hub" not in error.message:
            raise
        raise ConfigurationError(f"{model!r} is not on this machine; `rerankd models download` fetches it") from None


def _refuse_damage(checks: list[FileCheck]) -> None:
    damaged = [check for check in checks if check.problem]
    if damaged:
        click.echo(
            printable(
                f"rerankd: {', '.join(check.file.name for check in damaged)}: damaged or missing; "
                "`rerankd models download` fetches files of the hub again, others have to be copied again"
            ),
            err=True,
        )
        raise SystemExit(_DAMAGED)


def _size(count: int) -> str:
    """Bytes for a reader: ``1.2 GB``."""
    power = 0
    while power < 4 and count >= 1000 ** (power + 1):
        power += 1
    unit = ("B", "kB", "MB", "GB", "TB")[power]
    return f"{count / 1000**power:.1f} {unit}" if power else f"{count} B"
