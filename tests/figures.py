"""The tables of promises: what was measured for each, and which tests hold it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rich.console import Console
from rich.table import Table

Measured = Callable[[str, str, str, str], None]


@dataclass(frozen=True)
class Figure:
    id: str
    what: str
    passes: str
    measured: str


FIGURES = pytest.StashKey[list[Figure]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", action="store_true", help="end with a table of the promises that were held")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Reports carry what their test is marked with, from the workers of a parallel run too."""
    for item in items:
        item.user_properties += [("promise", name) for mark in item.iter_markers("promise") for name in mark.args]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """``measured(id, what, pass figure, value)`` adds a row to the table at the end of the run."""

    promised = {name for mark in request.node.iter_markers("promise") for name in mark.args}

    def add(id: str, what: str, passes: str, value: str) -> None:
        assert id in promised, f"the test measures {id}, and is marked with {sorted(promised)}"
        request.config.stash[FIGURES].append(Figure(id, what, passes, value))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables, when they or a suite were asked for by name (``make faults``); the whole run has enough to say."""
    if config.option.promises:
        _write(terminalreporter, _promises(terminalreporter))
    figures = sorted(config.stash[FIGURES], key=lambda figure: figure.id)
    if not figures or config.args_source is not pytest.Config.ArgsSource.ARGS:
        return
    table = Table("id", "what", "passes with", "measured", title="Promises, and what was measured")
    for figure in figures:
        table.add_row(figure.id, figure.what, figure.passes, figure.measured)
    _write(terminalreporter, table)


def _promises(terminalreporter: pytest.TerminalReporter) -> Table:
    """How many tests of each promise passed, failed or were skipped."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for name in {value for key, value in report.user_properties if key == "promise"}:
                counts.setdefault(name, Counter())[outcome] += 1
    table = Table("promise", "passed", "failed", "skipped", title="Tests of each promise")
    for name, found in sorted(counts.items()):
        table.add_row(name, *(str(found[outcome] or "") for outcome in ("passed", "failed", "skipped")))
    return table


def _write(terminalreporter: pytest.TerminalReporter, table: Table) -> None:
    text = io.StringIO()
    Console(file=text, width=140).print(table)
    terminalreporter.ensure_newline()
    terminalreporter.write(text.getvalue())
