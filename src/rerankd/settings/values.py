"""One raw value, from a flag, a variable or a file, made into what its row of the table asks for."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rerankd.errors import ConfigurationError
from rerankd.settings.table import RENAMED, Settings, Table, fields_of
from rerankd.settings.testing import is_testing

_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given, with the place where a person finds it: a variable, a file and line, a flag."""

    value: Any
    place: str


def convert(table: Table, name: str, given: Given) -> Any:
    """The value of a row, checked.

    Raises:
        ConfigurationError: there is no such setting, or the value is not of its type or beyond its bounds; the
            message names the setting, the value unless it is secret, what is allowed, and where the value came from.
    """
    row = _row(table, name, given.place)
    kind = type(row.default)
    try:
        value = _CONVERTERS[kind](given.value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(row, given, f"has to be {_KINDS[kind]}") from None
    if row.metadata["choices"]:
        return _chosen(row, value, given)
    if kind in (int, float):
        _check_bounds(row, value, given)
    return value


def known_rows(table: Table) -> dict[str, dataclasses.Field[Any]]:
    """The rows that may be set here: a test may set all."""
    return {name: row for name, row in fields_of(table).items() if is_testing() or not row.metadata["tests_only"]}


def _row(table: Table, name: str, place: str) -> dataclasses.Field[Any]:
    rows = known_rows(table)
    if name in rows:
        return rows[name]
    if name in RENAMED:
        unit = ", in seconds instead of milliseconds" if name.endswith("_ms") else ""
        raise ConfigurationError(f"the setting {name!r} is now {RENAMED[name]!r}{unit} ({place})")
    raise ConfigurationError(f"there is no setting {name!r}{_hint(table, name)} ({place})")


def _hint(table: Table, name: str) -> str:
    if table is not Settings and name in known_rows(Settings):
        return " of a served name or an experiment: it belongs above the first [table]"
    return nearest(name, known_rows(table))


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """``; did you mean 'port'?``, or nothing where no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _chosen(row: dataclasses.Field[Any], value: str, given: Given) -> str:
    word = value.strip().lower()
    word = _ALIASES.get(word, word)
    choices = row.metadata["choices"]
    if word not in choices and not (is_testing() and word in row.metadata["test_choices"]):
        raise _wrong(row, given, f"has to be one of {', '.join(choice for choice in choices if choice)}")
    return word


def _check_bounds(row: dataclasses.Field[Any], value: float, given: Given) -> None:
    facts = row.metadata
    least, most = facts["least"], facts["most"]
    if not (least <= value <= most) or (facts["positive"] and value <= 0):
        lower = "more than 0" if facts["positive"] else f"{least:g} or more"
        raise _wrong(row, given, f"has to be {lower} and at most {_number_text(most)}")


def _number_text(number: float) -> str:
    return f"{number:g}" if number < 1_000_000 and number != int(number) else f"{int(number)}"


def _wrong(row: dataclasses.Field[Any], given: Given, rule: str) -> ConfigurationError:
    shown = "" if row.metadata["secret"] else f" is {_shortened(given.value)} and"
    return ConfigurationError(f"the setting {row.name!r}{shown} {rule} ({given.place})")


def _shortened(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

_ALIASES: Mapping[str, str] = types.MappingProxyType(
    {
        "bf16": "bfloat16",
        "fp16": "float16",
        "f16": "float16",
        "half": "float16",
        "fp32": "float32",
        "f32": "float32",
        "float": "float32",
        "warn": "warning",
    }
)
"""What other servers call the same choices."""


def _boolean(value: Any) -> bool:
    word = str(value).strip().lower()
    return _BOOLEANS[word] if word in _BOOLEANS else _refuse(value)


def _refuse(value: Any) -> typing.NoReturn:
    raise ValueError(type(value).__name__)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _refuse(value)


def _integer(value: Any) -> int:
    return _refuse(value) if isinstance(value, bool | float) else int(value)


def _number(value: Any) -> float:
    number = math.nan if isinstance(value, bool) else float(value)
    return number if math.isfinite(number) else _refuse(value)


_CONVERTERS: Mapping[type, Callable[[Any], Any]] = types.MappingProxyType(
    {str: _text, int: _integer, float: _number, bool: _boolean}
)
_KINDS: Mapping[type, str] = types.MappingProxyType(
    {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}
)
