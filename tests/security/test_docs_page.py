"""The interactive page in a real browser: it shows the whole document and asks no other host."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.live import LiveServer

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def page(fake_server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The page as the browser shows it after its scripts ran, and everything that the browser asked for."""
    folder = tmp_path_factory.mktemp("browser")
    asked = folder / "asked.json"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=10000"]
    flags += [f"--user-data-dir={folder}", f"--log-net-log={asked}", "--dump-dom", f"{fake_server.url}/docs"]
    assert BROWSER is not None
    run = subprocess.run([BROWSER, *flags], capture_output=True, text=True, timeout=90, check=True)
    return run.stdout, asked


def test_the_page_shows_every_path(fake_server: LiveServer, page: tuple[str, Path]) -> None:
    document = httpx.get(f"{fake_server.url}/openapi.json").json()
    shown, _ = page
    assert [path for path in document["paths"] if f'data-path="{path}"' not in shown] == []
    assert "Unable to render" not in shown


def test_the_page_asks_no_other_host(fake_server: LiveServer, page: tuple[str, Path]) -> None:
    events = json.loads(page[1].read_text())["events"]
    # The browser's own errands carry no initiator; what the page asks for does.
    asked = {
        urlsplit(event["params"]["url"]).netloc
        for event in events
        if "url" in event.get("params", {}) and str(event["params"].get("initiator", "")).startswith("http")
    }
    assert asked == {urlsplit(fake_server.url).netloc}
