"""Every block of every page is run or checked, every link leads somewhere: a page that lies fails here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import DOCS, ROOT, Runner, blocks, pages, server_flags
from tests.live import LiveServer, running_server

pytestmark = pytest.mark.timeout(900)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def in_its_run(page: Path) -> Any:
    """The first pages that anybody reads run with ``make thorough``, and so in CI; the others with ``make pages``."""
    first = page.name in ("README.md", "tutorial.md") or page == DOCS / "index.md"
    return pytest.param(page, id=name_of(page), marks=pytest.mark.thorough if first else pytest.mark.slow)


ASKED = [page for page in pages() if page.name != "README.zh.md"]
"""Pages whose blocks are run; those of the Chinese README are the English one's, and a test says so."""


def play(page: Path, runner: Runner) -> None:
    for block in blocks(page):
        runner.run(block)
    if runner.not_run:
        pytest.skip(f"all but {'; '.join(runner.not_run)}")


@pytest.mark.parametrize("page", [in_its_run(page) for page in ASKED if server_flags(page) is None])
def test_the_blocks_of_a_page_work(page: Path, default_server: LiveServer, tmp_path: Path) -> None:
    play(page, Runner(default_server.url, tmp_path))


@pytest.mark.parametrize("page", [in_its_run(page) for page in ASKED if server_flags(page) is not None])
def test_the_blocks_of_a_page_work_with_the_server_that_it_asks_for(page: Path, tmp_path: Path) -> None:
    flags = server_flags(page) or []
    # Experiments stand in a file alone, which the server finds in its folder.
    for block in blocks(page):
        if block.title == "rerankd.toml":
            (tmp_path / "rerankd.toml").write_text(block.text, encoding="utf-8")
    with running_server(*flags, log=tmp_path / "server.log") as server:
        (tmp_path / "page").mkdir()
        play(page, Runner(server.url, tmp_path / "page"))


def test_every_block_has_a_language_that_is_checked() -> None:
    unknown = {
        f"{name_of(page)}: {block.language or 'no language'}"
        for page in pages()
        for block in blocks(page)
        if not hasattr(Runner, f"_{block.language}") or not block.language
    }
    assert unknown == set()


def test_the_first_screen_is_two_commands_a_curl_and_its_answer() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = blocks(ROOT / "README.md")[:3]
    assert [block.language for block in first] == ["bash", "bash", "json"]
    assert "make serve" in first[0].text
    assert "make test" in first[0].text
    assert text.index("curl") < 2_000


def test_both_readmes_say_the_same() -> None:
    english, chinese = (ROOT / "README.md", ROOT / "README.zh.md")
    assert blocks(english) == blocks(chinese)

    def targets(page: Path) -> list[str]:
        links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
        return [link for link in links if not link.startswith("README")]

    assert targets(english) == targets(chinese)


@pytest.mark.parametrize("page", [*pages(), ROOT / "clients" / "typescript" / "README.md"], ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs: the docs group has it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environ, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis.com" not in home


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))]
    assert [page for page in missing if page not in menu] == []
