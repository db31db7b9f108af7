"""Records of a file of any size, in order, one at a time, each with the place at which to go on behind it.

A record that cannot be read does not end the file: it is a :class:`Row` with a problem. Memory is bounded by the
longest record that is read.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias

from rerankd.errors import ConfigurationError, InvalidRequest

Format: TypeAlias = Literal["jsonl", "csv", "tsv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "tsv", "parquet")

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"
}  # fmt: skip
_PARQUET_ROWS = 256
_SKIPPED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    Attributes:
        line: the line at which it begins, from 1; in Parquet the row.
        place: where the next one begins, for :meth:`Source.rows`: a byte offset, in Parquet a number of rows.
        next_line: the line of that place.
        record: its values by name; empty where it could not be read.
        problem: why not.
    """

    line: int
    place: int
    next_line: int
    record: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Source(Protocol):
    """A file of records."""

    @property
    def columns(self) -> list[str] | None:
        """The names of all values, in order, where the format fixes them."""
        ...

    @property
    def size(self) -> int | None:
        """The place of its end; None for a stream."""
        ...

    def rows(self, place: int = 0, line: int = 1) -> Iterator[Row]:
        """The records from a place on that an earlier row had, and its ``next_line``."""
        ...

    def close(self) -> None: ...


def format_of(file: Path | None) -> Format:
    """The format that a file's name says; JSONL for a stream.

    Raises:
        InvalidRequest: it says none.
    """
    if file is None:
        return "jsonl"
    found = _ENDINGS.get(file.suffix.lower())
    if found is None:
        raise InvalidRequest(f"{file}: the name does not end in {', '.join(_ENDINGS)}; name the format with --format")
    return found


def open_source(stream: IO[bytes], kind: Format, *, size: int | None, limit: int) -> Source:
    """Read records from a stream.

    Args:
        size: bytes of the whole stream; None where it has no known end.
        limit: bytes of the longest record that is read.

    Raises:
        ConfigurationError: Parquet is asked for and pyarrow is not installed.
        InvalidRequest: the file has no header, or is no Parquet.
    """
    if kind == "jsonl":
        return JsonLines(stream, size, limit)
    try:
        return Parquet(stream) if kind == "parquet" else Delimited(stream, size, limit, is_tsv=kind == "tsv")
    except BaseException:
        stream.close()
        raise


