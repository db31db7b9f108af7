"""Every block of the README is run: a page that lies fails here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.live import LiveServer

from rerankd.settings import load_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PUBLISHED = "http://127.0.0.1:8000"


def blocks(wanted: str) -> list[Any]:
    rows = [(number, text) for number, (language, text) in enumerate(BLOCKS) if language == wanted]
    return [pytest.param(number, text, id=f"{wanted}-{number}") for number, text in rows]


VOLATILE = {"id", "timings_ms", "cached_documents"}


def run(command: list[str], cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environ, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def near(value: Any, published: Any) -> bool:
    """Equal, but for figures in the third decimal and for what differs from call to call."""
    if isinstance(published, dict):
        return value.keys() == published.keys() and all(
            key in VOLATILE or near(value[key], published[key]) for key in published
        )
    if isinstance(published, list):
        return len(value) == len(published) and all(map(near, value, published))
    return bool(value == pytest.approx(published, abs=2e-3) if isinstance(published, float) else value == published)


def test_every_block_has_a_language_that_is_checked() -> None:
    assert {language for language, _ in BLOCKS} <= {"bash", "json", "python", "toml"}


def test_the_first_screen_is_two_commands_a_curl_and_its_answer() -> None:
    assert [language for language, _ in BLOCKS[:3]] == ["bash", "bash", "json"]
    assert "make serve" in BLOCKS[0][1]
    assert "make test" in BLOCKS[0][1]
    assert README.index("curl") < 2_000


@pytest.mark.parametrize(("number", "text"), blocks("bash"))
def test_a_shell_block_works(number: int, text: str, tiny_server: LiveServer, tmp_path: Path) -> None:
    targets = set(re.findall(r"^make (\w+)", text, flags=re.MULTILINE))
    known = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert targets <= known
    if targets:
        return
    answer = run(["bash", "-ec", text.replace(PUBLISHED, tiny_server.url)], tmp_path)
    language, published = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else ("", "")
    if language == "json":
        assert near(json.loads(answer), json.loads(published)), answer


@pytest.mark.parametrize(("number", "text"), blocks("python"))
def test_a_python_block_works(number: int, text: str, tiny_server: LiveServer, tmp_path: Path) -> None:
    run([sys.executable, "-c", text.replace(PUBLISHED, tiny_server.url)], tmp_path)


@pytest.mark.parametrize(("number", "text"), blocks("toml"))
def test_a_settings_block_loads(number: int, text: str, tmp_path: Path) -> None:
    file = tmp_path / "rerankd.toml"
    file.write_text(text, encoding="utf-8")
    load_settings(file=file, environ={})


def test_every_link_of_the_readme_leads_somewhere() -> None:
    local = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []
