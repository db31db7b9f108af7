"""The table of promises: what each one says, what it passes with, and what was measured."""

from __future__ import annotations

import io
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


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """``measured(id, what, pass figure, value)`` adds a row to the table at the end of the run."""

    def add(id: str, what: str, passes: str, value: str) -> None:
        request.config.stash[FIGURES].append(Figure(id, what, passes, value))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, when a suite was asked for by name (``make faults``); the whole run has enough to say."""
    figures = sorted(config.stash[FIGURES], key=lambda figure: figure.id)
    if not figures or config.args_source is not pytest.Config.ArgsSource.ARGS:
        return
    table = Table("id", "what", "passes with", "measured", title="Promises, and what was measured")
    for figure in figures:
        table.add_row(figure.id, figure.what, figure.passes, figure.measured)
    text = io.StringIO()
    Console(file=text, width=140).print(table)
    terminalreporter.ensure_newline()
    terminalreporter.write(text.getvalue())
