"""``rerankd rank``: order the lines of a file by how well they answer a query, or score the records of a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import click

from rerankd.cli.options import SettingsCommand, flag_of, settings_from, settings_options
from rerankd.cli.table import table
from rerankd.errors import InvalidRequest, RerankdError, TooLarge
from rerankd.printable import printable, printable_json

if TYPE_CHECKING:
    from rerankd.cli.records.fields import Fields
    from rerankd.cli.records.output import Output
    from rerankd.cli.records.progress import Progress
    from rerankd.cli.records.run import Input
    from rerankd.cli.records.scorers import RecordScorer
    from rerankd.cli.records.source import Format
    from rerankd.client import Result
    from rerankd.settings import Settings

_MODEL_SETTINGS = (
    "model", "revision", "template", "engine", "dtype", "device", "threads", "max_pair_tokens",
    "long_documents", "chunk_tokens", "chunk_aggregation", "chunk_top_k"
)  # fmt: skip
_OTHER_SETTINGS = (
    "max_request_characters", "instructions_folder", "ray_min_replicas", "ray_max_replicas", "ray_replica_cpus",
    "ray_replica_gpus",
)  # fmt: skip
_FORMATS = ("jsonl", "csv", "tsv", "parquet")
_BYTES_PER_CHARACTER = 6
"""Of a record: as JSON writes a letter beyond ASCII."""
_INCOMPLETE = 1
"""Exit status of a run in which records have no score."""
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Row:
    """A ranked document."""

    index: int
    score: float
    best_passage: tuple[int, int, float] | None
    """Of a document that was split, the passage that won: start, end, score."""


_Ranked: TypeAlias = "tuple[str, list[_Row]]"
"""The model's name; the documents, best first."""


