"""What was written and what failed, and a checkpoint of both that survives a kill.

Beside the output stand ``OUTPUT.failures.jsonl``, where something failed, and while a run is not over
``OUTPUT.checkpoint.json``. A checkpoint is written after the bytes that it counts are on the disk, so what a killed
run had written behind its last checkpoint, torn lines too, is cut off and scored again: nothing is missing and
nothing is there twice.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from rerankd.cli.records.fields import RESULTS
from rerankd.cli.records.source import Format
from rerankd.errors import InvalidRequest
from rerankd.files import UnreadableFile, read_json_object
from rerankd.printable import printable

_SECONDS_BETWEEN_CHECKPOINTS = 1.0
BUFFER_BYTES = 1 << 20
"""Each read or write gives up the GIL, and gets it back when the thread that makes prompts is done with its turn."""
_TSV_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(slots=True)
class Position:
    """How far a run is.

    Attributes:
        place, line: where the input's next record begins.
        written, failed: records so far.
        output_bytes, failures_bytes: what the two files then had.
    """

    place: int = 0
    line: int = 1
    written: int = 0
    failed: int = 0
    output_bytes: int = 0
    failures_bytes: int = 0


class Output(Protocol):
    """Takes records and failures in input order."""

    position: Position

    def write(self, text: str) -> None: ...

    def fail(self, line: int, reason: str, document: int | None = None) -> None: ...

    def advance(self, place: int, line: int) -> None:
        """Everything up to this place of the input is written or has failed."""
        ...

    def close(self, *, complete: bool) -> None: ...


class StreamOutput:
    """Standard output; failures go to a file if one is named, else to standard error. Nothing can be resumed."""

    def __init__(self, stream: IO[str], failures: IO[str], *, as_json: bool) -> None:
        self.position = Position()
        self._stream = stream
        self._failures = failures
        self._as_json = as_json

    def write(self, text: str) -> None:
        self._stream.write(text)
        self.position.written += 1

    def fail(self, line: int, reason: str, document: int | None = None) -> None:
        place = f"line {line}" + ("" if document is None else f", document {document}")
        self._failures.write(
            _failure(line, reason, document) if self._as_json else printable(f"{place}: {reason}") + "\n"
        )
        self.position.failed += 1

    def advance(self, place: int, line: int) -> None:
        self.position.place, self.position.line = place, line

    def close(self, *, complete: bool) -> None:
        self._stream.flush()
        self._failures.flush()


class FileOutput:
    """A file that a later run can go on with.

    Args:
        run: what makes two runs the same: input, fields, model; a checkpoint of another run is not gone on with.
        header: the first line of the file, empty for none.
        fresh: forget what an earlier run wrote.

    Raises:
        InvalidRequest: the output is there and not from an unfinished run like this one.
    """

    def __init__(self, output: Path, failures: Path, run: Mapping[str, Any], header: str, *, fresh: bool) -> None:
        self._checkpoint = output.with_name(f"{output.name}.checkpoint.json")
        self._failures_file = failures
        self._run = dict(run)
        self.position = Position() if fresh else self._resume(output)
        self.is_resumed = self.position.place > 0
        try:
            self._output = _opened(output, self.position.output_bytes)
            self._failures = _opened(failures, self.position.failures_bytes)
        except OSError as error:
            raise InvalidRequest(f"{error.filename} cannot be written: {error.strerror}") from None
        if not self.position.output_bytes:
            self._output.write(header.encode())
        self._save()

    def _resume(self, output: Path) -> Position:
        if not self._checkpoint.exists():
            if output.exists() and output.stat().st_size:
                raise InvalidRequest(f"{output} is there already; name another file, or --fresh to write over it")
            return Position()
        try:
            saved = read_json_object(self._checkpoint)
            position = Position(**{name: int(value) for name, value in saved["position"].items()})
            before = dict(saved["run"])
        except (UnreadableFile, KeyError, TypeError, ValueError, AttributeError):
            raise InvalidRequest(f"{self._checkpoint} is damaged; --fresh begins again") from None
        different = [name for name in self._run if before.get(name) != self._run[name]]
        if different:
            raise InvalidRequest(
                f"{output} is the unfinished output of a run with another {different[0]}; finish that one, name "
                "another file, or --fresh to write over it"
            )
        if _size(output) < position.output_bytes or _size(self._failures_file) < position.failures_bytes:
            raise InvalidRequest(f"{output} is shorter than its checkpoint says; --fresh begins again")
        return position

    def write(self, text: str) -> None:
        self._output.write(text.encode("utf-8", "replace"))
        self.position.written += 1

    def fail(self, line: int, reason: str, document: int | None = None) -> None:
        self._failures.write(_failure(line, reason, document).encode("utf-8", "replace"))
        self.position.failed += 1

    def advance(self, place: int, line: int) -> None:
        self.position.place, self.position.line = place, line
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_CHECKPOINTS:
            self._save()

    def _save(self) -> None:
        for file in (self._output, self._failures):
            file.flush()
            os.fsync(file.fileno())
        self.position.output_bytes = self._output.tell()
        self.position.failures_bytes = self._failures.tell()
        beside = self._checkpoint.with_suffix(".new")
        beside.write_text(json.dumps({"run": self._run, "position": asdict(self.position)}), encoding="utf-8")
        os.replace(beside, self._checkpoint)
        self._saved = time.monotonic()

    def close(self, *, complete: bool) -> None:
        """Complete: the checkpoint goes, and the file of failures where there are none."""
        self._save()
        self._output.close()
        self._failures.close()
        if complete:
            if not self.position.failed:
                self._failures_file.unlink()
            self._checkpoint.unlink()


def _opened(file: Path, size: int) -> IO[bytes]:
    stream = file.open("r+b" if file.exists() else "w+b", buffering=BUFFER_BYTES)
    stream.truncate(size)
    stream.seek(size)
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"another run writes {file} at this moment") from None
    return stream


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _failure(line: int, reason: str, document: int | None) -> str:
    where = {"line": line} | ({} if document is None else {"document": document})
    return json.dumps({**where, "reason": reason}, ensure_ascii=False) + "\n"


def written(record: Mapping[str, Any], kind: Format, columns: Sequence[str]) -> str:
    """A record as a line of the output.

    Raises:
        ValueError: it does not fit the format.
    """
    if kind == "jsonl":
        text = json.dumps(record, ensure_ascii=False, default=str)
        return (text if _is_text(text) else json.dumps(record, default=str)) + "\n"
    if RESULTS in record and RESULTS not in columns:
        raise ValueError("a query with a list of documents is written as JSONL only")
    return delimited([record.get(name) for name in columns], kind)


def delimited(cells: Sequence[Any], kind: Format) -> str:
    """Cells as a row of CSV or TSV. TSV has no quotes: tabs and line ends in a cell become ``\\t`` and ``\\n``."""
    if kind == "tsv":
        return "\t".join("" if cell is None else str(cell).translate(_TSV_ESCAPES) for cell in cells) + "\n"
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(cells)
    return row.getvalue()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
