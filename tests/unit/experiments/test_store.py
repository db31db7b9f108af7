"""What is kept of experiments: acknowledged means on the disk, whoever is killed afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.served import until
from tests.unit.experiments.answers import answer

from rerankd.errors import ConfigurationError, InvalidRequest, NotFound
from rerankd.experiments.assignment import Controls
from rerankd.experiments.store import (
    Agreement,
    Feedback,
    FeedbackStore,
    open_store,
    stored_agreements,
    stored_answers,
    stored_experiments,
)


async def test_an_answer_comes_back_with_its_feedback(tmp_path: Path) -> None:
    file = tmp_path / "feedback.sqlite"
    store = FeedbackStore(file)
    store.add(answer(1, teams=["a", "b", "a"]))
    store.add(Agreement("x", "shadow", "control", 0.5, True))
    await store.give(Feedback("r1", "", clicked=[2], used=[0, 1]))
    await store.give(Feedback("a1", "", clicked=[2]))
    await store.close()
    connection = open_store(file)
    ((found, liked),) = stored_answers(connection, "x")
    assert found.teams == ["a", "b", "a"]
    assert found.ranked == [2, 0, 1]
    assert liked == {"clicked": {2}, "used": {0, 1}}
    assert [(row.arm, row.tau) for row in stored_agreements(connection, "x")] == [("shadow", 0.5)]
    assert stored_experiments(connection) == ["x"]


@pytest.mark.parametrize(
    ("feedback", "error"),
    [
        (Feedback("nobody's", "", clicked=[0]), NotFound),
        (Feedback("r1", "somebody else", clicked=[0]), NotFound),
        (Feedback("r1", "", clicked=[3]), InvalidRequest),
    ],
)
async def test_feedback_to_no_answer_is_refused(tmp_path: Path, feedback: Feedback, error: type[Exception]) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add(answer())
    with pytest.raises(error):
        await store.give(feedback)
    # What came together with it is kept.
    await store.give(Feedback("r1", "", clicked=[0]))
    await store.close()


async def test_a_request_id_that_came_twice_means_its_last_answer(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add(answer(1, request_id="same"))
    store.add(answer(2, request_id="same"))
    await store.give(Feedback("same", "", clicked=[0]))
    await store.close()
    liked = {found.answer_id: liked for found, liked in stored_answers(open_store(tmp_path / "feedback.sqlite"), "x")}
    assert liked == {"a1": {}, "a2": {"clicked": {0}}}


async def test_controls_are_heard_by_another_process_that_shares_the_file_and_after_a_restart(tmp_path: Path) -> None:
    heard: list[object] = []
    ours = FeedbackStore(tmp_path / "feedback.sqlite")
    theirs = FeedbackStore(tmp_path / "feedback.sqlite", on_controls=heard.append)
    wish = Controls(0.25, stopped=True, pins={"me": "control"})
    await ours.control("x", wish)
    await until(lambda: bool(heard), 30)
    assert heard == [{"x": wish}]
    await ours.close()
    await theirs.close()
    again: list[object] = []
    await FeedbackStore(tmp_path / "feedback.sqlite", on_controls=again.append).close()
    assert again == [{"x": wish}]


async def test_what_is_older_than_its_days_is_deleted_with_its_feedback(tmp_path: Path) -> None:
    file = tmp_path / "feedback.sqlite"
    store = FeedbackStore(file)
    store.add(answer(1, at=time.time() - 50 * 86_400))
    store.add(answer(2))
    for number in (1, 2):
        await store.give(Feedback(f"r{number}", "", clicked=[0]))
    await store.close()
    second = FeedbackStore(file, keep_days=30)
    await second.control("x", Controls(1.0))
    await second.close()
    connection = open_store(file)
    assert [found.answer_id for found, _ in stored_answers(connection, "x")] == ["a2"]
    assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be read as one. " * 100)
    for file in (tmp_path / "text", tmp_path / "no" / "such" / "folder"):
        with pytest.raises(ConfigurationError, match="feedback_file"):
            open_store(file)


_WRITER = """
import asyncio, sys
from pathlib import Path
from rerankd.experiments.store import Answer, Feedback, FeedbackStore

async def main():
    store = FeedbackStore(Path(sys.argv[1]))
    for number in range(100_000):
        store.add(Answer(f"a{number}", f"r{number}", "", "x", "control", "u", False, 0.1, 3, 0.5, [0, 1, 2]))
        await store.give(Feedback(f"r{number}", "", clicked=[number % 3]))
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_no_acknowledged_feedback(tmp_path: Path) -> None:
    file = tmp_path / "feedback.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(40)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = len([line for line in [*said, *writer.communicate()[0].splitlines()] if line])
    assert acknowledged >= 40
    kept = {found.request_id: liked["clicked"] for found, liked in stored_answers(open_store(file), "x") if liked}
    assert {f"r{number}": frozenset({number % 3}) for number in range(acknowledged)}.items() <= kept.items()
