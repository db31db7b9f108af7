"""Write what is made from the code: the reference pages, and the exports that the clients are made from.

``python docs/generate.py`` writes them, ``--check`` only says which are out of date (exit status 1).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import exports

from rerankd.cli.main import cli
from rerankd.cli.options import flag_of
from rerankd.observe.metrics import Metrics
from rerankd.settings import (
    ENVIRONMENT_PREFIX,
    FILE_NAME,
    ArmSettings,
    ExperimentSettings,
    ModelSettings,
    Settings,
    fields_of,
)
from rerankd.wire.error_shapes import DOCUMENTS_STATUS
from rerankd.wire.fields import COMMON
from rerankd.wire.registry import ROUTES

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
CLIENT = ROOT / "src" / "rerankd" / "client"
TYPESCRIPT = ROOT / "clients" / "typescript" / "src" / "generated"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        f"From a flag, else the environment, else `{FILE_NAME}`, else the default. An unknown key or flag is an",
        f"error; an unknown `{ENVIRONMENT_PREFIX}…` variable is a warning, for an environment is not always ours,",
        "and an empty one sets nothing. An error names the place that the value came from. Choices are taken in any",
        "case.",
        "",
    ]
    rows = {name: row for name, row in fields_of(Settings).items() if not row.metadata["tests_only"]}
    lines += _settings_table(name for name, row in rows.items() if not row.metadata["advanced"])
    lines += ["", "## For special cases", "", "Flags too, but left out of `rerankd serve --help`.", ""]
    lines += _settings_table(name for name, row in rows.items() if row.metadata["advanced"])
    tables = {
        "models.NAME": ModelSettings,
        "experiments.NAME": ExperimentSettings,
        "experiments.NAME.arms.ARM": ArmSettings,
    }
    for title, table in tables.items():
        lines += ["", f"## `[{title}]`", "", "| key | default | what it does |", "| --- | --- | --- |"]
        for name, row in fields_of(table).items():
            lines.append(f"| `{name}` | {_shown(row.default)} | {_help(row.metadata)} |")
    return "\n".join([*lines, ""])


def _settings_table(names: Iterable[str]) -> Iterator[str]:
    yield "| key | flag | environment | default | what it does |"
    yield "| --- | --- | --- | --- | --- |"
    for name in names:
        row, variable = fields_of(Settings)[name], f"{ENVIRONMENT_PREFIX}{name.upper()}"
        yield f"| `{name}` | `{flag_of(name)}` | `{variable}` | {_shown(row.default)} | {_help(row.metadata)} |"


def _shown(default: object) -> str:
    return "" if default == "" else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _help(metadata: object) -> str:
    row = dict(metadata)  # type: ignore[call-overload]
    choices = f" One of {', '.join(f'`{choice}`' for choice in row['choices'] if choice)}." if row["choices"] else ""
    return str(row["help"]) + choices


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "Served at `/metrics`.",
        "",
        "| name | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    collectors = Metrics().registry._collector_to_names
    for collector in collectors:
        family = next(iter(collector.describe()))
        labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
        suffix = "_total" if family.type == "counter" else ""
        lines.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join([*lines, ""])


def errors_page() -> str:
    lines = ["# Errors", "", "| status | `code` | retry | meaning |", "| --- | --- | --- | --- |"]
    for error in exports.service_errors():
        retry = "yes" if error.retryable else "no"
        lines.append(f"| {error.status} | `{error.code}` | {retry} | {exports.meaning(error)} |")
    others = ", ".join(f"`{code}` with {status}" for code, status in DOCUMENTS_STATUS.items())
    lines += [
        "",
        f"All shapes but text-embeddings-inference's answer {others}: some of their clients fall over a 422.",
        "",
    ]
    return "\n".join(lines)


def command_page() -> str:
    lines = ["# Command line", ""]
    for name, command in _commands("rerankd", cli):
        context = click.Context(command, info_name=name, terminal_width=100, **cli.context_settings)
        lines += [f"## `{name}`", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and, of a group, those in it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for part in command.list_commands(context):
            one = command.get_command(context, part)
            assert one is not None
            yield from _commands(f"{name} {part}", one)


def dialects_page() -> str:
    """Every path with what it speaks, then every dialect with its fields."""
    lines = [
        "# Dialects",
        "",
        "Where several live at a path, the keys in brackets tell them apart; a mount (the first part of a path, such",
        "as `/cohere`) pins the shape. `/docs` of a running server shows each with examples and errors.",
        "Beyond its own fields every dialect reads an instruction by any of its names, the options of truncation,",
        "and `priority`; keys that mean nothing are ignored.",
        "",
        "| path | speaks |",
        "| --- | --- |",
    ]
    for route in ROUTES:
        several = len(route.dialects) > 1
        names = [f"{kind.title} (`{kind.keys[0]}`)" if several else kind.title for kind in route.dialects]
        lines.append(f"| `POST {route.path}` | {', '.join(names)} |")
    lines += ["", "## Fields", "", "| dialect | required | optional |", "| --- | --- | --- |"]
    for kind in {kind.name: kind for route in ROUTES for kind in route.dialects}.values():
        required = ", ".join(f"`{field.name}`" for field in kind.fields if field.required)
        optional = ", ".join(f"`{field.name}`" for field in kind.fields if not field.required)
        lines.append(f"| {kind.title} | {required} | {optional} |")
    lines += ["", "## What a field means", "", "| field | meaning |", "| --- | --- |"]
    meanings = {
        (field.name, field.description) for route in ROUTES for kind in route.dialects for field in kind.fields
    }
    meanings |= {(field.name, field.description) for field in COMMON}
    lines += [f"| `{name}` | {meaning} |" for name, meaning in sorted(meanings)]
    return "\n".join([*lines, ""])


FILES = {
    REFERENCE / "dialects.md": dialects_page,
    REFERENCE / "settings.md": settings_page,
    REFERENCE / "metrics.md": metrics_page,
    REFERENCE / "errors.md": errors_page,
    REFERENCE / "command-line.md": command_page,
    REFERENCE / "openapi.json": exports.openapi_json,
    REFERENCE / "errors.json": exports.errors_json,
    CLIENT / "_error_table.py": exports.python_errors,
    TYPESCRIPT / "errors.ts": exports.typescript_errors,
    TYPESCRIPT / "wire.ts": exports.typescript_types,
}


def main() -> int:
    """Write the files, or with ``--check`` name those that differ."""
    made = {file: make() for file, make in FILES.items()}
    if "--check" not in sys.argv:
        for file, text in made.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return 0
    stale = [file.name for file, text in made.items() if not file.is_file() or file.read_text("utf-8") != text]
    print(f"out of date: {', '.join(stale)}; run `make docs`" if stale else "up to date")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
