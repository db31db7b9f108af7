"""Where the store's rows lie: a file of SQLite's, or a PostgreSQL server that replicas on several machines share.

A connection is for one thread at a time. Statements are written once, in what both understand, with ``?`` for each
value.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rerankd.errors import ConfigurationError
from rerankd.files import state_folder

SETTING = "feedback_store"
_POSTGRES = re.compile(r"postgres(ql)?://")
_WAIT_SECONDS = 10
_SCHEMA_LOCK = 0x7265_7261_6E6B
"""Of PostgreSQL's advisory locks: two servers that make the same table at once would disturb each other."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id {identity} PRIMARY KEY, answer_id TEXT NOT NULL, request_id TEXT NOT NULL, caller TEXT NOT NULL,
    experiment TEXT NOT NULL, arm TEXT NOT NULL, unit TEXT NOT NULL, pinned INTEGER NOT NULL,
    at DOUBLE PRECISION NOT NULL, seconds DOUBLE PRECISION NOT NULL, documents INTEGER NOT NULL,
    score DOUBLE PRECISION, ranked TEXT NOT NULL, teams TEXT);
CREATE INDEX IF NOT EXISTS answers_by_answer ON answers (answer_id);
CREATE INDEX IF NOT EXISTS answers_by_request ON answers (request_id);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (experiment, at);
CREATE TABLE IF NOT EXISTS feedback (
    answer BIGINT NOT NULL REFERENCES answers (id) ON DELETE CASCADE, document INTEGER NOT NULL, kind TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, PRIMARY KEY (answer, document, kind));
CREATE TABLE IF NOT EXISTS shadows (
    experiment TEXT NOT NULL, arm TEXT NOT NULL, live TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
    tau DOUBLE PRECISION NOT NULL, same_first INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS shadows_by_time ON shadows (experiment, at);
CREATE TABLE IF NOT EXISTS controls (experiment TEXT PRIMARY KEY, state TEXT NOT NULL);
"""


class Database(Protocol):
    """An open connection, each statement of which is a transaction of its own outside of :meth:`transaction`.

    Attributes:
        failures: what its statements raise when the disk or the server fails.
    """

    failures: tuple[type[Exception], ...]

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The statement's cursor."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None: ...

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """What is executed within is on the disk when this ends, all of it; or none, with an error."""
        ...

    def close(self) -> None: ...


def open_database(target: str) -> Database:
    """The database that the setting ``feedback_store`` names: a URL of PostgreSQL, or a file.

    Raises:
        ConfigurationError: it cannot be opened, or is not such a store.
    """
    return PostgresDatabase(target) if _POSTGRES.match(target) else SqliteDatabase(file_of(target))


def is_file(target: str) -> bool:
    """Whether the setting names a file, and no server."""
    return not _POSTGRES.match(target)


def file_of(target: str) -> Path:
    """The file that a setting names; by default ``rerankd/feedback.sqlite`` in the user's folder for state (XDG).

    Raises:
        ConfigurationError: there is no such folder.
    """
    if target:
        return Path(target)
    folder = state_folder()
    if folder is None:
        raise ConfigurationError(f"there is no home folder; the setting '{SETTING}' has to name a file")
    return folder / "feedback.sqlite"


class SqliteDatabase:
    """A file, made where there is none: WAL with ``synchronous=FULL``. Processes of one machine may share it."""

    failures: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                file, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(_SCHEMA.format(identity="INTEGER"))
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"the setting '{SETTING}': {file} cannot be opened: {error}") from None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(sql, values)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()


class PostgresDatabase:
    """A server. A connection that broke is made again by the next statement; the one that met it has failed."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigurationError(
                f"'{SETTING}' at a PostgreSQL URL needs: pip install 'rerankd[postgres]'"
            ) from None
        self.failures: tuple[type[Exception], ...] = (psycopg.Error,)
        self._url = url
        self._connect = psycopg.connect
        try:
            self._connection = self._open()
            with self.transaction():
                self.execute("SELECT pg_advisory_xact_lock(?)", (_SCHEMA_LOCK,))
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self.execute(statement.format(identity="BIGINT GENERATED ALWAYS AS IDENTITY"))
        except psycopg.Error as error:
            # The first line; libpq names host, port and user there, never the password.
            reason = str(error).strip().split("\n")[0]
            raise ConfigurationError(f"the setting '{SETTING}': PostgreSQL cannot be used: {reason}") from None

    def _open(self) -> Any:
        return self._connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,  # prepared statements do not get through every connection pooler
            connect_timeout=_WAIT_SECONDS,
            options=f"-c statement_timeout={_WAIT_SECONDS}s",
            application_name="rerankd",
        )

    def _alive(self) -> Any:
        if self._connection.closed:
            self._connection = self._open()
        return self._connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self._alive().execute(sql.replace("?", "%s"), values)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._alive().cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._alive().transaction():
            yield

    def close(self) -> None:
        self._connection.close()