class _File(click.Path):
    """A file, or ``-`` for standard input or output, which is None."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, allow_dash=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        return None if str(path) == "-" else path


@click.command(cls=SettingsCommand)
@click.argument("query", required=False)
@click.option(
    "--documents", type=click.File(encoding="utf-8"), help="Rank the lines of this file, - for standard input."
)
@click.option("--input", "input_file", type=_File(), help="Score the records of this file, - for standard input.")
@click.option(
    "--output", "output_file", type=_File(), default="-", help="Where scored records go; - is standard output."
)
@click.option(
    "--ray",
    "on_ray",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="INPUT OUTPUT",
    help="Score the pairs of a Parquet file or folder on a Ray cluster, into a folder; the same command goes on.",
)
@click.option("--part-rows", type=click.IntRange(min=1), default=10_000, help="Rows of an output file of --ray.")
@click.option(
    "--format", "kind", type=click.Choice(_FORMATS), help="Format of the input, where its name does not say."
)
@click.option("--query-field", default="query", show_default=True, help="Field of a record with the query.")
@click.option(
    "--document-field", default="document", show_default=True, help="Field with a text, or a list of texts."
)
@click.option("--score-field", default="score", show_default=True, help="Field that takes the score of a pair.")
@click.option("--failures", type=click.Path(dir_okay=False, path_type=Path), help="File for records without a score.")
@click.option("--progress/--no-progress", default=None, help="Show how far it is; by default on a terminal.")
@click.option("--fresh", is_flag=True, help="Begin again and write over the output, instead of going on with it.")
@click.option("--url", help="Ask the running server at this address instead of loading a model.")
@click.option("--api-key", envvar="RERANKD_API_KEY", help="API key of that server. (RERANKD_API_KEY)")
@click.option("--instruction", help="What counts as relevant, in a sentence or by name (@qa).")
@click.option("--top-n", type=click.IntRange(min=1), help="Only the best N documents of a list.")
@click.option("--json", "as_json", is_flag=True, help="Print the ranked lines as JSON instead of a table.")
@settings_options((*_MODEL_SETTINGS, *_OTHER_SETTINGS))
@click.pass_context
def rank(context: click.Context, /, query: str | None, documents: IO[str] | None, **options: Any) -> None:
    """Print the lines of --documents ranked by how well they answer QUERY, or score the records of --input.

    A record of --input is a JSON object a line, or a row of CSV, TSV or Parquet. It has a query and a document, and
    gets a score; or a query and a list of documents, and gets results, best first. With QUERY, it is the query of all
    records. A run into a file that was interrupted goes on where it stopped when it is started again. Exit status 1:
    some records have no score.

    The settings are those of the server: from flags, RERANKD_ variables and the settings file; --model takes a served
    name of theirs, too.
    """
    if query is not None and not query.strip():
        raise InvalidRequest("the query must not be empty or blank")
    settings = settings_from(options["config"], {name: options[name] for name in _flags()})
    if options["on_ray"] is not None:
        _refuse_together(context, "--ray", "query", "documents", "input_file", "output_file", "url", "as_json")
        _rank_on_ray(settings, options)
    elif documents is not None:
        _refuse_together(context, "--documents", "input_file", "output_file", "failures", "fresh", "progress")
        if query is None:
            raise click.UsageError("--documents needs a QUERY")
        _rank_lines(query, documents, settings, options)
    elif context.get_parameter_source("input_file") is click.core.ParameterSource.DEFAULT:
        raise click.UsageError("give --documents, a file with one document a line, or --input, a file of records")
    else:
        _refuse_together(context, "--input", "as_json")
        _rank_records(query, settings, options)


def _flags() -> tuple[str, ...]:
    return (*_MODEL_SETTINGS, *_OTHER_SETTINGS)


def _rank_on_ray(settings: Settings, options: Mapping[str, Any]) -> None:
    from rerankd.cli.bulk import rank_on_ray

    source, output = options["on_ray"]
    names = ("query_field", "document_field", "instruction", "fresh", "part_rows")
    rank_on_ray(source, output, settings, **{name: options[name] for name in names})


def _refuse_together(context: click.Context, one: str, *others: str) -> None:
    for name in others:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            shown = {"input_file": "input", "output_file": "output", "as_json": "json"}.get(name, name)
            raise click.UsageError(f"{flag_of(shown)} has no effect with {one}")


def _refuse_model_flags(options: Mapping[str, Any]) -> None:
    given = [flag_of(name) for name in _MODEL_SETTINGS if name != "model" and options[name] is not None]
    if given:
        raise click.UsageError(f"{given[0]} has no effect with --url: the server's own settings decide")


def _rank_lines(query: str, documents: IO[str], settings: Settings, options: Mapping[str, Any]) -> None:
    texts = _lines(documents, settings.max_request_characters)
    if not texts:
        raise InvalidRequest("there is no document to rank: every line of the input is blank")
    model, ranked = (_ask_server if options["url"] else _ask_model)(query, texts, settings, options)
    if options["as_json"]:
        click.echo(_as_json(model, ranked, texts))
    else:
        _print_table(ranked, texts)


def _ask_model(query: str, texts: list[str], settings: Settings, options: Mapping[str, Any]) -> _Ranked:
    # Imported here: torch takes seconds, and a wrong file name should not have to wait for it.
    from rerankd.local_models import load_named

    asked = _own_instruction(settings, options)
    found = load_named(settings.model, settings).rank(query, texts, instruction=asked, top_n=options["top_n"])
    return found.model, [_Row(row.index, row.score, _best(row)) for row in found]


def _ask_server(query: str, texts: list[str], settings: Settings, options: Mapping[str, Any]) -> _Ranked:
    from rerankd.client import Client, ClientError

    _refuse_model_flags(options)
    with _address_errors(), Client(options["url"], options["api_key"]) as client:
        try:
            found = client.rank(query, texts, options["instruction"], options["top_n"], options["model"])
        except ClientError as error:
            raise RerankdError(f"the server at {options['url']}: {error}") from None
    return found.model, [_Row(row.index, row.score, _best(row)) for row in found]


@contextlib.contextmanager
def _address_errors() -> Any:
    try:
        yield
    except ValueError as error:
        raise InvalidRequest(f"--url: {error}") from None


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


def _best(row: Result) -> tuple[int, int, float] | None:
    best = row.best_passage
    return None if best is None else (best.start, best.end, best.score)


def _as_json(model: str, ranked: list[_Row], texts: list[str]) -> str:
    rows = [
        {
            "index": row.index,
            "relevance_score": row.score,
            **_shown(row.best_passage),
            "document": {"text": texts[row.index]},
        }
        for row in ranked
    ]
    return printable_json(json.dumps({"model": model, "results": rows}, ensure_ascii=False, indent=2))


def _shown(best: tuple[int, int, float] | None) -> dict[str, Any]:
    return {} if best is None else {"best_passage": dict(zip(("start", "end", "score"), best, strict=True))}


def _print_table(ranked: list[_Row], texts: list[str]) -> None:
    """Of a document that was split, the passage that won is shown."""
    rows = []
    for place, row in enumerate(ranked, start=1):
        start, end = row.best_passage[:2] if row.best_passage else (0, None)
        rows.append((str(place), f"{row.score:.4f}", str(row.index + 1), texts[row.index][start:end]))
    click.echo(table(("rank", "score", "input", "document"), rows))


def _rank_records(query: str | None, settings: Settings, options: Mapping[str, Any]) -> None:
    from rerankd.cli.records.fields import Fields
    from rerankd.cli.records.progress import Progress
    from rerankd.cli.records.run import open_input, rank_records
    from rerankd.cli.records.source import format_of, open_source

    input_file, output_file = options["input_file"], options["output_file"]
    if input_file and output_file and input_file.resolve() == output_file.resolve():
        raise InvalidRequest("--input and --output are one file")
    fields = Fields(
        query=options["query_field"],
        document=options["document_field"],
        score=options["score_field"],
        given_query=query,
        instruction=options["instruction"] if options["url"] else _own_instruction(settings, options),
        top_n=options["top_n"],
        most_characters=settings.max_request_characters,
    )
    kind = options["kind"] or format_of(input_file)
    given = open_input(input_file)
    limit = _BYTES_PER_CHARACTER * settings.max_request_characters
    with contextlib.closing(open_source(given.stream, kind, size=given.size, limit=limit)) as source:
        target, columns = _target(kind, output_file, source.columns, fields.score)
        output = _open(given, target, columns, fields, options)
        complete = False
        progress = Progress(source.size, output.position.place, options["progress"])
        try:
            with contextlib.closing(_scorer(settings, options)) as scorer:
                progress.start()
                rank_records(source, output, scorer, fields, target, columns, progress)
            complete = True
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None
        finally:
            progress.close()
            output.close(complete=complete)
            _say(output, progress, options, complete=complete)
    if output.position.failed:
        raise SystemExit(_INCOMPLETE)


def _own_instruction(settings: Settings, options: Mapping[str, Any]) -> str | None:
    """The instruction that is asked for, or the settings' own; by its name or as it stands."""
    from rerankd.local_models import instruction_of
    from rerankd.service.instructions import Instructions

    asked = options["instruction"] or instruction_of(settings.model, settings)
    return Instructions.of(settings.instructions_folder).resolve(asked) if asked else asked


