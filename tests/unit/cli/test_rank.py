"""rerankd rank: lines of a file in, a ranked table or JSON out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from rerankd.cli.main import cli
from rerankd.client import RankedResults

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


@pytest.mark.promise("U21")
def test_what_a_terminal_would_obey_is_shown_and_not_obeyed() -> None:
    hostile = "red \x1b[31m title \x1b]0;owned\x07 \x9b2J \u202e bell\x08 Paris\n"
    table = run(QUERY, "--documents", "-", text=hostile).output
    assert not any(letter in table for letter in "\x1b\x07\x9b\u202e\x08")
    assert "\\x1b[31m" in table.replace("\n", "")
    answer = run(QUERY, "--documents", "-", "--json", text=hostile).output
    assert not any(letter in answer for letter in "\x1b\x07\x9b\u202e\x08")
    assert json.loads(answer)["results"][0]["document"]["text"] == hostile.strip()


@pytest.mark.promise("U20")
def test_the_instruction_comes_from_the_settings_as_in_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    class Loaded:
        revision = "abc"
        template = SimpleNamespace(revision="def")

        def __init__(self, model: str, **options: object) -> None:
            self.model = model

        def rank(self, query: str, texts: list[str], instruction: str | None, top_n: int | None) -> RankedResults:
            asked.append((self.model, instruction))
            return RankedResults((), (), "m")

    monkeypatch.setattr("rerankd.local_models.Reranker", Loaded)
    file = tmp_path / "rerankd.toml"
    file.write_text(
        'instruction = "of the file"\nserved_name = "own"\n[models.laws]\nmodel = "tiny"\ninstruction = "law"\n'
    )
    given = [QUERY, "--documents", "-", "--config", str(file)]
    run(*given, text="a")
    run(*given, "--model", "laws", text="a")
    run(*given, "--model", "laws", "--instruction", "flag", text="a")
    run(*given, "--model", "/some/folder", text="a")
    monkeypatch.setenv("RERANKD_INSTRUCTION", "of the environment")
    run(*given, text="a")
    assert asked == [
        ("tiny", "of the file"),
        ("tiny", "law"),
        ("tiny", "flag"),
        ("/some/folder", "of the file"),
        ("tiny", "of the environment"),
    ]
