"""What `pip install rerankd` brings, and what a server on the embedded model loads of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
HEAVY = ("torch", "transformers", "scipy", "onnx", "matplotlib", "rich", "huggingface_hub")

WITHOUT_THEM = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"
"""Importing one of them raises, as where they are not installed."""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{WITHOUT_THEM}\n{code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_every_dependency_has_a_bound_and_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert any(part.operator == "<" for part in requirement.specifier), requirement
        (line,) = [line for line in lines if line.startswith(f'    "{requirement.name}>')]
        assert re.search(r",\s+# \S", line), line


def test_nothing_heavy_is_installed_for_everybody() -> None:
    assert not {Requirement(line).name for line in PROJECT["dependencies"]} & set(HEAVY) - {"huggingface-hub"}
    assert [Requirement(line).name for line in EXTRAS["torch"]] == ["torch"]


def test_the_lock_file_pins_all_that_the_server_needs() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert all("==" in line for line in lines)
    missing, waiting, seen = set(), list(PROJECT["dependencies"] + EXTRAS["torch"]), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        missing |= {name} - pinned
        waiting += metadata.distribution(name).requires or []
    assert not missing


def test_the_embedded_model_ranks_with_nothing_heavy() -> None:
    code = "from rerankd.cli.main import cli; cli(sys.argv[1:])"
    done = run(code, "rank", "capital of France", "--documents", str(ROOT / "LICENSE"), "--top-n", "1")
    assert done.returncode == 0, done.stderr


def test_the_server_loads_nothing_heavy() -> None:
    code = """
import asyncio
from rerankd.http.app import create_app
from rerankd.http.server import _import_engines
from rerankd.service.runtime import RerankService
from rerankd.settings import Settings

async def main():
    settings = Settings()
    _import_engines(settings)
    service = RerankService(settings)
    create_app(settings, service)
    await service.start()
    print(service.models.default.name, sorted(name for name, module in sys.modules.items() if module))
    await service.stop()

asyncio.run(main())
"""
    done = run(code)
    assert done.stdout.startswith("tiny"), done.stderr
    assert not set(re.findall(r"'(\w+)'", done.stdout)) & set(HEAVY)


@pytest.mark.parametrize("engine", ["auto", pytest.param("native", marks=pytest.mark.thorough)])
def test_a_decoder_says_what_to_install(tmp_path: Path, engine: str) -> None:
    from tests.checkpoints import Layout, write_checkpoint

    wide = Layout(40_000, 512, 2048, 16, 8, 8, 64, architecture="Qwen3ForSequenceClassification")
    folder = write_checkpoint(tmp_path, wide)
    (folder / "tokenizer.json").write_bytes((ROOT / "src/rerankd/models/tiny/tokenizer.json").read_bytes())
    (folder / "template.json").write_bytes((ROOT / "src/rerankd/models/tiny/template.json").read_bytes())
    code = "from rerankd.cli.main import cli; cli(sys.argv[1:])"
    documents = ["--documents", str(ROOT / "LICENSE")]
    done = run(code, "rank", "q", *documents, "--model", str(folder), "--engine", engine)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'rerankd[torch]'")
    assert len(done.stderr.strip().splitlines()) == 1
