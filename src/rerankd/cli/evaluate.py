"""``rerankd evaluate``: measure how well a model reranks labelled data."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options
from rerankd.files import cache_folder
from rerankd.printable import printable
from rerankd.types import LongDocuments

if TYPE_CHECKING:
    from rich.progress import Progress

    from rerankd.evaluate.dataset import EvaluationSet
    from rerankd.evaluate.markdown import Report
    from rerankd.evaluate.notes import Notes
    from rerankd.evaluate.run import SetResult, SystemResult
    from rerankd.evaluate.scorer import Scorer
    from rerankd.evaluate.systems import NamedScorer

_MODEL_SETTINGS = (
    "revision", "template", "engine", "dtype", "device", "threads", "max_pair_tokens", "max_batch_tokens"
)  # fmt: skip
_AGGREGATIONS = ("max", "first", "mean", "min", "top_k_mean")
_FILE_WIDTH = 200
_INCOMPLETE = 1
"""Exit status of a run in which pairs have no score."""
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Output(click.Path):
    """A file to be written at the end of a long run, and so refused at its beginning if it cannot be."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        parent = path.absolute().parent
        if not parent.is_dir():
            self.fail(f"there is no folder {parent}", param, ctx)
        if not path.exists() and not os.access(parent, os.W_OK):
            self.fail(f"the folder {parent} cannot be written", param, ctx)
        return path


_OUTPUT = _Output()


