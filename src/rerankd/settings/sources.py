"""Where settings come from: the file, the environment and the flags, each value with the place it was found at."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError
from rerankd.files import read_text
from rerankd.settings.table import RENAMED, ArmSettings, ExperimentSettings, ModelSettings, Settings, fields_of
from rerankd.settings.testing import TESTING_VARIABLE
from rerankd.settings.values import Given, convert, known_rows, nearest

ENVIRONMENT_PREFIX = "RERANKD_"
_NO_SETTINGS = {"RERANKD_CPU_ISA", TESTING_VARIABLE, "RERANKD_API_KEY", "RERANKD_ADMIN_KEY"}
"""Variables that are not settings: the kernels read the first (``engine/native/cpu/library.py``), tests set the
second, commands that ask a running server read the others."""
FILE_NAME = "rerankd.toml"

_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S*:[0-9]+")
"""What Kubernetes and Docker links put into the environment for a service of this name: ``tcp://10.0.0.1:8000``."""
_HEADER = re.compile(r"\s*\[\s*(?P<path>[^\[\]]+?)\s*\]\s*(#.*)?")
_PART = re.compile(r"""\s*(?:"(?P<basic>[^"]*)"|'(?P<literal>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*(?:\.|$)""")
_KEY = re.compile(
    r"""\s*(?P<path>(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Settings:
    """Settings from all sources, the strongest last: file, environment, flags.

    Args:
        file: the settings file; None reads ``rerankd.toml`` of the working folder where there is one.
        environ: environment variables; None means the process's own.
        flags: values of command-line flags; None values count as not given.
        warn: told in a sentence of every variable that begins with ``RERANKD_`` and is not used. An environment is
            not always ours, so such a variable never keeps the server from starting.

    Raises:
        ConfigurationError: an unknown key, or a value of the wrong type; the message says where it stands.
    """
    values, models, experiments = _from_file(file)
    values |= _from_environment(os.environ if environ is None else environ, warn or (lambda _: None))
    values |= {
        name: Given(value, f"flag --{name.replace('_', '-')}")
        for name, value in (flags or {}).items()
        if value is not None
    }
    checked = {name: convert(Settings, name, given) for name, given in values.items()}
    settings = Settings(**checked, models=models, experiments=experiments)
    _check_together(settings, values)
    return settings


def _check_together(settings: Settings, values: Mapping[str, Given]) -> None:
    """A default deadline beyond the longest one would be cut without a word."""
    given = values.get("deadline_seconds")
    if given and settings.deadline_seconds > settings.max_deadline_seconds:
        raise ConfigurationError(
            f"the setting 'deadline_seconds' is {settings.deadline_seconds:g} ({given.place}), more than "
            f"'max_deadline_seconds', which is {settings.max_deadline_seconds:g}"
        )


def _from_environment(environ: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, Given]:
    """The variables that set something; an empty one, as compose files leave them, sets nothing."""
    known = known_rows(Settings)
    found = {}
    for variable in sorted(
        name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in _NO_SETTINGS
    ):
        name, value = variable[len(ENVIRONMENT_PREFIX) :].lower(), environ[variable].strip()
        if not value:
            continue
        if name not in known and name not in RENAMED:
            warn(f"the variable {variable} is not used: there is no setting {name!r}{nearest(name, known)}")
        elif type(getattr(known.get(name), "default", 0)) is not str and _SERVICE_ADDRESS.fullmatch(value):
            warn(f"the variable {variable} is not used: its value is the address of a service, not a setting")
        else:
            found[name] = Given(value, f"variable {variable}")
    return found


def _from_file(file: Path | None) -> tuple[dict[str, Given], dict[str, ModelSettings], dict[str, ExperimentSettings]]:
    path = file or Path(FILE_NAME)
    if file is None and not path.exists():
        return {}, {}, {}
    text = read_text(path)
    try:
        rows = tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"the settings file {path} is nested too deeply") from None
    except ValueError as error:
        raise ConfigurationError(f"the settings file {path} cannot be read: {error}") from None
    lines = _lines_of_keys(text)

    def place(*keys: str) -> str:
        line = lines.get(keys)
        return f"{path}, line {line}" if line else str(path)

    models = {name: _model(name, row, place) for name, row in _tables(rows, ("models",), place).items()}
    tables = _tables(rows, ("experiments",), place)
    experiments = {name: _experiment(name, row, place) for name, row in tables.items()}
    values = {name: Given(value, place(name)) for name, value in rows.items()}
    return values, models, experiments


def _tables(row: dict[str, Any], path: tuple[str, ...], place: Callable[..., str]) -> dict[str, Any]:
    """A table of tables, taken out of the row that holds it under the last name of ``path``."""
    tables = row.pop(path[-1], {})
    if not isinstance(tables, dict):
        name = ".".join(path)
        raise ConfigurationError(f"{name} has to be a table of tables, [{name}.NAME] ({place(*path)})")
    return tables


def _experiment(name: str, row: Any, place: Callable[..., str]) -> ExperimentSettings:
    path = ("experiments", name)
    _check_is_table(row, path, place)
    arms = {}
    for arm, own in _tables(row, (*path, "arms"), place).items():
        whole = (*path, "arms", arm)
        _check_is_table(own, whole, place)
        given = {key: Given(value, place(*whole, key)) for key, value in own.items()}
        arms[arm] = ArmSettings(**{key: convert(ArmSettings, key, value) for key, value in given.items()})
    given = {key: Given(value, place(*path, key)) for key, value in row.items()}
    return ExperimentSettings(
        **{key: convert(ExperimentSettings, key, value) for key, value in given.items()}, arms=arms
    )


def _check_is_table(row: Any, path: tuple[str, ...], place: Callable[..., str]) -> None:
    if not isinstance(row, dict):
        name = ".".join(path)
        raise ConfigurationError(f"{name} has to be a table, [{name}] ({place(*path)})")


def _model(name: str, row: Any, place: Callable[..., str]) -> ModelSettings:
    _check_is_table(row, ("models", name), place)
    known = fields_of(ModelSettings)
    for key, value in row.items():
        if isinstance(value, dict) and key not in known:
            whole = ".".join([name, key, *_dotted(value, known)])
            raise ConfigurationError(
                f"the name in [models.{whole}] has a dot and needs quotes: "
                f'[models."{whole}"] ({place("models", *whole.split("."))})'
            )
    values = {key: Given(value, place("models", name, key)) for key, value in row.items()}
    return ModelSettings(**{key: convert(ModelSettings, key, given) for key, given in values.items()})


def _dotted(row: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """The further parts of a name that TOML took apart at its dots."""
    parts: list[str] = []
    while len(row) == 1:
        ((key, value),) = row.items()
        if key in known or not isinstance(value, dict):
            break
        parts.append(key)
        row = value
    return parts


def _lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """The line, from 1, in which each key and each table begins. A help for messages; tomllib is who reads."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            # Inside a text of several lines nothing is a key.
            closing = "" if closing in line else closing
            continue
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            table = _parts(header["path"])
            lines.setdefault(table, number)
        elif key:
            lines.setdefault((*table, *_parts(key["path"])), number)
            closing = next((mark for mark in ('"""', "'''") if line[key.end() :].count(mark) == 1), "")
    return lines


def _parts(path: str) -> tuple[str, ...]:
    return tuple(
        next(part for part in match.group("basic", "literal", "bare") if part is not None)
        for match in _PART.finditer(path)
    )
