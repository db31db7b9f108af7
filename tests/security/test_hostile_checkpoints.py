"""Checkpoints that were written to hurt: refused in one line, in bounded time and memory, and no code is run.

Each case damages one file of a checkpoint that every engine serves, and gives the folder to the command line.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.checkpoints import write_small_reranker
from tests.damage import (
    CONFIG,
    FILES,
    HARMLESS,
    TEMPLATE,
    TOKENIZER,
    WEIGHTS,
    Damage,
    changed,
    fifo,
    larger_than_any_disk,
)
from tests.figures import Measured
from tests.live import LiveServer
from tests.raw import Memory

from rerankd.cli.main import cli

MOST_BYTES = 200_000_000
MOST_CHARACTERS = 400
"""Of the line, beside the folder's own name."""

pytestmark = [pytest.mark.promise("P7"), pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_reranker(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture(params=["native", "onnx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rank(folder: Path, engine: str, text: str = "a b") -> Result:
    command = ["rank", "a", "--documents", "-", "--model", str(folder), "--engine", engine, "--threads", "1"]
    return CliRunner().invoke(cli, command, input=text)


def test_the_whole_checkpoint_is_served(folder: Path, engine: str) -> None:
    result = rank(folder, engine)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=f"{group}: {name}")
        for group, cases in {
            "weights": WEIGHTS,
            "files": FILES,
            "config": CONFIG,
            "tokenizer": TOKENIZER,
            "template": TEMPLATE,
        }.items()
        for name, damage in cases.items()
    ],
)
def test_it_is_refused_in_one_line(folder: Path, engine: str, damage: Damage) -> None:
    damage(folder)
    memory = Memory(os.getpid())
    result = rank(folder, engine)
    line = result.output.strip().replace(str(folder), "")
    assert isinstance(result.exception, SystemExit), (result.exception, line[:1000])
    assert result.exit_code == 2, line[:1000]
    assert line.startswith("rerankd: ")
    assert line.isprintable(), line[:1000]
    assert len(line) < MOST_CHARACTERS, line[:1000]
    assert memory.growth() < MOST_BYTES


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_and_harms_nobody_is_served_or_refused(folder: Path, engine: str, name: str) -> None:
    HARMLESS[name](folder)
    memory = Memory(os.getpid())
    result = rank(folder, engine)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0 or len(result.output.splitlines()) == 1, result.output[:1000]
    assert memory.growth() < MOST_BYTES


EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
"""


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def test_code_and_pickles_beside_the_weights_are_never_touched(folder: Path, engine: str) -> None:
    ran = folder / "ran"
    for name in ("modeling_evil.py", "tokenization_evil.py", "setup.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(EVIL)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "tokenizer.model"):
        (folder / name).write_bytes(pickle.dumps(Bomb(ran)))
    changed("config.json", "auto_map", to={"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"})(
        folder
    )
    result = rank(folder, engine)
    assert result.exit_code == 0, result.output
    assert not ran.exists()


def test_an_expression_that_never_ends_is_an_error_of_its_text(folder: Path, engine: str) -> None:
    changed(
        "tokenizer.json",
        "pre_tokenizer",
        to={"type": "Split", "pattern": {"Regex": "(a+a+)+$"}, "behavior": "Isolated", "invert": False},
    )(folder)
    result = rank(folder, engine, "a" * 50_000 + "b\na b")
    assert not isinstance(result.exception, Exception), result.exception
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "damage", [larger_than_any_disk, fifo("model.safetensors"), CONFIG["num_hidden_layers 0"]], ids=[0, 1, 2]
)
def test_a_server_ends_at_once_and_says_why_in_one_line(
    tmp_path: Path, folder: Path, measured: Measured, damage: Damage
) -> None:
    damage(folder)
    # Not the native engine, which is imported first: above both refuse these in process.
    flags = ("--model", str(folder), "--engine", "onnx", "--log-level", "error")
    server = LiveServer(*flags, log=tmp_path / "server.log")
    try:
        code = server.process.wait(timeout=50)
    except subprocess.TimeoutExpired:
        server.process.kill()
        raise
    said = server.log.read_text().strip()
    measured("P7", "a hostile checkpoint, served", "exit 2, one line", f"exit {code}, {len(said.splitlines())} lines")
    assert code == 2
    assert len(said.splitlines()) == 1, said
    assert said.startswith("rerankd: ")
