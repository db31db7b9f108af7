"""Rows of text files, strictly: what cannot be read is an error with file and line, what is repaired is counted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.notes import Notes
from rerankd.files import require_regular

_MAX_LINE = 64 * 1024 * 1024
_SHOWN_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, for messages and notes."""

    file: Path
    line: int
    notes: Notes

    def wrong(self, reason: str) -> EvaluationError:
        return EvaluationError(f"{self.file}:{self.line}: {reason}")

    def repaired(self, what: str) -> None:
        self.notes.add(what, self.file, self.line)


def lines(file: Path, notes: Notes) -> Iterator[tuple[Place, str]]:
    """The lines that are not blank, without their ends; a byte order mark at the beginning is no part of the first.

    Raises:
        EvaluationError: the file is missing, no regular file, or not UTF-8 text.
    """
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig") as stream:
            number = 0
            while line := stream.readline(_MAX_LINE):
                number += 1
                place = Place(file, number, notes)
                if len(line) == _MAX_LINE:
                    raise place.wrong(f"a line of {_MAX_LINE} characters or more")
                if line.strip():
                    yield place, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from None
    except ConfigurationError as error:
        raise EvaluationError(f"{error.message}{_what_is_there(file)}") from None


def _what_is_there(file: Path) -> str:
    if file.exists() or not file.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in file.parent.iterdir())[:10]
    return f"; its folder holds {', '.join(names) or 'nothing'}"


def table(file: Path, columns: Sequence[str], notes: Notes) -> Iterator[tuple[Place, Mapping[str, str]]]:
    """The rows of a tab-separated file by the names of its first line. Quotes are letters like any other.

    Raises:
        EvaluationError: a column is missing from the first line, or from a row.
    """
    names: list[str] | None = None
    for place, text in lines(file, notes):
        cells = [_stripped(cell, place) for cell in text.split("\t")]
        if names is None:
            names = cells
            missing = [column for column in columns if column not in names]
            if missing:
                raise EvaluationError(f"{file}: the first line has no column {missing[0]!r}")
            continue
        row = dict(zip(names, cells, strict=False))
        if any(column not in row for column in columns):
            raise place.wrong("fewer columns than in the first line")
        yield place, row
    if names is None:
        raise EvaluationError(f"{file} is empty; its first line has to name the columns {', '.join(columns)}")


def columns(file: Path, count: int, notes: Notes) -> Iterator[tuple[Place, list[str]]]:
    """The rows of a TREC file: ``count`` columns between blanks."""
    for place, text in lines(file, notes):
        cells = text.split()
        if len(cells) != count:
            raise place.wrong(f"{len(cells)} columns where a TREC file has {count}")
        yield place, cells


def objects(file: Path, notes: Notes) -> Iterator[tuple[Place, str, str, dict[str, Any]]]:
    """The objects of a JSON lines file: place, id, text, and the object itself.

    Raises:
        EvaluationError: a line is no object with an ``_id`` and a ``text``, or an id stands there twice.
    """
    seen: set[str] = set()
    for place, line in lines(file, notes):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        key = _id(row.get("_id"), place) if isinstance(row, dict) else None
        if not isinstance(row, dict) or key is None or not isinstance(row.get("text"), str):
            raise place.wrong('not an object with the texts "_id" and "text"')
        if key in seen:
            raise place.wrong("this _id stands in the file twice")
        seen.add(key)
        yield place, key, row["text"], row


def _id(value: Any, place: Place) -> str | None:
    if isinstance(value, str):
        return _stripped(value, place)
    if isinstance(value, int) and not isinstance(value, bool):
        place.repaired("_id that is a number, read as text")
        return str(value)
    return None


def _stripped(text: str, place: Place) -> str:
    bare = text.strip()
    if bare != text:
        place.repaired("blanks around an id or number, removed")
    return bare


def grade(text: str, place: Place) -> int:
    """A judgement: a whole number, also where pandas wrote it as ``1.0``."""
    number = score(text, place)
    if number != int(number):
        raise place.wrong(f"{text[:_SHOWN_CHARACTERS]!r} is not a whole number, as a grade has to be")
    if not text.lstrip("+-").isdecimal():
        place.repaired("grade such as 1.0, read as 1")
    return int(number)


def score(text: str, place: Place) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        raise place.wrong(f"{text[:_SHOWN_CHARACTERS]!r} is not a number") from None
    if not math.isfinite(number):
        raise place.wrong(f"{text[:_SHOWN_CHARACTERS]!r} is not a finite number")
    return number
