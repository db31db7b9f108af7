"""The playground as a person uses it: type, rank, compare, be told of an error; in both languages and by keyboard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.live import ROOT

QUERY = "What is the capital of France?"
DOCUMENTS = ["Bananas are yellow.", "Berlin is the capital of Germany.", "Paris is the capital of France."]

Page = Any

# A browser is started within the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def fill(page: Page, query: str = QUERY, documents: list[str] = DOCUMENTS) -> None:
    page.fill("#query", query)
    page.fill("#documents", "\n".join(documents))


def rank(page: Page) -> list[str]:
    """Rank and wait; the texts of list A from the best to the worst."""
    page.click("#rank")
    page.wait_for_selector(".list-a .row")
    page.wait_for_selector("body:not(.running)")
    texts: list[str] = page.locator(".list-a .text").all_inner_texts()
    return texts


def open_with(page: Page, key: str) -> None:
    """Enter the key of a server that asks for one."""
    page.wait_for_selector("#server[data-state=closed]")
    page.fill("#key", key)
    page.keyboard.press("Tab")
    page.wait_for_selector("#server[data-state=ready]")


def test_a_query_is_typed_and_ranked(page: Page) -> None:
    fill(page)
    assert page.inner_text("#count").startswith("3 · ")
    assert rank(page)[0] == DOCUMENTS[2]
    first = page.locator(".list-a .row").first
    assert "▲ 2" in first.inner_text()
    assert 0.9 < float(first.locator(".score").inner_text()) <= 1
    assert "tokens" in page.inner_text(".facts")
    assert page.locator(".phases i").count() >= 4


def test_the_threshold_tells_who_passes(page: Page) -> None:
    fill(page)
    rank(page)
    assert page.inner_text(".passing") == "2 of 3 pass"
    page.focus(".scale input")
    page.keyboard.press("End")
    assert page.inner_text(".passing") == "0 of 3 pass"
    assert page.locator(".row.below").count() == 3


def test_two_settings_stand_side_by_side(page: Page) -> None:
    fill(page)
    page.check("#compare")
    page.locator(".setting-b textarea").fill("Given a fruit, retrieve its colour")
    rank(page)
    page.wait_for_selector(".list-b .row")
    assert page.locator(".list-b .row").count() == 3
    # The embedded model's prompt has no place for an instruction, and the page says so.
    assert "instruction was ignored" in page.inner_text(".list-b .warning")
    page.hover(".list-a .row >> nth=0")
    assert page.locator(".row.marked").count() == 2
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1360, "height": 900})


def test_a_preset_a_cascade_and_the_arm_of_an_experiment_are_seen(rich_page: Page) -> None:
    page = rich_page
    page.wait_for_selector("#server[data-state=ready]")
    page.get_by_label("Preset").select_option("web_search")
    assert page.input_value(".setting-a textarea") == "@web_search"
    assert "web search query" in page.inner_text(".setting-a .hint")
    page.get_by_label("Cascade").select_option("other")
    page.get_by_label("then scored").fill("2")
    fill(page)
    rank(page)
    facts = page.inner_text(".facts")
    assert "2 of 3 scored after other" in facts
    assert "experiment words: c" in facts
    assert page.get_by_text("by the first order alone").count() == 1
    assert '"cascade": {' in page.inner_text("#code")
    page.click("#tab-TypeScript")
    assert '{ instruction: "@web_search", cascade: {"model":"other","depth":2} }' in page.inner_text("#code")


def test_everything_works_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Tab")
    page.keyboard.insert_text("\n".join(DOCUMENTS))
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".list-a .row")
    page.locator(".row").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.querySelector('.rank').textContent") == "2"


def test_an_error_is_shown_in_words_with_what_the_server_said(keyed_page: Page) -> None:
    page = keyed_page
    open_with(page, "secret")
    fill(page, documents=["a"] * 6)
    assert "this server takes 5" in page.inner_text("#count")
    page.click("#rank")
    page.wait_for_selector(".problem")
    said = page.inner_text(".problem")
    assert "more than this server takes" in said
    assert "max_documents" in said
    assert "413 · too_large · request " in said
    fill(page)
    rank(page)
    assert page.locator(".problem").count() == 0


def test_a_server_that_is_gone_is_an_error_with_another_try(page: Page) -> None:
    fill(page)
    page.context.set_offline(True)
    page.click("#rank")
    page.wait_for_selector(".problem")
    assert "does not answer" in page.inner_text(".problem")
    page.context.set_offline(False)
    page.click(".problem button")
    page.wait_for_selector(".list-a .row")


def test_a_keyed_server_is_asked_with_the_key(keyed_page: Page) -> None:
    page = keyed_page
    page.wait_for_selector("#server[data-state=closed]")
    page.fill("#key", "wrong")
    fill(page)
    page.click("#rank")
    page.wait_for_selector(".problem")
    assert "The key is missing or wrong" in page.inner_text(".problem")
    open_with(page, "secret")
    rank(page)
    assert "$RERANKD_KEY" in page.inner_text("#code")
    assert "secret" not in page.inner_text("#code")


def test_the_page_speaks_chinese_in_every_place(page: Page) -> None:
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.inner_text("#rank").startswith("排序")
    keys = page.evaluate(
        """async () => {
          const { WORDS } = await import(new URL("playground/i18n.js", location.href));
          const shape = (value) => value && typeof value === "object"
            ? Object.keys(value).sort().map((key) => [key, shape(value[key])]) : typeof value;
          return [shape(WORDS.en), shape(WORDS.zh)];
        }"""
    )
    assert keys[0] == keys[1]
    page.reload()
    assert page.inner_text("#rank").startswith("排序")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("texts.jsonl", '{"text": "one"}\n"two"\n', ["one", "two"]),
        ("texts.json", '["one", {"content": "two"}]', ["one", "two"]),
        ("texts.csv", 'id,text\n1,"one, ""so"""\n2,two\n', ['one, "so"', "two"]),
        ("texts.tsv", "one\ttwo\nthree\tfour\n", ["one", "three"]),
        ("texts.txt", "one\r\n\r\ntwo\n", ["one", "two"]),
    ],
)
def test_a_file_becomes_documents(page: Page, name: str, content: str, expected: list[str]) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": content.encode()})
    # A predicate would be evaluated as text, which the page's policy forbids once it has to be asked twice.
    from playwright.sync_api import expect

    expect(page.locator("#documents")).to_have_value("\n".join(expected))