def _scorer(settings: Settings, options: Mapping[str, Any]) -> RecordScorer:
    from rerankd.cli.records.scorers import LocalScorer, ServerScorer

    if options["url"]:
        _refuse_model_flags(options)
        with _address_errors():
            return ServerScorer(options["url"], options["api_key"], options["model"])
    from rerankd.local_models import load_named

    return LocalScorer(load_named(settings.model, settings))


def _target(
    kind: Format, output_file: Path | None, columns: list[str] | None, score: str
) -> tuple[Format, list[str]]:
    """The format of the output, and its columns where it has some."""
    from rerankd.cli.records.source import format_of

    target = format_of(output_file) if output_file else ("jsonl" if kind == "parquet" else kind)
    if target == "parquet":
        raise InvalidRequest("a Parquet file cannot be gone on with after a kill: write JSONL, CSV or TSV")
    if target != "jsonl" and columns is None:
        raise InvalidRequest(f"records of JSONL may each have other fields: write JSONL, not {target.upper()}")
    names = [] if columns is None else [name for name in columns if name != score]
    return target, [*names, score]


def _open(given: Input, target: Format, columns: list[str], fields: Fields, options: Mapping[str, Any]) -> Output:
    from rerankd.cli.records.run import header_of, open_output

    run = {
        "input": given.identity,
        "format": [target, *columns],
        "query": [fields.given_query, fields.query, fields.document],
        "instruction": fields.instruction,
        "--top-n": fields.top_n,
        "--url": options["url"],
        "model": {flag_of(name): options[name] for name in _MODEL_SETTINGS if options[name] is not None},
    }
    header = header_of(target, columns)
    output = open_output(options["output_file"], options["failures"], run, header, fresh=options["fresh"])
    if output.position.place and given.size is None:
        raise InvalidRequest("standard input cannot be gone on with: give the file by name, or --fresh")
    return output


def _say(output: Output, progress: Progress, options: Mapping[str, Any], *, complete: bool) -> None:
    """What became of the run, in a line; the next step where there is one."""
    from rerankd.cli.records.progress import records_said

    position, file = output.position, options["output_file"]
    parts = [f"{records_said(position.written + position.failed)}, {progress.rate:,.0f}/s"]
    if position.failed:
        where = options["failures"] or (file and f"{file}.failures.jsonl")
        parts.append(f"{position.failed:,} failed" + (f" ({where})" if where else ""))
    if not complete:
        parts.append("not over" + ("; the same command goes on here" if file else ""))
    click.echo(printable(f"rerankd: {', '.join(parts)}"), err=True)
