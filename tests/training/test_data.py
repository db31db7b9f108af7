from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training.bm25 import build_pool, nearest, terms
from training.data import load_sources, normalised, permitted
from training.functions import functions_of


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def leaking_folder(folder: Path) -> Path:
    write_lines(folder / "eval" / "toy" / "queries.jsonl", [{"_id": "q", "text": "Who wrote  Hamlet?"}])
    corpus = [{"_id": "d", "title": "Hamlet", "text": "A play by Shakespeare."}]
    write_lines(folder / "eval" / "toy" / "corpus.jsonl", corpus)
    rows = [{"query": f"question {i}", "positive": f"answer {i}", "negatives": [], "lang": "en"} for i in range(60)]
    rows[0]["query"] = "who wrote HAMLET"
    rows[1]["positive"] = "a play by shakespeare"
    rows[2]["positive"] = "Hamlet: a play by Shakespeare"
    rows[3]["negatives"] = ["A play by Shakespeare!", "another text"]
    write_lines(folder / "train" / "toy_en.jsonl", rows)
    write_lines(folder / "train" / "other_nc.jsonl", rows)
    return folder


def test_items_that_stand_in_an_evaluation_set_are_removed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A function is compared with its docstring, though the pair lacks it.
    functions = [{"query": "plays", "positive": "of Shakespeare", "original": "a play by Shakespeare"}]
    monkeypatch.setattr("training.data.function_rows", lambda: functions)
    sources, report = load_sources(leaking_folder(tmp_path))
    assert (report.rows, report.by_query, report.by_passage, report.negatives) == (61, 1, 3, 1)
    assert len(sources) == 1
    texts = {normalised(text) for text in sources[0].queries + sources[0].documents}
    assert not texts & {"whowrotehamlet", "aplaybyshakespeare", "hamletaplaybyshakespeare"}
    assert "another text" in sources[0].documents


def test_files_without_a_permissive_licence_are_not_read() -> None:
    refused = ["squadshifts_en", "msmarco_1700_en_nc", "qbqtc_zh_nolicence", "nl2bash_en_gpl3"]
    assert not any(permitted(name) for name in refused)
    assert permitted("squad_dev_en")


FUNCTION = '''
class Reader:
    def lines(self, path):
        """Return all lines of a file. The file is closed."""
        with open(path) as file:
            return file.readlines()

    def close(self):
        """Close."""
'''


def test_the_first_sentence_of_a_docstring_asks_for_its_function(tmp_path: Path) -> None:
    file = tmp_path / "reader.py"
    file.write_text(FUNCTION, encoding="utf-8")
    ((query, function, original),) = functions_of(file)
    assert query == "Return all lines of a file"
    assert function.startswith('def lines(self, path):\n    """ The file is closed."""\n    with open')
    assert f"{query}. The file" in original


def test_bm25_finds_the_document_that_shares_rare_words() -> None:
    documents = ["the cat sat on the mat", "the dog sat on the log", "法国的首都是巴黎"]
    pool = build_pool(["where is the dogs log", "首都"], documents)
    assert nearest(pool, 2)[:, 0].tolist() == [1, 2]


def test_chinese_terms_are_characters_and_bigrams() -> None:
    assert terms("法国 Glass cars") == ["法", "国", "法国", "glass", "car"]