def test_a_file_that_is_no_text_is_refused_in_words(page: Page) -> None:
    page.set_input_files("#file", {"name": "a.json", "mimeType": "application/json", "buffer": b"{"})
    page.wait_for_selector(".problem")
    assert "cannot be read" in page.inner_text(".problem")


def test_the_calls_that_it_shows_work(page: Page, tmp_path: Path) -> None:
    fill(page, query='it\'s "quoted" \\ and\tmore', documents=['a "b" $(touch x) `c`', "ü 中文 it's"])
    rank(page)
    shown = {}
    for language in ("curl", "Python", "TypeScript"):
        page.click(f"#tab-{language}")
        page.click("#copy")
        shown[language] = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", shown["curl"]], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert len(json.loads(answer.stdout)["scores"]) == 2
    ran = subprocess.run(
        [sys.executable, "-c", shown["Python"]], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "ü 中文 it's" in ran.stdout
    assert list(tmp_path.iterdir()) == []
    assert 'import { RerankerClient } from "rerankd";' in shown["TypeScript"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1360])
def test_axe_finds_no_serious_fault(page: Page, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: the dev group has it").Axe()
    page.evaluate(f"document.documentElement.style.colorScheme = '{theme}'")
    page.set_viewport_size({"width": width, "height": 900})
    found = [axe.run(page)]
    fill(page, documents=[*DOCUMENTS, "a"])
    page.check("#compare")
    rank(page)
    page.wait_for_timeout(600)
    found.append(axe.run(page))
    page.context.set_offline(True)
    page.click("#rank")
    page.wait_for_selector(".problem")
    found.append(axe.run(page))
    page.set_viewport_size({"width": 1360, "height": 900})
    serious = [
        (violation["id"], [node["html"][:160] for node in violation["nodes"]])
        for results in found
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_page_is_small() -> None:
    files = list((ROOT / "src" / "rerankd" / "http" / "playground").iterdir())
    assert sum(file.stat().st_size for file in files) < 150_000


def test_a_long_document_shows_the_passage_that_won(page: Page) -> None:
    hay = "The committee discussed the budget and postponed the decision to a later meeting. " * 80
    fill(page, documents=[f"{hay}{DOCUMENTS[2]} {hay}", "Bananas are yellow."])
    page.locator(".setting-a select").nth(2).select_option("chunk")
    rank(page)
    best = page.locator(".list-a .row").first.locator("mark")
    assert DOCUMENTS[2] in best.inner_text()
    assert "passages" in page.locator(".list-a .facts").inner_text()
    assert '"long_documents": "chunk"' in page.locator("#code").inner_text()
