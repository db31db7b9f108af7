"""Answers of experiments, what users did with them, and what an operator asked for, in SQLite or PostgreSQL.

One thread writes. What it is told is committed in groups, and feedback is acknowledged when it is on the disk.
Several processes may share the database. No texts are kept, and no keys: units are digests, but for the keys that an
operator pins.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog

from rerankd.errors import InvalidRequest, NotFound, Overloaded, ServiceError
from rerankd.experiments.assignment import Controls
from rerankd.experiments.database import Database, open_database

MAX_RANKED = 100
"""Documents of an answer that are kept: nobody clicks further down."""
MAX_CLICKS = 1000
"""Documents that one call of feedback may name."""
_MAX_WAITING = 10_000
"""Answers and feedback that wait for the disk; behind them answers are left out, and feedback is refused."""
_GROUP = 500
_LOOK_SECONDS = 1.0
_PURGE_SECONDS = 3600.0
_DAY = 86_400.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of an experiment, as it is kept.

    Attributes:
        caller: whose answer it is, where callers have keys: nobody else may say what was clicked.
        unit: digest of the key that it was assigned by.
        seconds: that the answer took.
        score: of the first document.
        ranked: indices of the documents, best first, at most ``MAX_RANKED``.
        teams: the arm that each of them came from, where two were interleaved.
    """

    answer_id: str
    request_id: str
    caller: str
    experiment: str
    arm: str
    unit: str
    pinned: bool
    seconds: float
    documents: int
    score: float | None
    ranked: Sequence[int]
    teams: Sequence[str] | None = None
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a shadow arm would have ordered what a live arm ordered."""

    experiment: str
    arm: str
    live: str
    tau: float
    same_first: bool
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user did with an answer: indices of documents, as the answer has them."""

    request_id: str
    caller: str
    clicked: Sequence[int] = ()
    used: Sequence[int] = ()
    at: float = field(default_factory=time.time)


Work: TypeAlias = Callable[[Database], Any]


