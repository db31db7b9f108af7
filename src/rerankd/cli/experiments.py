"""``rerankd experiments``: what users' feedback says of the arms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rerankd.cli.options import SettingsCommand, settings_from, settings_options
from rerankd.cli.table import table
from rerankd.errors import ConfigurationError
from rerankd.printable import printable

if TYPE_CHECKING:
    from rerankd.experiments.analysis import ExperimentReport, Measure
    from rerankd.settings import Settings

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def experiments() -> None:
    """See what the experiments of a server have found."""


@experiments.command(cls=SettingsCommand)
@click.argument("names", nargs=-1)
@click.option(
    "--measure",
    type=click.Choice(("clicked", "used", "reciprocal_rank")),
    default="clicked",
    show_default=True,
    help="What counts of an answer.",
)
@click.option("--json", "json_file", type=_FILE, help="Write all figures, day by day.")
@click.option(
    "--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for a plot of each comparison, as SVG."
)
@settings_options(("feedback_store",))
def report(
    names: tuple[str, ...],
    measure: Measure,
    json_file: Path | None,
    plots: Path | None,
    config: Path | None,
    feedback_store: str | None,
) -> None:
    """Compare the arms of experiments by what users clicked or used; without NAMES all that are in the store.

    It may be read at any time, as often as one likes: where there is no difference, the test declares one in at most
    5 % of all experiments, however often it is looked at.
    """
    from rerankd.experiments.report import as_json, plot

    settings = settings_from(config, {"feedback_store": feedback_store})
    reports = _reports(settings, names, measure)
    for one in reports:
        click.echo("\n".join(map(printable, _lines(one))) + "\n")
    if json_file:
        text = json.dumps([as_json(one) for one in reports], indent=1, ensure_ascii=False)
        _write(json_file, text + "\n")
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
        for one in reports:
            for comparison in one.comparisons:
                _write(plots / f"{one.name}-{comparison.candidate}.svg", plot(one, comparison))


def _reports(settings: Settings, names: Sequence[str], measure: Measure) -> list[ExperimentReport]:
    from rerankd.experiments.analysis import analyse
    from rerankd.experiments.database import file_of, is_file, open_database
    from rerankd.experiments.store import stored_agreements, stored_answers, stored_experiments

    target = settings.feedback_store
    if is_file(target) and not file_of(target).is_file():
        raise ConfigurationError(f"there is no {file_of(target)}; name the server's store by --feedback-store")
    database = open_database(target)
    try:
        known = stored_experiments(database)
        if missing := [name for name in names if name not in known]:
            raise ConfigurationError(f"there is no experiment {missing[0]} in the store; there is {', '.join(known)}")
        return [
            analyse(
                name,
                stored_answers(database, name),
                stored_agreements(database, name),
                _weights(settings, name),
                measure,
            )
            for name in names or known
        ]
    finally:
        database.close()


def _weights(settings: Settings, name: str) -> dict[str, float]:
    """Of the arms that answer, as far as the settings file is at hand."""
    rule = settings.experiments.get(name)
    return {arm: row.weight for arm, row in rule.arms.items() if not row.shadow} if rule else {}


def _lines(one: ExperimentReport) -> list[str]:
    from rerankd.experiments.report import arm_rows, comparison_rows, notes, shadow_rows, verdict

    lines = [one.name, "", table(*arm_rows(one))]
    if one.comparisons:
        lines += ["", table(*comparison_rows(one))]
    if one.shadows:
        lines += ["", table(*shadow_rows(one))]
    lines += ["", *notes(one), *(verdict(one, comparison) for comparison in one.comparisons)]
    return [line for part in lines for line in part.split("\n")]


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