class _Lines:
    """Lines of a stream as bytes, with the offset behind the last one; longer ones than ``limit`` are skipped."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.place = 0
        self.line = 1

    def seek(self, place: int, line: int) -> None:
        if place != self.place:
            self._stream.seek(place)
        self.place, self.line = place, line

    def next(self) -> bytes:
        """The next line, empty at the end.

        Raises:
            ValueError: it is longer than the limit.
        """
        text = self._stream.readline(self._limit + 1)
        is_long = len(text) > self._limit and not text.endswith(b"\n")
        self.place += len(text)
        while is_long and text and not text.endswith(b"\n"):
            text = self._stream.readline(_SKIPPED_BYTES)
            self.place += len(text)
        self.line += 1
        if is_long:
            raise ValueError(f"it has more than {self._limit} bytes (--max-request-characters)")
        return text.removeprefix(b"\xef\xbb\xbf") if self.line == 2 else text


class JsonLines:
    """One JSON object a line; blank lines are skipped."""

    columns: list[str] | None = None

    def __init__(self, stream: IO[bytes], size: int | None, limit: int) -> None:
        self.size = size
        self._stream = stream
        self._lines = _Lines(stream, limit)

    def rows(self, place: int = 0, line: int = 1) -> Iterator[Row]:
        lines = self._lines
        lines.seek(place, line)
        while True:
            line = lines.line
            try:
                text = lines.next()
                if not text:
                    return
                if text.isspace():
                    continue
                record = json.loads(text)
                if not isinstance(record, dict):
                    raise ValueError("it is not a JSON object")
            except UnicodeDecodeError:
                yield Row(line, lines.place, lines.line, problem="it is not UTF-8 text")
            except json.JSONDecodeError as error:
                problem = f"it is not JSON: {error.msg} at letter {error.pos + 1}"
                yield Row(line, lines.place, lines.line, problem=problem)
            except RecursionError:
                yield Row(line, lines.place, lines.line, problem="it is JSON nested too deeply")
            except ValueError as error:
                yield Row(line, lines.place, lines.line, problem=str(error))
            else:
                yield Row(line, lines.place, lines.line, record)

    def close(self) -> None:
        self._stream.close()


class Delimited:
    """A header, then one record a row. CSV has quotes, TSV has none: its cells are as they stand."""

    columns: list[str]

    def __init__(self, stream: IO[bytes], size: int | None, limit: int, *, is_tsv: bool) -> None:
        self.size = size
        self._stream = stream
        self._lines = _Lines(stream, limit)
        self._limit = limit
        self._began = 0
        csv.field_size_limit(limit)
        self._cells = csv.reader(self, delimiter="\t", quoting=csv.QUOTE_NONE) if is_tsv else csv.reader(self)
        try:
            self.columns = next(self._cells, [])
        except (ValueError, csv.Error) as error:
            raise InvalidRequest(f"the first line of the input is no header: {error}") from None
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise InvalidRequest("the first line has to be a header with a different name for each column")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The reader's next line; a quote that is never closed ends at the limit."""
        text = self._lines.next()
        if not text:
            raise StopIteration
        if self._lines.place - self._began > self._limit:
            reason = f"it has more than {self._limit} bytes: is a quote not closed?"
            raise ValueError(f"{reason} (--max-request-characters)")
        return text.decode()

    def rows(self, place: int = 0, line: int = 1) -> Iterator[Row]:
        lines = self._lines
        if place:
            lines.seek(place, line)
        while True:
            line, self._began = lines.line, lines.place
            try:
                cells = next(self._cells, None)
                if cells is None:
                    return
                if not cells:
                    continue
                if len(cells) != len(self.columns):
                    raise ValueError(f"it has {len(cells)} cells, and the header has {len(self.columns)}")
            except UnicodeDecodeError:
                yield Row(line, lines.place, lines.line, problem="it is not UTF-8 text")
            except (ValueError, csv.Error) as error:
                yield Row(line, lines.place, lines.line, problem=str(error))
            else:
                yield Row(line, lines.place, lines.line, dict(zip(self.columns, cells, strict=True)))

    def close(self) -> None:
        self._stream.close()


class Parquet:
    """Rows of a Parquet file, read a row group at a time."""

    columns: list[str]

    def __init__(self, stream: IO[bytes]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError:
            raise ConfigurationError("Parquet needs pyarrow: pip install 'rerankd[parquet]'") from None
        if not stream.seekable():
            raise InvalidRequest("a Parquet file is read from its end: give it by name, not through a pipe")
        try:
            self._file: Any = parquet.ParquetFile(stream)
        except pyarrow.ArrowInvalid:
            raise InvalidRequest("the input is not a Parquet file") from None
        self._stream = stream
        self.columns = self._file.schema_arrow.names
        self.size = self._file.metadata.num_rows

    def rows(self, place: int = 0, line: int = 1) -> Iterator[Row]:
        metadata = self._file.metadata
        first = before = 0
        while first < metadata.num_row_groups and before + metadata.row_group(first).num_rows <= place:
            before += metadata.row_group(first).num_rows
            first += 1
        groups = list(range(first, metadata.num_row_groups))
        number = before
        for batch in self._file.iter_batches(batch_size=_PARQUET_ROWS, row_groups=groups, use_threads=False):
            for record in batch.to_pylist():
                number += 1
                if number > place:
                    yield Row(number, number, number + 1, record)

    def close(self) -> None:
        self._file.close()
        self._stream.close()
