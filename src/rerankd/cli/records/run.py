"""Records in, scored records out, in order."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rerankd.cli.records.fields import BadRecord, Fields, Scored
from rerankd.cli.records.output import BUFFER_BYTES, FileOutput, Output, StreamOutput, delimited, written
from rerankd.cli.records.progress import Progress
from rerankd.cli.records.scorers import RecordScorer
from rerankd.cli.records.source import Format, Row, Source
from rerankd.errors import InvalidRequest
from rerankd.types import RerankRequest

_HEAD_BYTES = 64 * 1024
_NOTHING = RerankRequest("", ())


@dataclass(frozen=True, slots=True)
class Input:
    """An open file, or standard input."""

    stream: IO[bytes]
    size: int | None
    """Bytes; None for a stream."""
    identity: Mapping[str, Any] | None
    """What a file is known by when a run goes on: its size, and a hash over its beginning."""


def open_input(file: Path | None) -> Input:
    """A file, or standard input for None.

    Raises:
        InvalidRequest: it cannot be read.
    """
    if file is None:
        return Input(sys.stdin.buffer, None, None)
    try:
        stream = file.open("rb", buffering=BUFFER_BYTES)
        size = os.fstat(stream.fileno()).st_size
        if not stream.seekable():
            return Input(stream, None, None)
        head = hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()
        stream.seek(0)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    return Input(stream, size, {"bytes": size, "head": head})


def open_output(
    file: Path | None, failures: Path | None, run: Mapping[str, Any], header: str, *, fresh: bool
) -> Output:
    """Where records go: a file, or standard output for None."""
    if file is not None:
        beside = failures or file.with_name(f"{file.name}.failures.jsonl")
        return FileOutput(file, beside, run, header, fresh=fresh)
    stream = failures.open("w", encoding="utf-8") if failures else sys.stderr
    output = StreamOutput(sys.stdout, stream, as_json=failures is not None)
    sys.stdout.write(header)
    return output


def header_of(kind: Format, columns: list[str]) -> str:
    return "" if kind == "jsonl" else delimited(columns, kind)


def rank_records(
    source: Source,
    output: Output,
    scorer: RecordScorer,
    fields: Fields,
    kind: Format,
    columns: list[str],
    progress: Progress,
) -> None:
    """Score the records of ``source`` from where ``output`` stands, and write each or say why it has no score.

    Only what the scorer asks for ahead is held.
    """
    waiting: deque[tuple[Row, str]] = deque()

    def requests() -> Iterator[RerankRequest]:
        for row in source.rows(output.position.place, output.position.line):
            request, problem = _NOTHING, row.problem
            if not problem:
                try:
                    request = fields.request(row.record)
                except BadRecord as error:
                    problem = str(error)
            waiting.append((row, problem))
            yield request

    # A record that cannot be scored travels as a request without documents, so that the order stays.
    for scored in scorer.score(requests()):
        row, problem = waiting.popleft()
        _put(row, problem or _write(row, scored, output, fields, kind, columns), output)
        output.advance(row.place, row.next_line)
        progress.advance(row.place, output.position.failed)


def _write(row: Row, scored: Scored, output: Output, fields: Fields, kind: Format, columns: list[str]) -> str:
    """Write a record and report its documents without scores; or else why it cannot be written."""
    is_list = fields.is_list(row.record)
    for index, message in scored.errors.items():
        output.fail(row.line, message, index if is_list else None)
    answer = fields.answer(row.record, scored)
    if answer is None:
        return ""
    try:
        output.write(written(answer, kind, columns))
    except ValueError as error:
        return str(error)
    return ""


def _put(row: Row, problem: str, output: Output) -> None:
    if problem:
        output.fail(row.line, problem)
