"""rerankd rank: lines of a file in, a ranked table or JSON out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rerankd.cli.main import cli

QUERY = "What is the capital of France?"
LINES = "Berlin is the capital of Germany.\n\nParis is the capital of France.\nBananas are yellow.\n"


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["rank", *arguments], input=text, catch_exceptions=False)


def test_documents_come_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "documents.txt"
    file.write_text(LINES, encoding="utf-8")
    from_file = run(QUERY, "--documents", str(file))
    assert from_file.output == run(QUERY, "--documents", "-", text=LINES).output
    assert "Paris" in from_file.output.splitlines()[1]


def test_json_holds_every_document_with_its_line(tmp_path: Path) -> None:
    answer = json.loads(run(QUERY, "--documents", "-", "--json", text=LINES).output)
    assert answer["model"] == "tiny"
    assert answer["results"][0]["document"]["text"].startswith("Paris")
    assert sorted(row["index"] for row in answer["results"]) == [0, 1, 2]


def test_top_n_shows_the_best(tmp_path: Path) -> None:
    answer = json.loads(run(QUERY, "--documents", "-", "--json", "--top-n", "1", text=LINES).output)
    assert len(answer["results"]) == 1


def test_brackets_in_a_document_are_shown() -> None:
    assert "an [red]apple[/red]" in run(QUERY, "--documents", "-", text="an [red]apple[/red]\n").output


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        ((" ", "--documents", "-"), "a", "query"),
        ((QUERY, "--documents", "-"), b"\xff\xfe", "not UTF-8"),
        ((QUERY, "--documents", "-"), "\n \n", "no document"),
        ((QUERY, "--documents", "-", "--max-request-characters", "9"), "ten letters", "--max-request-characters"),
        ((QUERY, "--documents", "-", "--model", "./no-such-folder"), "a", "no-such-folder"),
        ((QUERY, "--documents", "-", "--engine", "native", "--device", "cuda:9"), "a", "device"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(arguments: tuple[str, ...], text: str | bytes, says: str) -> None:
    done = run(*arguments, text=text)
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()) == 1
