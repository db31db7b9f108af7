"""Command-line flags made from the settings table, so that the two can never differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rerankd.settings import ENVIRONMENT_PREFIX, FILE_NAME, RENAMED, Settings, fields_of, load_settings


def flag_of(name: str) -> str:
    """The command-line flag of a setting: ``max_documents`` -> ``--max-documents``."""
    return f"--{name.replace('_', '-')}"


_RENAMED_FLAGS = {flag_of(old): flag_of(new) for old, new in RENAMED.items()}

_Command = TypeVar("_Command", bound=Callable[..., Any])


class SettingsCommand(click.Command):
    """A command with flags of the settings table; an old flag is refused with its new name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            new = _RENAMED_FLAGS.get(error.option_name)
            if new is None:
                raise
            raise click.UsageError(f"{error.option_name} is now {new}", ctx) from None


def settings_options(names: Iterable[str] | None = None) -> Callable[[_Command], _Command]:
    """Add one flag for every named setting (all of them by default), and ``--config``.

    Flags take texts; :func:`settings_from` reads them by the same rules as variables and the file.
    """
    rows = fields_of(Settings)
    chosen = list(rows) if names is None else list(names)

    def decorate(command: _Command) -> _Command:
        for name in reversed(chosen):
            command = _option(name, rows[name].default, rows[name].metadata)(command)
        return click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help=f"Settings file; without it {FILE_NAME} of the working folder, where there is one.",
        )(command)

    return decorate


def _option(name: str, default: Any, metadata: Any) -> Callable[[_Command], _Command]:
    flag = flag_of(name)
    is_switch = isinstance(default, bool)
    shown = "" if is_switch or default == "" else f" [default: {default}]"
    return click.option(
        f"{flag}/--no-{flag.removeprefix('--')}" if is_switch else flag,
        default=None,
        type=None if is_switch else str,
        metavar=None if is_switch else _metavar(default, metadata["choices"]),
        hidden=metadata["advanced"],
        help=f"{metadata['help']}{shown} ({ENVIRONMENT_PREFIX}{name.upper()})",
    )


def _metavar(default: Any, choices: Sequence[str]) -> str:
    return f"[{'|'.join(choices)}]" if choices else {int: "INTEGER", float: "FLOAT"}.get(type(default), "TEXT")


def settings_from(
    config: Path | None, flags: Mapping[str, Any], warn: Callable[[str], None] | None = None
) -> Settings:
    """The settings of a command: its flags over the environment over the file.

    Args:
        warn: told of variables that are not used; by default they are printed to standard error.

    Raises:
        ConfigurationError: an unknown key, or a value of the wrong type.
    """
    return load_settings(file=config, flags=flags, warn=warn or _print_warning)


def _print_warning(message: str) -> None:
    click.echo(f"rerankd: {message}", err=True)