class FeedbackStore:
    """The writer and its database.

    Args:
        target: of :func:`~rerankd.experiments.database.open_database`.
        keep_days: answers and what belongs to them are deleted after so many days.
        on_controls: told, on the writer's thread, of the controls of all experiments when they changed.

    Raises:
        ConfigurationError: the database cannot be opened or is not such a store.
    """

    def __init__(
        self,
        target: str,
        keep_days: float = 90.0,
        on_controls: Callable[[Mapping[str, Controls]], None] = lambda controls: None,
    ) -> None:
        self._keep_seconds = keep_days * _DAY
        self._on_controls = on_controls
        self._work: queue.Queue[tuple[Work, Future[Any] | None] | None] = queue.Queue(_MAX_WAITING)
        self._controls_seen = "[]"
        self._is_ending = False
        self._purge_after = 0.0
        database = open_database(target)
        self._look_at_controls(database)
        self._thread = threading.Thread(target=self._run, args=(database,), name="rerankd-feedback", daemon=True)
        self._thread.start()

    def add(self, row: Answer | Agreement) -> bool:
        """Keep it when the disk has time; False where too much waits and it is left out."""
        insert = _insert_answer if isinstance(row, Answer) else _insert_agreement
        try:
            self._work.put_nowait((lambda database: insert(database, row), None))
        except queue.Full:
            return False
        return True

    async def give(self, feedback: Feedback) -> None:
        """Keep feedback; when this returns it is on the disk.

        Raises:
            NotFound: there is no such answer of this caller.
            InvalidRequest: a document is not among those of the answer.
            Overloaded: too much waits for the disk.
        """
        await self._do(lambda database: _insert_feedback(database, feedback))

    async def control(self, experiment: str, controls: Controls) -> None:
        """Keep an operator's wish, for all processes that share the file and for the next start."""
        state = json.dumps({"traffic": controls.traffic, "stopped": controls.stopped, "pins": dict(controls.pins)})
        sql = "INSERT INTO controls VALUES (?, ?) ON CONFLICT (experiment) DO UPDATE SET state = excluded.state"
        await self._do(lambda database: database.execute(sql, (experiment, state)))

    async def _do(self, work: Work) -> None:
        done: Future[Any] = Future()
        try:
            self._work.put_nowait((work, done))
        except queue.Full:
            raise Overloaded("too much feedback waits for the disk", retry_after=1) from None
        await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Write what waits, and end."""
        await asyncio.to_thread(self._work.put, None)
        await asyncio.to_thread(self._thread.join)

    def _run(self, database: Database) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._commit(database, group)
                self._look_at_controls(database)
                self._purge(database)
        finally:
            database.close()

    def _next_group(self) -> list[tuple[Work, Future[Any] | None]] | None:
        """What waits, empty when nothing came for a while; None at the end."""
        if self._is_ending:
            return None
        group: list[tuple[Work, Future[Any] | None]] = []
        try:
            first = self._work.get(timeout=_LOOK_SECONDS)
            while first is not None:
                group.append(first)
                if len(group) == _GROUP:
                    return group
                first = self._work.get_nowait()
        except queue.Empty:
            return group
        self._is_ending = True
        return group

    def _commit(self, database: Database, group: Sequence[tuple[Work, Future[Any] | None]]) -> None:
        """One transaction for all; who waits is told when it is on the disk."""
        outcomes: list[tuple[Future[Any], ServiceError | None]] = []
        try:
            with database.transaction():
                for work, done in group:
                    error = None
                    try:
                        work(database)
                    except ServiceError as refused:
                        error = refused
                    if done is not None:
                        outcomes.append((done, error))
        except Exception as error:
            # Whatever it is: this thread goes on, for everything else waits behind it.
            _log.error("answers and feedback are not kept", error=type(error).__name__, rows=len(group))
            failed = ServiceError("the feedback could not be stored; the log says why")
            outcomes = [(done, failed) for _, done in group if done is not None]
        for done, outcome in outcomes:
            if done.set_running_or_notify_cancel():
                done.set_result(None) if outcome is None else done.set_exception(outcome)

    def _look_at_controls(self, database: Database) -> None:
        try:
            rows = database.execute("SELECT experiment, state FROM controls ORDER BY experiment").fetchall()
        except database.failures:
            return
        seen = json.dumps(rows)
        if seen != self._controls_seen:
            self._controls_seen = seen
            self._on_controls({name: Controls(**json.loads(state)) for name, state in rows})

    def _purge(self, database: Database) -> None:
        now = time.time()
        if now < self._purge_after:
            return
        self._purge_after = now + _PURGE_SECONDS
        try:
            for table in ("answers", "shadows"):
                database.execute(f"DELETE FROM {table} WHERE at < ?", (now - self._keep_seconds,))  # noqa: S608
        except database.failures as error:
            _log.error("old answers are not deleted", error=type(error).__name__)


def stored_answers(database: Database, experiment: str) -> Iterator[tuple[Answer, Mapping[str, frozenset[int]]]]:
    """The answers of an experiment in the order of time, each with the documents of its feedback by kind."""
    liked: dict[int, dict[str, set[int]]] = {}
    sql = "SELECT answer, document, kind FROM feedback JOIN answers ON answers.id = answer WHERE experiment = ?"
    for answer, document, kind in database.execute(sql, (experiment,)):
        liked.setdefault(answer, {}).setdefault(kind, set()).add(document)
    sql = (
        "SELECT id, answer_id, request_id, caller, experiment, arm, unit, pinned, seconds, documents, score, ranked, "
        "teams, at FROM answers WHERE experiment = ? ORDER BY at"
    )
    for id, *rest in database.execute(sql, (experiment,)):
        *facts, ranked, teams, at = rest
        answer = Answer(*[*facts, json.loads(ranked), teams and json.loads(teams), at])
        yield answer, {kind: frozenset(documents) for kind, documents in liked.get(id, {}).items()}


def stored_agreements(database: Database, experiment: str) -> list[Agreement]:
    sql = "SELECT experiment, arm, live, tau, same_first, at FROM shadows WHERE experiment = ? ORDER BY at"
    rows = database.execute(sql, (experiment,))
    return [Agreement(name, arm, live, tau, bool(same), at) for name, arm, live, tau, same, at in rows]


def stored_experiments(database: Database) -> list[str]:
    sql = "SELECT experiment FROM answers UNION SELECT experiment FROM shadows ORDER BY experiment"
    return [name for (name,) in database.execute(sql)]


def _insert_answer(database: Database, row: Any) -> None:
    teams = None if row.teams is None else json.dumps(list(row.teams[:MAX_RANKED]))
    database.execute(
        "INSERT INTO answers (answer_id, request_id, caller, experiment, arm, unit, pinned, at, seconds, documents, "
        "score, ranked, teams) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(row.answer_id, row.request_id, row.caller, row.experiment, row.arm, row.unit, int(row.pinned), row.at),
            *(row.seconds, row.documents, row.score, json.dumps(list(row.ranked[:MAX_RANKED])), teams),
        ),
    )


def _insert_agreement(database: Database, row: Any) -> None:
    values = (row.experiment, row.arm, row.live, row.at, row.tau, int(row.same_first))
    database.execute("INSERT INTO shadows VALUES (?, ?, ?, ?, ?, ?)", values)


def no_answer() -> NotFound:
    """The answer to feedback whose request id nobody knows."""
    return NotFound(
        "no answer with this request id is kept: only those of experiments are, for feedback_days",
        param="request_id",
        setting="feedback_days",
    )


def _insert_feedback(database: Database, row: Feedback) -> None:
    """Told twice is kept once; a request id that came twice means its last answer."""
    found = database.execute(
        "SELECT id, documents FROM answers WHERE (answer_id = ? OR request_id = ?) AND caller = ? "
        "ORDER BY id DESC LIMIT 1",
        (row.request_id, row.request_id, row.caller),
    ).fetchone()
    if found is None:
        raise no_answer()
    answer, documents = found
    for name, indices in (("clicked", row.clicked), ("used", row.used)):
        if any(not 0 <= index < documents for index in indices):
            raise InvalidRequest(f"{name} names a document beyond the {documents} of the request", param=name)
    database.execute_many(
        "INSERT INTO feedback VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(answer, index, "clicked", row.at) for index in row.clicked]
        + [(answer, index, "used", row.at) for index in row.used],
    )
