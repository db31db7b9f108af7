"""rerankd doctor: what stands in the way of a start, and whether a running server serves its model right."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.live import ROOT, LiveServer, free_port
from tests.redis_fixtures import RedisServer

from rerankd.cli.checks import known_pairs, served
from rerankd.cli.checks.asking import Refused
from rerankd.cli.main import cli
from rerankd.memory import available_bytes
from rerankd.model_hub import EMBEDDED, local_checkpoint

pytestmark = pytest.mark.timeout(400)
TINY = local_checkpoint(EMBEDDED)


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(cli, ["doctor", "--json", *arguments], catch_exceptions=False)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert json.loads(done.stdout)["healthy"] == (done.exit_code == 0)
    return done.exit_code, checks


def causes(checks: dict[str, dict[str, str]]) -> set[str]:
    return {check["cause"] for check in checks.values() if check["status"] == "bad"}


def copy_of_tiny(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    assert TINY is not None
    shutil.copytree(TINY, folder)
    template = json.loads((folder / "template.json").read_text())
    change(template)
    (folder / "template.json").write_text(json.dumps(template))
    return folder


class CoarseServer(LiveServer):
    """A server with bfloat16 scores."""

    def __init__(self, log: Path) -> None:
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "tests.coarse_server", "serve", "--port", str(self.port), "--engine", "onnx"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=stream, cwd=ROOT, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
            )


def without_template(template: dict[str, Any]) -> None:
    template["parts"] = [{"text": "{query}"}, {"text": " {document}"}]


def swapped(template: dict[str, Any]) -> None:
    template["scale"], template["bias"] = -template["scale"], -template["bias"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, tiny_server: LiveServer) -> Iterator[dict[str, LiveServer]]:
    """A right server, and three with the faults that are met most, all started here."""
    folder = tmp_path_factory.mktemp("served")
    flags = ("--engine", "onnx", "--model")
    started = {
        "no template": LiveServer(*flags, str(copy_of_tiny(folder / "a", without_template)), log=folder / "a.log"),
        "swapped": LiveServer(*flags, str(copy_of_tiny(folder / "b", swapped)), log=folder / "b.log"),
        "bfloat16": CoarseServer(folder / "c.log"),
    }
    with contextlib.ExitStack() as stack:
        for server in started.values():
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
        yield {"right": tiny_server, **{name: server.wait_ready() for name, server in started.items()}}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_four_servers_are_told_apart(servers: dict[str, LiveServer]) -> None:
    found = {name: doctor("--url", server.url) for name, server in servers.items()}
    assert {name: (code, causes(checks)) for name, (code, checks) in found.items()} == {
        "right": (0, set()),
        "no template": (1, {"no_template"}),
        "swapped": (1, {"swapped_words"}),
        "bfloat16": (1, {"low_precision"}),
    }
    _, right = found["right"]
    assert {check["status"] for check in right.values()} == {"good"}
    assert set(right) == {
        "answers", "template", "calibration", "company", "precision", "determinism", "length", "truncation"
    }  # fmt: skip


class Stub:
    """A server that scores by a rule, for the faults that no setting of ours makes."""

    def __init__(self, rule: Callable[[str, list[str]], list[float]]) -> None:
        self._rule = rule

    def scores(self, query: str, documents: list[str]) -> list[float]:
        return self._rule(query, documents)

    def info(self) -> dict[str, Any]:
        return {}


def overlap(query: str, document: str) -> float:
    """A right score: does the passage belong to the question? A little of its own for every text."""
    own = (hash(document) % 10_000) / 1e6
    answers = {passage for question, passage in known_pairs.PAIRS if question == query}
    return (0.9 if any(passage in document for passage in answers) else 0.1) + own


def right(query: str, documents: list[str]) -> list[float]:
    return [overlap(query, document) for document in documents]


def softmax(query: str, documents: list[str]) -> list[float]:
    scores = right(query, documents)
    return [score / sum(scores) for score in scores]


def refused(query: str, documents: list[str]) -> list[float]:
    if any(len(document) > 5000 for document in documents):
        raise Refused("the server answered 422", 422)
    return right(query, documents)


def unstable() -> Callable[[str, list[str]], list[float]]:
    turn = iter(range(10_000))
    return lambda query, documents: [score + 1e-2 * (next(turn) % 7) for score in right(query, documents)]


RULES: dict[str, tuple[Callable[[str, list[str]], list[float]], set[str]]] = {
    "right": (right, set()),
    "raw": (lambda query, documents: [20 * score - 10 for score in right(query, documents)], {"raw_scores"}),
    "sigmoid twice": (
        lambda query, documents: [0.5 + 0.23 * score for score in right(query, documents)],
        {"sigmoid_twice"},
    ),
    "softmax": (softmax, {"normalised", "mixed_up"}),
    "mixed up": (lambda query, documents: sorted(right(query, documents)), {"mixed_up"}),
    "rounded": (
        lambda query, documents: [round(score, 2) for score in right(query, documents)],
        {"rounded"},
    ),
    "short": (lambda query, documents: right(query, [text[:300] for text in documents]), {"reads_little"}),
    "wrong end": (
        lambda query, documents: right(query, [text[-300:] for text in documents]),
        {"cut_at_the_wrong_end"},
    ),
    "refused": (refused, {"refuses_long"}),
    "unstable": (unstable(), {"not_deterministic"}),
}


@pytest.mark.parametrize("name", RULES)
def test_each_fault_has_its_cause(name: str) -> None:
    rule, expected = RULES[name]
    found = {check.cause for check in served.check_server(Stub(rule)) if check.cause}  # type: ignore[arg-type]
    assert expected <= found
    if name in ("right", "raw", "rounded", "short", "refused"):
        assert found <= expected


def test_a_server_that_is_not_there_is_bad() -> None:
    code, checks = doctor("--url", f"http://127.0.0.1:{free_port()}")
    assert (code, list(checks), causes(checks)) == (1, ["answers"], {"no_answer"})


def test_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, checks = doctor("--port", str(free_port()))
    assert code == 0, checks
    assert set(checks) == {"version", "processor", "gpu", "model", "engine", "memory", "port", "redis"}
    lines = CliRunner().invoke(cli, ["doctor", "--port", str(free_port())]).stdout.splitlines()
    assert lines[0].startswith("good     version")


def test_what_would_stop_a_start_is_bad(
    tiny_server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert TINY is not None
    shutil.copytree(TINY, tmp_path / "half")
    with (tmp_path / "half" / "model.safetensors").open("r+b") as weights:
        weights.truncate(1_000_000)
    broken = ("--model", "half", "--port", str(tiny_server.port), "--cache", f"redis://127.0.0.1:{free_port()}/0")
    code, checks = doctor(*broken)
    assert code == 1
    assert causes(checks) == {"damaged", "port_taken", "no_redis"}
    assert "model.safetensors: it has 1000000 bytes" in checks["model"]["says"]


@pytest.mark.redis
def test_a_redis_that_answers_is_good_and_its_password_is_not_shown(redis_server: RedisServer) -> None:
    _, checks = doctor("--cache", redis_server.url)
    assert checks["redis"]["status"] == "good"
    assert str(redis_server.port) in checks["redis"]["says"]
    assert "a-password" not in json.dumps(checks)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    (groups / "a" / "b").mkdir(parents=True)

    def there() -> int | None:
        return available_bytes(groups, own, tmp_path / "meminfo")

    own.write_text("")
    assert there() == 8_192_000_000
    own.write_text("0::/a/b\n")
    (groups / "a" / "memory.max").write_text("2000000000\n")
    (groups / "a" / "memory.current").write_text("900000000\n")
    (groups / "a" / "memory.stat").write_text("anon 500000000\ninactive_file 300000000\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    assert there() == 1_400_000_000
    (groups / "memory" / "c").mkdir(parents=True)
    own.write_text("4:memory:/c\n")
    (groups / "memory" / "c" / "memory.limit_in_bytes").write_text("1000")
    (groups / "memory" / "c" / "memory.usage_in_bytes").write_text("2000")
    assert there() == 0
    assert available_bytes(groups, tmp_path / "no", tmp_path / "no") is None


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.cli.checks.machine.available_bytes", lambda: 100_000_000)
    _, checks = doctor("--port", str(free_port()))
    assert checks["memory"]["cause"] == "too_little_memory"
