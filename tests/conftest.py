"""Fixtures for all tests; each kind in a module of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import structlog
from build_kernels import BuildError, build_if_stale
from tests.live import LiveServer, running_server

from rerankd.checkpoint import Checkpoint
from rerankd.model_hub import resolve_checkpoint
from rerankd.settings.testing import TESTING_VARIABLE

LONGEST = (
    "tests/faults/test_lifecycle.py",
    "tests/evaluation/test_command.py",
    "tests/engine/",
    "tests/unit/client/test_same_results.py",
    "tests/unit/cli/",
    "tests/faults/",
    "tests/security/",
    "tests/golden/",
    "tests/training/",
    "tests/meta/",
)
"""What takes long begins first: a parallel run ends when the last worker does."""

GROUPS = (
    dict.fromkeys(
        (
            "tests/engine/test_agreement.py",
            "tests/engine/test_onnx.py",
            "tests/evaluation/test_command.py",
            "tests/training/test_model.py",
            "tests/training/test_teacher.py",
            "tests/unit/engine/native/test_rope.py",
            "tests/contract/test_same_scores.py",
            "tests/unit/cli/test_bench.py",
            "tests/unit/cli/test_doctor.py",
            "tests/unit/cli/test_greeting.py",
            "tests/unit/cli/test_rank_records.py",
            "tests/unit/client/test_json_client.py",
            "tests/unit/client/test_same_results.py",
            "tests/unit/client/test_served.py",
            "tests/unit/client/test_typescript.py",
            "tests/unit/service/test_long_documents.py",
        ),
        "transformers, and a server on the embedded model",
    )
    | dict.fromkeys(
        (
            "tests/faults/test_process.py",
            "tests/security/test_body_limits.py",
            "tests/security/test_docs_page.py",
            "tests/security/test_fuzz.py",
            "tests/security/test_hostile_json.py",
            "tests/security/test_pipelining.py",
            "tests/security/test_slow_clients.py",
            "tests/security/test_smuggling.py",
        ),
        "servers on the fake engine",
    )
    | dict.fromkeys(
        (
            "tests/comparison/test_engine.py",
            "tests/golden/test_card_prompts.py",
            "tests/golden/test_prompt_ids.py",
            "tests/security/test_prompt_injection.py",
            "tests/unit/prompt/test_tokenizer.py",
            "tests/unit/prompt/test_workers.py",
        ),
        "Qwen3's tokenizer",
    )
)
"""Files that one worker of a parallel run takes together, by what it prepares once for all of them: an import, a
tokenizer or the start of a server that takes seconds."""

ONE_THREAD = ("--threads", "1")
"""Of a server: threads that spin for a core which another test has taken cost more than they compute."""

pytest_plugins = ["tests.figures", "tests.postgres_fixtures", "tests.redis_fixtures", "tests.tokenizer_fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Tests run the kernels of this source tree, not those of yesterday's, and may use the fake engine."""
    os.environ[TESTING_VARIABLE] = "1"
    if hasattr(config, "workerinput"):
        return
    try:
        build_if_stale()
    except BuildError as error:
        config.issue_config_time_warning(
            pytest.PytestConfigWarning(f"the engine runs on torch: {error}"), stacklevel=2
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files go to workers whole, those of a group together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return GROUPS.get(file, file)

    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((at for at, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))
    )


def pytest_collection_finish() -> None:
    """What is imported by now stays: no search for garbage need look at its million objects again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A real server on the embedded model, shared by the tests that only ask it questions.

    On onnx, which starts without torch in less than half the time; with a short limit of a pair, for the time of one
    grows with the square of its tokens.
    """
    flags = ("--engine", "onnx", "--max-pair-tokens", "2048", *ONE_THREAD)
    with running_server(*flags, log=tmp_path_factory.mktemp("tiny") / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def default_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The same on the engine that ``rerankd serve`` chooses, for tests of what it says of itself."""
    with running_server(*ONE_THREAD, log=tmp_path_factory.mktemp("default") / "server.log") as server:
        yield server


@pytest.fixture(autouse=True, scope="module")
def loggers_follow_their_configuration() -> Iterator[None]:
    """A test that configures the log of its process, as a server does, leaves no logger bound to it, and the tests of
    other modules read every line."""
    with pytest.MonkeyPatch.context() as patch:
        configure = structlog.configure
        patch.setattr(
            structlog, "configure", lambda **given: configure(**{**given, "cache_logger_on_first_use": False})
        )
        yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True, scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here speaks TLS, and each HTTP client reads every authority there is, which takes longer than most
    tests: they find one."""
    every = Path(certifi.where()).read_text(encoding="utf-8")
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    file.write_text(every[every.index(begin) : every.index(end)] + end + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(autouse=True, scope="session")
def tiny_read_once() -> Iterator[None]:
    """The embedded model's tokenizer and hash, which never change: hundreds of tests start a service on it."""
    read, tiny = Checkpoint.of, resolve_checkpoint("tiny")
    kept: dict[str, Checkpoint] = {}

    def opened(folder: Path, template: str = "auto") -> Checkpoint:
        if folder != tiny:
            return read(folder, template)
        if template not in kept:
            kept[template] = read(folder, template)
        return kept[template]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "of", opened)
        yield
