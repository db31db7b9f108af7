"""``rerankd rank``: order the lines of a file by how well they answer a query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options
from rerankd.cli.table import table
from rerankd.errors import InvalidRequest, TooLarge
from rerankd.printable import printable_json
from rerankd.types import DocumentScore, RerankResult

_MODEL_SETTINGS = (
    "model", "revision", "template", "engine", "dtype", "device", "threads", "max_pair_tokens",
    "long_documents", "chunk_tokens", "chunk_aggregation", "chunk_top_k"
)  # fmt: skip
_CLUSTER_SETTINGS = ("ray_min_replicas", "ray_max_replicas", "ray_replica_cpus", "ray_replica_gpus")


@click.command(cls=SettingsCommand)
@click.argument("query", required=False)
@click.option(
    "--documents", type=click.File(encoding="utf-8"), help="File with one document a line, or - for standard input."
)
@click.option(
    "--ray",
    "on_ray",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="INPUT OUTPUT",
    help="Score the pairs of a Parquet file or folder on a Ray cluster, into a folder; the same command goes on.",
)
@click.option("--query-field", default="query", show_default=True, help="Column with the query.")
@click.option("--document-field", default="document", show_default=True, help="Column with the document.")
@click.option("--part-rows", type=click.IntRange(min=1), default=10_000, help="Rows of an output file of --ray.")
@click.option("--fresh", is_flag=True, help="Write over the output of another run of --ray.")
@click.option("--instruction", help="What counts as relevant, in a sentence or by name (@qa).")
@click.option("--top-n", type=click.IntRange(min=1), help="Show only the best N documents.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@settings_options((*_MODEL_SETTINGS, "max_request_characters", "instructions_folder", *_CLUSTER_SETTINGS))
def rank(
    query: str | None,
    documents: IO[str] | None,
    on_ray: tuple[Path, Path] | None,
    query_field: str,
    document_field: str,
    part_rows: int,
    fresh: bool,
    instruction: str | None,
    top_n: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print the documents ranked by how well they answer QUERY.

    The settings are those of the server: from flags, RERANKD_ variables and the settings file; --model takes a served
    name of theirs, too.
    """
    settings = settings_from(flags.pop("config"), flags)
    if on_ray is not None:
        from rerankd.cli.bulk import rank_on_ray

        rank_on_ray(
            *on_ray,
            settings,
            query_field=query_field,
            document_field=document_field,
            instruction=instruction,
            fresh=fresh,
            part_rows=part_rows,
        )
        return
    if query is None or documents is None:
        raise click.UsageError("give a QUERY and --documents, or --ray INPUT OUTPUT")
    if not query.strip():
        raise InvalidRequest("the query must not be empty or blank")
    texts = _lines(documents, settings.max_request_characters)
    if not texts:
        raise InvalidRequest("there is no document to rank: every line of the input is blank")
    # Imported here: torch takes seconds, and a wrong file name should not have to wait for it.
    from rerankd.local_models import instruction_of, load_named
    from rerankd.service.instructions import Instructions

    asked = instruction or instruction_of(settings.model, settings)
    if asked:
        asked = Instructions.of(settings.instructions_folder).resolve(asked)
    result = load_named(settings.model, settings).rank(query, texts, instruction=asked, top_n=top_n)
    if as_json:
        click.echo(_as_json(result, texts))
    else:
        _print_table(result, texts)


def _lines(documents: IO[str], most: int) -> list[str]:
    """The lines that are not blank. Input without an end is refused once it passes ``most`` characters."""
    try:
        text = documents.read(most + 1)
    except UnicodeDecodeError:
        raise InvalidRequest("the documents are not UTF-8 text; convert the file first, with iconv for one") from None
    if len(text) > most:
        raise TooLarge(
            f"the documents have more than {most} characters together, the limit; --max-request-characters moves it"
        )
    return [line.strip() for line in text.split("\n") if line.strip()]


def _as_json(result: RerankResult, texts: list[str]) -> str:
    rows = [
        {
            "index": row.index,
            "relevance_score": row.score,
            **_best_passage(row),
            "document": {"text": texts[row.index]},
        }
        for row in result.ranked
    ]
    return printable_json(json.dumps({"model": result.model, "results": rows}, ensure_ascii=False, indent=2))


def _best_passage(row: DocumentScore) -> dict[str, Any]:
    best = row.best_passage
    return {} if best is None else {"best_passage": {"start": best.start, "end": best.end, "score": best.score}}


def _print_table(result: RerankResult, texts: list[str]) -> None:
    """Of a document that was split, the passage that won is shown."""
    shown = {
        row.index: texts[row.index][row.best_passage.start : row.best_passage.end]
        for row in result.ranked
        if row.best_passage is not None
    }
    rows = [
        (str(place), f"{row.score:.4f}", str(row.index + 1), shown.get(row.index, texts[row.index]))
        for place, row in enumerate(result.ranked, start=1)
    ]
    click.echo(table(("rank", "score", "input", "document"), rows))
