"""A browser for the playground: Debian's Chromium, driven by Playwright, for which no host but this one exists."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live import LiveServer, running_server

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


# Of a module: while Playwright's driver is open, no other test may run an event loop.
@pytest.fixture(scope="module")
def browser_context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: the dev group has it")
    if BROWSER is None:
        pytest.skip("needs Chromium")
    profile: Path = tmp_path_factory.mktemp("profile")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile),
            executable_path=BROWSER,
            args=FLAGS,
            viewport={"width": 1360, "height": 900},
            permissions=["clipboard-read", "clipboard-write"],
            locale="en-US",
        )
        context.set_default_timeout(30_000)
        yield context
        context.close()


@pytest.fixture
def page(browser_context: Any, tiny_server: LiveServer) -> Iterator[Any]:
    yield from opened(browser_context, tiny_server)


@pytest.fixture(scope="session")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    flags = ("--engine", "fake", "--api-keys", "me:secret", "--max-documents", "5")
    with running_server(*flags, log=tmp_path_factory.mktemp("keyed") / "server.log") as server:
        yield server


@pytest.fixture
def keyed_page(browser_context: Any, keyed_server: LiveServer) -> Iterator[Any]:
    yield from opened(browser_context, keyed_server)


SETTINGS = """
[models.other]
model = "tiny"
[experiments.words.arms.control]
[experiments.words.arms.candidate]
instruction = "Find the opposite"
"""


@pytest.fixture(scope="session")
def rich_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two served names, and an experiment on the first."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "rerankd.toml").write_text(SETTINGS)
    flags = ("--threads", "1", "--feedback-store", str(folder / "feedback.sqlite"))
    with running_server(*flags, log=folder / "server.log") as server:
        yield server


@pytest.fixture
def rich_page(browser_context: Any, rich_server: LiveServer) -> Iterator[Any]:
    yield from opened(browser_context, rich_server)


def opened(context: Any, server: LiveServer) -> Iterator[Any]:
    """The playground in a new tab; a mistake of its scripts, and a word with another host, fail the test."""
    page = context.new_page()
    mistakes: list[str] = []
    asked: set[str] = set()
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    page.on("console", lambda said: "Content Security Policy" in said.text and mistakes.append(said.text))
    page.goto(f"{server.url}/playground")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    page.reload()
    page.wait_for_selector("#server[data-state]")
    yield page
    page.context.set_offline(False)
    page.close()
    assert mistakes == []
    assert asked <= {server.url}
