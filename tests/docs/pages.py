"""The pages of the documentation, and what it takes to run their blocks.

A page is run in order, in one empty folder, against a running server; ``<!-- server: FLAGS -->`` gives it one with
these flags, and a block with a title is a file of that name for the blocks after it. What cannot be run here is still
checked: the flags of ``rerankd serve``, make's targets, pip's extras. Nothing is left unread.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.clients.environments import FOLDER

from rerankd.cli.serve import serve
from rerankd.settings import load_settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PUBLISHED = "http://127.0.0.1:8000"
VOLATILE = {"id", "timings_ms", "cached_documents", "created", "fingerprint", "revision"}
_FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_STARTED_ELSEWHERE = ("rerankd serve", "pip", "npm", "make", "docker", "kubectl", "systemctl", "nginx")
"""Commands whose words are checked, since they change the machine or do not end."""
_SECONDS = 300
"""For a block: `rerankd doctor --url` has a small model read long documents."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


def pages() -> list[Path]:
    """Every page written by hand; records of decisions are no instructions."""
    made = {"settings.md", "metrics.md", "errors.md", "dialects.md", "command-line.md", "speed.md"}
    found = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "adr" and page.name not in made]
    return [ROOT / "README.md", ROOT / "README.zh.md", *found]


def blocks(page: Path) -> list[Block]:
    found = []
    for margin, language, rest, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', rest)
        lines = [line.removeprefix(margin) for line in text.splitlines()]
        found.append(Block(language, title[1] if title else "", "\n".join(lines) + "\n"))
    return found


def server_flags(page: Path) -> list[str] | None:
    """The flags of the server that a page asks for; None where any will do."""
    found = re.search(r"<!-- server: (.+?) -->", page.read_text(encoding="utf-8"))
    return shlex.split(found[1]) if found else None


@dataclass
class Runner:
    """Runs the blocks of one page."""

    url: str
    folder: Path
    said: str = ""
    not_run: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        text = block.text.replace(PUBLISHED, self.url)
        if block.title:
            (self.folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.title).write_text(text, encoding="utf-8")
        getattr(self, f"_{block.language}")(text, block)

    def _bash(self, text: str, block: Block) -> None:
        elsewhere = [command for command in commands(text) if command.startswith(_STARTED_ELSEWHERE)]
        for command in elsewhere:
            check(command)
        if not elsewhere:
            self.said = self._process(["bash", "-ec", text])

    def _json(self, text: str, block: Block) -> None:
        published = json.loads(text)
        if self.said and not block.title:
            assert near(json.loads(self.said), published), self.said
        self.said = ""

    def _text(self, text: str, block: Block) -> None:
        """What a command prints, or a drawing: shown where numbers differ from machine to machine."""

    def _toml(self, text: str, block: Block) -> None:
        if block.title in ("", "rerankd.toml"):
            file = self.folder / (block.title or "rerankd.toml")
            file.write_text(text, encoding="utf-8")
            load_settings(file=file, environ={})
        else:
            tomllib.loads(text)

    def _yaml(self, text: str, block: Block) -> None:
        yaml = pytest.importorskip("yaml", reason="needs PyYAML")
        assert yaml.safe_load(text)

    def _nginx(self, text: str, block: Block) -> None:
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(nginx).exists():
            self.not_run.append("a block for nginx, which is not installed")
            return
        whole = text if "http {" in text else "events {}\nhttp {\n" + text + "\n}\n"
        file = self.folder / "nginx-test.conf"
        file.write_text(f"pid nginx.pid;\nerror_log stderr;\n{whole}", encoding="utf-8")
        self._process([nginx, "-t", "-p", str(self.folder), "-c", str(file)])

    def _python(self, text: str, block: Block) -> None:
        needed = set(re.findall(r"^(?:from|import) (\w+)", text, flags=re.MULTILINE))
        for python in (sys.executable, *map(str, sorted(FOLDER.glob("*/bin/python")))):
            if _has(python, needed):
                self.said = self._process([python, "-c", text])
                return
        self.not_run.append(f"a block that imports {', '.join(sorted(needed))}: `make clients` makes its environment")

    def _ts(self, text: str, block: Block) -> None:
        package = ROOT / "clients" / "typescript"
        if not (shutil.which("node") and (package / "dist").is_dir()):
            self.not_run.append("a block in TypeScript: `make typescript` builds the client")
            return
        (self.folder / "node_modules").mkdir(exist_ok=True)
        link = self.folder / "node_modules" / "rerankd"
        if not link.exists():
            link.symlink_to(package)
        (self.folder / "block.mjs").write_text(text, encoding="utf-8")
        self._process(["node", "block.mjs"])

    def _process(self, command: list[str]) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=environ, check=False, timeout=_SECONDS
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in joined if line.strip() and not line.strip().startswith("#")]


def check(command: str) -> None:
    """A command that is not run is at least one that exists."""
    words = shlex.split(command, comments=True)
    words = words[: next((place for place, word in enumerate(words) if word in ("&", "&&", "|", ";")), len(words))]
    if words[:2] == ["rerankd", "serve"]:
        with serve.make_context("serve", words[2:]):
            pass
    elif words[0] == "make":
        assert set(words[1:]) <= make_targets()
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for word in words:
            if found := re.match(r"rerankd\[([\w,-]+)\]", word):
                assert set(found[1].split(",")) <= set(extras), word
    else:
        for word in words:
            if word.startswith(("deploy/", "./deploy/")):
                assert (ROOT / word).exists(), word


def make_targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def near(value: Any, published: Any) -> bool:
    """Equal, but for figures in the third decimal and for what differs from call to call."""
    if isinstance(published, dict):
        return (
            isinstance(value, dict)
            and value.keys() == published.keys()
            and all(key in VOLATILE or near(value[key], published[key]) for key in published)
        )
    if isinstance(published, list):
        return isinstance(value, list) and len(value) == len(published) and all(map(near, value, published))
    return bool(value == pytest.approx(published, abs=2e-3) if isinstance(published, float) else value == published)


def _has(python: str, modules: set[str]) -> bool:
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in {sorted(modules)!r}))"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([python, "-c", code], env=environ, capture_output=True, check=False).returncode == 0