@click.command(cls=SettingsCommand)
@click.argument("folders", nargs=-1, required=True, type=_FOLDER)
@click.option("--model", "models", multiple=True, help="A served name, `tiny`, a folder or a hub name.")
@click.option("--url", help="Ask the running server at this address instead of loading a model.")
@click.option("--api-key", help="API key of that server.")
@click.option(
    "--instruction", "instructions", multiple=True, help="What counts as relevant; once for each to compare."
)
@click.option(
    "--instructions", "names", metavar="NAMES", help="Instructions by name to compare, such as web_search,qa; or all."
)
@click.option("--instructions-folder", type=_FOLDER, help="Folder of further instructions by name.")
@click.option(
    "--long-documents",
    "long_documents",
    multiple=True,
    type=click.Choice(("truncate", "chunk", *(f"chunk:{name}" for name in _AGGREGATIONS))),
    metavar="RULE",
    help="`truncate`, `chunk` or `chunk:AGGREGATION`, such as `chunk:top_k_mean`; once for each to compare.",
)
@click.option("--chunk-tokens", type=click.IntRange(min=1), help="Tokens of one passage, where documents are split.")
@click.option("--top-k", type=click.IntRange(min=1), default=100, show_default=True, help="Candidates to rerank.")
@click.option("--queries", type=click.IntRange(min=1), help="Only the first N queries of each set.")
@click.option("--split", default="test", show_default=True, help="The file of `qrels` to measure by.")
@click.option("--run", "run_file", type=_INPUT, help="Candidates from a TREC run file, for one folder.")
@click.option("--qrels", "qrels_file", type=_INPUT, help="Judgements from a TREC qrels file, for one folder.")
@click.option(
    "--relevant-from", multiple=True, metavar="[SET=]GRADE", help="Least grade that MRR, MAP, recall count."
)
@click.option("--json", "json_file", type=_OUTPUT, help="Write all figures, also by query.")
@click.option("--markdown", "markdown_file", type=_OUTPUT, help="Write the tables.")
@click.option("--html", "html_file", type=_OUTPUT, help="Write a page with tables and plots.")
@click.option(
    "--checkpoints", type=click.Path(file_okay=False, path_type=Path), help="Folder for scores already made."
)
@click.option("--fresh", is_flag=True, help="Score everything again and keep nothing.")
@settings_options(_MODEL_SETTINGS)
def evaluate(folders: tuple[Path, ...], **options: Any) -> None:
    """Rerank the candidates of labelled sets and measure the result beside them.

    Each of FOLDERS holds corpus.jsonl, queries.jsonl, qrels/test.tsv and, if it likes, candidates.tsv; without
    that file the candidates are BM25's. Scores are kept, so that an interrupted run goes on where it stopped.

    The last lines say what was repaired or left out. Exit status 1: some pairs have no score, the figures are not
    the model's.
    """
    # Imported here: torch takes seconds, and --help should not have to wait for it.
    from rerankd.evaluate.errors import extra
    from rerankd.evaluate.markdown import markdown
    from rerankd.evaluate.notes import Notes
    from rerankd.evaluate.page import page
    from rerankd.evaluate.rehearsal import rehearse
    from rerankd.evaluate.summary import summary

    for module in ("ir_measures", "bm25s", "matplotlib"):
        extra(module)
    data = _load_sets(folders, options)
    _print(rehearse(data, options["models"] or ("model",), options["top_k"]), file=io.StringIO())
    notes = Notes()
    systems = _measure(data, options, notes)
    report = summary(systems, command=_command_line(sys.argv[1:]), top_k=options["top_k"])
    _print(report)
    if options["json_file"]:
        _write(options["json_file"], json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    if options["markdown_file"]:
        _write(options["markdown_file"], markdown(report))
    if options["html_file"]:
        _write(options["html_file"], page(report, {one.name: one.queries for one in data}))
    for one in data:
        _say(one.notes, f"{one.name}: ")
    _say(notes)
    failed = _failures(systems)
    if failed:
        click.echo(printable(f"rerankd: {failed}"), err=True)
        raise SystemExit(_INCOMPLETE)


def _load_sets(folders: Sequence[Path], options: Mapping[str, Any]) -> list[EvaluationSet]:
    from rerankd.evaluate.bm25 import with_candidates
    from rerankd.evaluate.dataset import Sources, load_set

    if len(folders) > 1 and (options["run_file"] or options["qrels_file"]):
        raise click.UsageError("--run and --qrels belong to one folder")
    if len({folder.resolve().name for folder in folders}) < len(folders):
        raise click.UsageError("two folders have the same name, by which the report tells them apart")
    sources = Sources(options["split"], options["run_file"], options["qrels_file"])
    grades = _grades(options["relevant_from"])
    loaded = []
    for folder in folders:
        grade = grades.get(folder.resolve().name, grades.get("", 1))
        data = load_set(folder, sources, options["top_k"], grade).first(options["queries"])
        loaded.append(data if data.candidates else with_candidates(data, options["top_k"]))
    return loaded


def _grades(given: Sequence[str]) -> dict[str, int]:
    """``SET=GRADE`` by set; a bare ``GRADE`` under the empty name, for all others."""
    found = {}
    for text in given:
        name, _, grade = text.rpartition("=")
        if not grade.isdecimal() or int(grade) < 1:
            raise click.BadParameter("has to be a grade from 1 on, or SET=GRADE", param_hint="--relevant-from")
        found[name] = int(grade)
    return found


def _say(notes: Notes, name: str = "") -> None:
    sentence = notes.sentence()
    if sentence:
        click.echo(printable(f"{name}{sentence}"), err=True)


def _failures(systems: Sequence[SystemResult]) -> str:
    """A sentence on the pairs that have no score; empty when all have one."""
    parts = []
    for system in systems:
        failed = sum(result.failed for result in system.sets.values())
        pairs = sum(result.pairs for result in system.sets.values())
        if failed:
            parts.append(f"{failed} of {pairs} pairs of {system.label} have no score")
    return f"{'; '.join(parts)}: the figures are not those of the whole model" if parts else ""


def _measure(data: Sequence[EvaluationSet], options: Mapping[str, Any], notes: Notes) -> list[SystemResult]:
    """Every model with every instruction over every set, under a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rerankd.evaluate.run import SystemResult

    asked = _instructions(options)
    # A name may hold brackets, which would be markup.
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TextColumn("pairs"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        systems = []
        for named in _scorers(options):
            instructions = asked or (named.instruction,)
            rules = options["long_documents"] or ("",)
            for instruction, rule in itertools.product(instructions, rules):
                label = named.name if len(instructions) == 1 else f"{named.name}: {instruction}"
                label = label if len(rules) == 1 else f"{label} · {rule}"
                wish = _wish(rule, options["chunk_tokens"])
                sets = _measure_system(data, named.scorer, instruction, wish, options, progress, label, notes)
                systems.append(SystemResult(label, named.scorer.identity, instruction, sets, wish))
    return systems


def _measure_system(
    data: Sequence[EvaluationSet],
    scorer: Scorer,
    instruction: str | None,
    wish: LongDocuments,
    options: Mapping[str, Any],
    progress: Progress,
    label: str,
    notes: Notes,
) -> dict[str, SetResult]:
    from rerankd.evaluate.run import evaluate_set
    from rerankd.evaluate.score_store import ScoreStore

    results = {}
    with ScoreStore(_store_folder(options, notes), scorer.identity, notes) as store:
        for one in data:
            pairs = sum(len(ranked) for ranked in one.candidates.values())
            task = progress.add_task(printable(f"{label} · {one.name}"), total=pairs)
            results[one.name] = evaluate_set(
                one,
                scorer,
                store,
                instruction=instruction,
                long_documents=wish,
                top_k=options["top_k"],
                advance=functools.partial(progress.advance, task),
            )
    return results


def _instructions(options: Mapping[str, Any]) -> list[str | None]:
    """The instructions to compare, those by name as their sentences."""
    from rerankd.service.instructions import Instructions

    presets = Instructions.of(options["instructions_folder"] or "")
    names = list(filter(None, (options["names"] or "").replace(",", " ").split()))
    if names == ["all"]:
        names = list(presets.presets)
    asked = [*options["instructions"], *(f"@{name.removeprefix('@')}" for name in names)]
    return [presets.resolve(instruction) for instruction in asked]


def _wish(rule: str, chunk_tokens: int | None) -> LongDocuments:
    mode, _, aggregation = rule.partition(":")
    return LongDocuments(
        mode=mode or None,  # type: ignore[arg-type]
        chunk_tokens=chunk_tokens,
        aggregation=aggregation or None,  # type: ignore[arg-type]
    )


def _store_folder(options: Mapping[str, Any], notes: Notes) -> Path | None:
    if options["fresh"]:
        return None
    if options["checkpoints"]:
        return Path(options["checkpoints"])
    folder = cache_folder()
    if folder is None:
        notes.add("user without a home folder; scores are not kept")
    return folder / "evaluate" if folder else None


def _scorers(options: Mapping[str, Any]) -> Iterator[NamedScorer]:
    from rerankd.evaluate.systems import open_local, open_server

    flags = {name: options[name] for name in _MODEL_SETTINGS}
    if not options["url"]:
        return open_local(options["models"], settings_from(options["config"], flags))
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None]
    if given:
        raise click.UsageError(f"{given[0]} has no effect with --url: the server's own settings decide")
    return open_server(options["models"], options["url"], options["api_key"])


def _command_line(arguments: Sequence[str]) -> str:
    """The command as it was given, for the report; without the key, which a report would give away."""
    shown = ["rerankd"]
    for before, argument in itertools.pairwise(["", *arguments]):
        hidden = before == "--api-key"
        shown.append("…" if hidden else "--api-key=…" if argument.startswith("--api-key=") else argument)
    return shlex.join(shown)


def _print(report: Report, file: IO[str] | None = None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rerankd.evaluate.markdown import against_first_rows, comparison, main_rows

    console = Console(file=file)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    several = len(report["systems"]) > 1
    shown = [("", comparison(report)), ("", against_first_rows(report))] if several else []
    shown += [(system["label"], main_rows(system)) for system in report["systems"]]
    for title, (head, rows) in shown:
        # Names are shown as they are: brackets are no markup, and control characters stay out of the terminal.
        table = Table(box=None, pad_edge=False, title=Text(printable(title)), title_justify="left")
        for place, name in enumerate(head):
            table.add_column(Text(printable(name)), justify="right" if place else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
