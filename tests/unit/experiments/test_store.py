"""What is kept of experiments: acknowledged means on the disk, whoever is killed afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.postgres_fixtures import PostgresServer
from tests.served import until
from tests.unit.experiments.answers import answer

from rerankd.errors import ConfigurationError, InvalidRequest, NotFound, ServiceError
from rerankd.experiments.assignment import Controls
from rerankd.experiments.database import file_of, open_database
from rerankd.experiments.store import (
    Agreement,
    Answer,
    Feedback,
    FeedbackStore,
    stored_agreements,
    stored_answers,
    stored_experiments,
)


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each database, empty."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "feedback.sqlite")
    url: str = request.getfixturevalue("postgres_server").url
    database = open_database(url)
    database.execute("DROP TABLE answers, feedback, shadows, controls")
    database.close()
    return url


def stored(target: str, experiment: str = "x") -> list[tuple[Answer, Mapping[str, frozenset[int]]]]:
    with contextlib.closing(open_database(target)) as database:
        return list(stored_answers(database, experiment))


async def test_an_answer_comes_back_with_its_feedback(target: str) -> None:
    store = FeedbackStore(target)
    store.add(answer(1, teams=["a", "b", "a"]))
    store.add(Agreement("x", "shadow", "control", 0.5, True))
    await store.give(Feedback("r1", "", clicked=[2], used=[0, 1]))
    await store.give(Feedback("a1", "", clicked=[2]))
    await store.close()
    ((found, liked),) = stored(target)
    assert found.teams == ["a", "b", "a"]
    assert found.ranked == [2, 0, 1]
    assert liked == {"clicked": {2}, "used": {0, 1}}
    with contextlib.closing(open_database(target)) as database:
        assert [(row.arm, row.tau) for row in stored_agreements(database, "x")] == [("shadow", 0.5)]
        assert stored_experiments(database) == ["x"]


@pytest.mark.parametrize(
    ("feedback", "error"),
    [
        (Feedback("nobody's", "", clicked=[0]), NotFound),
        (Feedback("r1", "somebody else", clicked=[0]), NotFound),
        (Feedback("r1", "", clicked=[3]), InvalidRequest),
    ],
)
async def test_feedback_to_no_answer_is_refused(target: str, feedback: Feedback, error: type[Exception]) -> None:
    store = FeedbackStore(target)
    store.add(answer())
    with pytest.raises(error):
        await store.give(feedback)
    # What came together with it is kept.
    await store.give(Feedback("r1", "", clicked=[0]))
    await store.close()


async def test_a_request_id_that_came_twice_means_its_last_answer(target: str) -> None:
    store = FeedbackStore(target)
    store.add(answer(1, request_id="same"))
    store.add(answer(2, request_id="same"))
    await store.give(Feedback("same", "", clicked=[0]))
    await store.close()
    liked = {found.answer_id: liked for found, liked in stored(target)}
    assert liked == {"a1": {}, "a2": {"clicked": {0}}}


async def test_controls_are_heard_by_another_process_that_shares_the_file_and_after_a_restart(target: str) -> None:
    heard: list[object] = []
    ours = FeedbackStore(target)
    theirs = FeedbackStore(target, on_controls=heard.append)
    wish = Controls(0.25, stopped=True, pins={"me": "control"})
    await ours.control("x", wish)
    await until(lambda: bool(heard), 30)
    assert heard == [{"x": wish}]
    await ours.close()
    await theirs.close()
    again: list[object] = []
    await FeedbackStore(target, on_controls=again.append).close()
    assert again == [{"x": wish}]


async def test_what_is_older_than_its_days_is_deleted_with_its_feedback(target: str) -> None:
    store = FeedbackStore(target)
    store.add(answer(1, at=time.time() - 50 * 86_400))
    store.add(answer(2))
    for number in (1, 2):
        await store.give(Feedback(f"r{number}", "", clicked=[0]))
    await store.close()
    second = FeedbackStore(target, keep_days=30)
    await second.control("x", Controls(1.0))
    await second.close()
    assert [found.answer_id for found, _ in stored(target)] == ["a2"]
    with contextlib.closing(open_database(target)) as database:
        assert database.execute("SELECT count(*) FROM feedback").fetchone() == (1,)


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be read as one. " * 100)
    for file in (tmp_path / "text", tmp_path / "text" / "file"):
        with pytest.raises(ConfigurationError, match="feedback_store"):
            open_database(str(file))


def test_without_a_setting_it_lies_in_the_users_folder_for_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    open_database("").close()
    assert (tmp_path / "rerankd" / "feedback.sqlite").is_file()
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert file_of("") == Path("/home/somebody/.local/state/rerankd/feedback.sqlite")


@pytest.mark.parametrize("what", ["nobody listens", "wrong password"])
def test_a_server_that_cannot_be_used_is_said_in_one_line_without_its_password(
    postgres_server: PostgresServer, what: str
) -> None:
    url = postgres_server.url
    wrong = url.replace(str(postgres_server.port), "1") if what == "nobody listens" else url.replace("may", "can")
    with pytest.raises(ConfigurationError, match="feedback_store") as refused:
        open_database(wrong)
    assert "password-that" not in refused.value.message
    assert "\n" not in refused.value.message


async def test_a_database_that_went_away_is_used_again_when_it_is_back(postgres_server: PostgresServer) -> None:
    store = FeedbackStore(postgres_server.url)
    store.add(answer(7, experiment="away"))
    await store.give(Feedback("r7", "", clicked=[0]))
    postgres_server.stop()
    with pytest.raises(ServiceError):
        await store.give(Feedback("r7", "", clicked=[1]))
    postgres_server.start()
    await store.give(Feedback("r7", "", clicked=[2]))
    await store.close()
    ((_, liked),) = stored(postgres_server.url, "away")
    assert liked == {"clicked": {0, 2}}


_WRITER = """
import asyncio, sys
from rerankd.experiments.store import Answer, Feedback, FeedbackStore

async def main():
    store = FeedbackStore(sys.argv[1])
    for number in range(100_000):
        store.add(Answer(f"a{number}", f"r{number}", "", "x", "control", "u", False, 0.1, 3, 0.5, [0, 1, 2]))
        await store.give(Feedback(f"r{number}", "", clicked=[number % 3]))
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_no_acknowledged_feedback(target: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, target], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(40)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = len([line for line in [*said, *writer.communicate()[0].splitlines()] if line])
    assert acknowledged >= 40
    kept = {found.request_id: liked["clicked"] for found, liked in stored(target) if liked}
    assert {f"r{number}": frozenset({number % 3}) for number in range(acknowledged)}.items() <= kept.items()
