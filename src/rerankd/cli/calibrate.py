"""``rerankd calibrate`` and ``rerankd suggest-threshold``: what a score means, from labelled data."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options
from rerankd.cli.table import table
from rerankd.files import cache_folder
from rerankd.printable import printable
from rerankd.service.calibration import METHODS, Calibration, Method

if TYPE_CHECKING:
    from rerankd.evaluate.calibration import LabelledPairs
    from rerankd.evaluate.dataset import EvaluationSet
    from rerankd.evaluate.scorer import QueryScores
    from rerankd.settings import Settings

_MODEL_SETTINGS = (
    "revision", "template", "engine", "dtype", "device", "threads", "max_pair_tokens", "max_batch_tokens"
)  # fmt: skip
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _data_options(command: _Command) -> _Command:
    """What both commands read: labelled folders and one model."""
    for option in reversed(
        [
            click.argument("folders", nargs=-1, required=True, type=_FOLDER),
            click.option("--model", required=True, help="A served name, `tiny`, a folder or a hub name."),
            click.option("--top-k", type=click.IntRange(min=1), default=100, show_default=True, help="Candidates."),
            click.option("--queries", type=click.IntRange(min=1), help="Only the first N queries of each set."),
            click.option("--split", default="test", show_default=True, help="The file of `qrels`."),
            click.option("--fresh", is_flag=True, help="Score everything again and keep nothing."),
            settings_options(_MODEL_SETTINGS),
        ]
    ):
        command = option(command)
    return command


@click.command(cls=SettingsCommand)
@_data_options
@click.option(
    "--method", type=click.Choice(("auto", *METHODS)), default="auto", show_default=True, help="How it is fitted."
)
@click.option("--out", type=_OUTPUT, default="calibration.json", show_default=True, help="The file to write.")
@click.option("--plot", type=_OUTPUT, help="Write a reliability plot, as SVG.")
def calibrate(folders: tuple[Path, ...], method: str, out: Path, plot: Path | None, **options: Any) -> None:
    """Fit probabilities to a model's scores on labelled FOLDERS, as `rerankd evaluate` reads them.

    Name the file in the settings as `calibration` of the served name. Figures are those of five-fold cross-validation
    over queries. Candidates without a judgement count as irrelevant: send as many to the server as were judged here.
    """
    from rerankd.evaluate.calibration import as_json, probabilities_of
    from rerankd.evaluate.calibration import calibrate as fitted
    from rerankd.evaluate.errors import extra
    from rerankd.evaluate.reliability import bin_rows, reliability_plot

    extra("sklearn")
    pairs, identity = _pairs(folders, options)
    chosen: Method | None = None if method == "auto" else method  # type: ignore[assignment]
    # The model's own probability is the sigmoid of its raw score: a calibration that changes nothing.
    before = functools.partial(probabilities_of, Calibration("platt"))
    found = fitted(pairs, chosen, str(identity["revision"]), str(identity["template"]), before)
    names = [folder.resolve().name for folder in folders]
    _write(out, json.dumps(as_json(found, names, pairs), indent=1) + "\n")
    if plot:
        _write(plot, reliability_plot(found))
    click.echo(f"{pairs.count:,} queries, {len(pairs.logits):,} pairs, {pairs.labels.mean():.1%} relevant\n")
    click.echo(table(*bin_rows(found)))
    click.echo(
        f"\n{found.calibration.method}: ECE {found.before.ece:.4f} before, {found.after.ece:.4f} after; "
        f"written to {printable(str(out))}"
    )


@click.command("suggest-threshold", cls=SettingsCommand)
@_data_options
@click.option("--precision", type=click.FloatRange(0, 1, min_open=True), help="The wanted precision.")
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True), help="The wanted recall.")
@click.option("--calibration", type=_INPUT, help="File of `rerankd calibrate` that the served name has.")
def suggest_threshold(
    folders: tuple[Path, ...],
    precision: float | None,
    recall: float | None,
    calibration: Path | None,
    **options: Any,
) -> None:
    """Find the score at which to cut for a wanted precision, or recall, on labelled FOLDERS.

    The intervals are what thresholds chosen on random halves of the queries gave on the other halves, 95 % of 500.
    """
    from rerankd.evaluate.calibration import suggest

    if (precision is None) == (recall is None):
        raise click.UsageError("give --precision or --recall")
    pairs, identity = _pairs(folders, options)
    scale = Calibration("platt") if calibration is None else Calibration.read(calibration)
    if calibration is not None:
        scale.check_fits(str(identity["revision"]), str(identity["template"]), printable(str(options["model"])))
    found = suggest(pairs, precision=precision, recall=recall)
    # Rounded down, so that the document at the threshold passes.
    score = math.floor(scale.probability(found.logit) * 1e6) / 1e6
    click.echo(
        f"{pairs.count:,} queries, {len(pairs.logits):,} pairs\n\n"
        f"score_threshold {score:.6f}\n"
        f"precision {found.precision:.3f} ({_interval(found.precision_interval)} on held-back halves)\n"
        f"recall {found.recall:.3f} ({_interval(found.recall_interval)})\n"
        f"{found.kept:.1%} of the candidates pass"
    )
    if found.found_in < 1:
        click.echo(f"only {found.found_in:.0%} of the halves had such a threshold: more labelled queries are needed")


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _pairs(folders: tuple[Path, ...], options: Mapping[str, Any]) -> tuple[LabelledPairs, Mapping[str, Any]]:
    """The scored and labelled pairs of all folders, and what the model is."""
    from rerankd.evaluate.bm25 import with_candidates
    from rerankd.evaluate.calibration import labelled_pairs
    from rerankd.evaluate.dataset import Sources, load_set
    from rerankd.evaluate.score_store import ScoreStore
    from rerankd.evaluate.systems import open_local

    sets = []
    for folder in folders:
        data = load_set(folder, Sources(options["split"]), options["top_k"]).first(options["queries"])
        sets.append(data if data.candidates else with_candidates(data, options["top_k"]))
    flags = {name: options[name] for name in _MODEL_SETTINGS}
    settings = _uncalibrated(settings_from(options["config"], flags))
    cache = None if options["fresh"] else cache_folder()
    for named in open_local([options["model"]], settings):
        identity = named.scorer.identity
        with ScoreStore(cache / "evaluate" if cache else None, identity) as store:
            return labelled_pairs(_scored(sets, named.scorer, store, named.instruction)), identity
    raise AssertionError("one model was asked for")


def _uncalibrated(settings: Settings) -> Settings:
    """A file that a new model has made useless must not keep a new one from being made."""
    models = {name: dataclasses.replace(row, calibration="") for name, row in settings.models.items()}
    return dataclasses.replace(settings, calibration="", models=models)


def _scored(
    sets: list[EvaluationSet], scorer: Any, store: Any, instruction: str | None
) -> Iterator[tuple[EvaluationSet, str, QueryScores]]:
    from rerankd.evaluate.run import scores_of
    from rerankd.types import NO_WISH

    for data in sets:
        total = len(data.candidates)
        for number, (query, found, _) in enumerate(scores_of(data, scorer, store, instruction, NO_WISH), start=1):
            if number % 100 == 0 or number == total:
                click.echo(f"rerankd: {printable(data.name)}: {number:,} of {total:,} queries", err=True)
            yield data, query, found


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
