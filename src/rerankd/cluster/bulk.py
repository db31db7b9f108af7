"""``rerankd rank --ray INPUT OUTPUT``: pairs of Parquet files scored by Ray Data, resumed by output part.

The input is cut into parts of so many rows, by file and row; part 17 of the input is ``part-000017.parquet`` of the
output. A part is written under another name and renamed when it is whole, so it is there once or not at all: a run
that was killed scores the parts that are not there, and a task that Ray tries again writes the same file. Rows
without a score are in ``failures/part-000017.jsonl``, each with its place and the reason, written before its part.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError, InvalidRequest
from rerankd.local_models import instruction_of, load_named
from rerankd.reranker import Reranker
from rerankd.settings import Settings
from rerankd.types import RerankRequest, Timings

_RUN = "run.json"
_FAILURES = "failures"
_MOST_DOCUMENTS = 64
"""Rows with one query, side by side, that are asked together."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns of a pair, and the one that takes its score."""

    query: str = "query"
    document: str = "document"
    score: str = "score"


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of one input file.

    Attributes:
        number: its place in the whole, from 0.
        first: index of its first row in the file.
    """

    number: int
    file: str
    first: int
    rows: int

    @property
    def name(self) -> str:
        return f"part-{self.number:06}"


@dataclass(slots=True)
class Tally:
    """How far a run is."""

    rows: int
    """Of the whole input."""
    done: int = 0
    failed: int = 0
    scored: int = 0
    """Rows of this run, not of those before it."""
    started: float = 0.0

    def take(self, rows: int, failed: int) -> None:
        self.done += rows
        self.scored += rows
        self.failed += failed

    def line(self) -> str:
        """``61 %, 12,345 of 20,000 rows, 1,234/s, 0:05:12 left, 3 failed``."""
        rate = self.scored / max(time.monotonic() - self.started, 1e-9)
        minutes, seconds = divmod(round((self.rows - self.done) / rate) if rate else 0, 60)
        hours, minutes = divmod(minutes, 60)
        share = 100 * self.done // max(self.rows, 1)
        parts = [f"{share} %", f"{self.done:,} of {self.rows:,} rows", f"{rate:,.0f}/s"]
        parts.append(f"{hours}:{minutes:02}:{seconds:02} left")
        return ", ".join([*parts, *([f"{self.failed:,} failed"] if self.failed else [])])


def rank_files(
    source: Path,
    output: Path,
    settings: Settings,
    fields: Fields,
    say: Callable[[str], None],
    *,
    instruction: str | None = None,
    part_rows: int = 10_000,
    fresh: bool = False,
) -> Tally:
    """Score the pairs of a Parquet file, or of all in a folder, into a folder of as many rows.

    Args:
        say: told how far it is, after each part.
        part_rows: rows of a part; what a kill can cost, for each scorer.
        fresh: write over an output of another run.

    Raises:
        InvalidRequest: the input cannot be read, or the output is of another run.
        ConfigurationError: Ray is not installed, or the model cannot be loaded.
    """
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigurationError("rank --ray needs: pip install 'rerankd[ray]'") from error
    output = output.resolve()  # a scorer has a working folder of its own
    parts = list(parts_of(source, fields, part_rows))
    run = {
        "input": [asdict(part) for part in parts],
        "fields": asdict(fields),
        "model": settings.model,
        "instruction": instruction,
    }
    open_output(output, run, fresh=fresh)
    missing = [part for part in parts if not (output / f"{part.name}.parquet").exists()]
    tally = Tally(sum(part.rows for part in parts), started=time.monotonic())
    tally.done = tally.rows - sum(part.rows for part in missing)
    if not missing:
        return tally
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level="ERROR")
    # What it prints are bars of its own.
    ray.data.DataContext.get_current().enable_progress_bars = False
    scored = ray.data.from_items([asdict(part) for part in missing], override_num_blocks=len(missing)).map_batches(
        PartScorer,
        fn_constructor_args=(settings, str(output), fields, instruction),
        batch_size=1,
        concurrency=(settings.ray_min_replicas, max(settings.ray_min_replicas, settings.ray_max_replicas)),
        num_cpus=settings.ray_replica_cpus,
        num_gpus=settings.ray_replica_gpus or None,
        max_restarts=-1,
        max_task_retries=3,
    )
    for batch in scored.iter_batches(batch_size=1):
        tally.take(int(batch["rows"][0]), int(batch["failed"][0]))
        say(tally.line())
    return tally


def parts_of(source: Path, fields: Fields, part_rows: int) -> Iterator[Part]:
    """The input in parts, in the order of its files' names.

    Raises:
        InvalidRequest: there is no Parquet file, or one has no such column.
    """
    import pyarrow
    import pyarrow.parquet

    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise InvalidRequest(f"there is no *.parquet in {source}")
    number = 0
    for file in files:
        try:
            found = pyarrow.parquet.ParquetFile(file)
        except (OSError, pyarrow.ArrowException) as error:
            raise InvalidRequest(f"{file} cannot be read as Parquet: {error}") from None
        for flag, name in (("--query-field", fields.query), ("--document-field", fields.document)):
            if name not in found.schema_arrow.names:
                known = ", ".join(found.schema_arrow.names)
                raise InvalidRequest(f"{file} has no column {name!r}; it has {known} ({flag})")
        for first in range(0, found.metadata.num_rows, part_rows):
            rows = min(part_rows, found.metadata.num_rows - first)
            yield Part(number, str(file.resolve()), first, rows)
            number += 1


def open_output(output: Path, run: dict[str, Any], *, fresh: bool) -> None:
    """Make the folder, or see that it is of this very run.

    Raises:
        InvalidRequest: another run has written there.
    """
    digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    note = output / _RUN
    is_ours = note.exists()
    if is_ours and not fresh:
        if json.loads(note.read_text(encoding="utf-8"))["digest"] != digest:
            raise InvalidRequest(f"{output} has the output of another input or model; --fresh writes over it")
        return
    if not is_ours and output.exists() and any(output.iterdir()):
        raise InvalidRequest(f"{output} is not empty, and no run of rank --ray has made it")
    for file in [*output.glob("part-*.parquet"), *(output / _FAILURES).glob("part-*.jsonl")]:
        file.unlink()
    (output / _FAILURES).mkdir(parents=True, exist_ok=True)
    _write_whole(note, json.dumps({"digest": digest, **{name: run[name] for name in ("fields", "model")}}).encode())


class PartScorer:
    """An actor with a model; Ray Data gives it one part after another."""

    def __init__(self, settings: Settings, output: str, fields: Fields, instruction: str | None) -> None:
        self._output = Path(output)
        self._fields = fields
        self._instruction = instruction or instruction_of(settings.model, settings)
        self._reranker: Reranker = load_named(settings.model, settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """A batch of one part -> its rows, and how many of them have no score."""
        number, file, first, rows = (batch[name][0] for name in ("number", "file", "first", "rows"))
        part = Part(int(number), str(file), int(first), int(rows))
        return {"rows": [part.rows], "failed": [self.score(part)]}

    def score(self, part: Part) -> int:
        """Score a part and write it, its failures first; returns how many rows have no score."""
        import pyarrow
        import pyarrow.parquet

        table = rows_of(part)
        queries = table.column(self._fields.query).to_pylist()
        documents = table.column(self._fields.document).to_pylist()
        scores, failures = self._scores(queries, documents)
        kept = [index for index, score in enumerate(scores) if score is not None]
        name = self._fields.score
        table = (table.drop_columns([name]) if name in table.column_names else table).take(kept)
        table = table.append_column(name, pyarrow.array([scores[index] for index in kept], pyarrow.float64()))
        lines = [
            json.dumps({"file": part.file, "row": part.first + index, "error": reason})
            for index, reason in sorted(failures.items())
        ]
        beside = self._output / _FAILURES / f"{part.name}.jsonl"
        if lines:
            _write_whole(beside, ("\n".join(lines) + "\n").encode())
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        _write_whole(self._output / f"{part.name}.parquet", sink.getvalue())
        return len(lines)

    def _scores(self, queries: Sequence[Any], documents: Sequence[Any]) -> tuple[list[float | None], dict[int, str]]:
        scores: list[float | None] = [None] * len(queries)
        failures: dict[int, str] = {}
        for name, values in ((self._fields.query, queries), (self._fields.document, documents)):
            for index, value in enumerate(values):
                if not isinstance(value, str):
                    failures[index] = f"the field {name!r} holds no text"
        failures |= {
            index: f"the field {self._fields.query!r} is blank"
            for index, query in enumerate(queries)
            if isinstance(query, str) and not query.strip()
        }
        groups = list(_alike(queries, [index for index in range(len(queries)) if index not in failures]))
        requests = [
            RerankRequest(
                queries[group[0]], tuple(documents[index] for index in group), instruction=self._instruction
            )
            for group in groups
        ]
        for group, request, found in zip(groups, requests, self._reranker.score_many(requests), strict=True):
            result = self._reranker.result_of(request, found, Timings())
            for index, score in zip(group, result.scores, strict=True):
                scores[index] = score.score
                if score.error is not None:
                    failures[index] = score.error.message
        return scores, failures


def rows_of(part: Part) -> Any:
    """The rows of a part as a ``pyarrow.Table``; row groups that have none of them are not read."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(part.file)
    end, at, groups, skipped = part.first + part.rows, 0, [], 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if at + rows <= part.first:
            skipped += rows
        elif at < end:
            groups.append(group)
        at += rows
    return file.read_row_groups(groups).slice(part.first - skipped, part.rows)


def _alike(queries: Sequence[str], places: Sequence[int]) -> Iterator[list[int]]:
    """Rows that stand side by side and have one query."""
    group: list[int] = []
    for place in places:
        if group and (queries[place] != queries[group[0]] or len(group) == _MOST_DOCUMENTS):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _write_whole(file: Path, data: Any) -> None:
    """All of it under its name, or nothing."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    beside.replace(file)
