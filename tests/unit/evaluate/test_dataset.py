from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rerankd.evaluate.dataset import Sources, load_set, read_trec_judgements, read_trec_run, titled
from rerankd.evaluate.errors import EvaluationError

Writer = Callable[..., Path]


def test_a_folder_is_read_whole(write_folder: Writer) -> None:
    data = load_set(write_folder(), Sources(), top_k=100)
    assert data.name == "small"
    assert data.queries == {"q1": "apples", "q2": "plums"}
    assert data.documents["d3"] == "blue plums"
    assert data.judgements["q1"] == {"d1": 2, "d4": 1}
    assert data.candidates["q1"] == [("d2", 3.0), ("d1", 2.0), ("d4", 1.0)]


def test_only_the_first_candidates_are_kept(write_folder: Writer) -> None:
    data = load_set(write_folder(), Sources(), top_k=1)
    assert data.candidates == {"q1": [("d2", 3.0)], "q2": [("d4", 5.0)]}


def test_the_rank_of_a_list_goes_before_its_scores(write_folder: Writer) -> None:
    rows = "query-id\tcorpus-id\trank\tscore\nq1\td1\t2\t0\nq1\td2\t1\t0\nq1\td4\t10\t0\n"
    data = load_set(write_folder(candidates_tsv=rows), Sources(), top_k=100)
    assert [document for document, _ in data.candidates["q1"]] == ["d2", "d1", "d4"]
    assert "q2" not in data.candidates


def test_queries_without_judgements_are_left_out(write_folder: Writer) -> None:
    data = load_set(write_folder(qrels_test_tsv="query-id\tcorpus-id\tscore\nq2\td3\t1\n"), Sources(), top_k=100)
    assert list(data.queries) == ["q2"]
    assert list(data.candidates) == ["q2"]


def test_a_split_may_have_queries_of_its_own(write_folder: Writer) -> None:
    folder = write_folder()
    (folder / "queries-dev.jsonl").write_text('{"_id": "x", "text": "figs"}\n', encoding="utf-8")
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nx\td4\t1\n", encoding="utf-8")
    assert load_set(folder, Sources(split="dev"), top_k=100).queries == {"x": "figs"}


def test_a_title_stands_in_front_of_its_text() -> None:
    assert titled("Figs", "are ripe") == "Figs are ripe"
    assert titled("", "are ripe") == "are ripe"
    assert titled(None, "are ripe") == "are ripe"


def test_the_first_queries_bring_their_own_judgements_and_lists(write_folder: Writer) -> None:
    data = load_set(write_folder(), Sources(), top_k=100).first(1)
    assert list(data.queries) == list(data.judgements) == list(data.candidates) == ["q1"]


def test_trec_files_take_the_place_of_the_folders_own(write_folder: Writer, tmp_path: Path) -> None:
    run, qrels = tmp_path / "bm25.run", tmp_path / "qrels.txt"
    run.write_text("q1 Q0 d4 1 0.5 tag\nq1 Q0 d1 2 0.7 tag\n", encoding="utf-8")
    qrels.write_text("q1 0 d4 1\n", encoding="utf-8")
    data = load_set(write_folder(), Sources(run=run, judgements=qrels), top_k=100)
    assert data.judgements == {"q1": {"d4": 1}}
    assert data.candidates == {"q1": [("d1", 0.7), ("d4", 0.5)]}


def test_equal_scores_of_a_trec_run_are_ordered_by_id_from_behind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("q Q0 a 1 2 t\nq Q0 c 2 2 t\nq Q0 b 3 2 t\n\n", encoding="utf-8")
    assert [document for document, _ in read_trec_run(run)["q"]] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 2\n", ":1: 5 columns"),
        ("q Q0 d 1 2 t\nq Q0 d 2 1 t\n", ":2: the document stands twice"),
        ("q Q0 d 1 high t\n", ":1: 'high' is not a number"),
    ],
)
def test_a_wrong_line_of_a_trec_run_is_named(tmp_path: Path, text: str, message: str) -> None:
    run = tmp_path / "run"
    run.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        read_trec_run(run)


def test_a_grade_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    qrels = tmp_path / "qrels"
    qrels.write_text("q 0 d 1\nq 0 e yes\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=":2: 'yes' is not a number"):
        read_trec_judgements(qrels)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus_jsonl": None}, "corpus.jsonl cannot be read"),
        ({"corpus_jsonl": '{"_id": "d1", "text": "a"}\n{"text": "b"}\n'}, r"corpus.jsonl:2: not an object"),
        ({"queries_jsonl": "[]\n"}, r"queries.jsonl:1: not an object"),
        ({"queries_jsonl": '{"_id": 1, "text": "a"}'}, r"queries.jsonl:1: not an object"),
        ({"qrels_test_tsv": "query\tdocument\tscore\n"}, "no column 'query-id'"),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nq1\td1\n"}, ":2: fewer columns"),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1.5\n"}, ":2: '1.5' is not a number"),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nx\td1\t1\n"}, "no query of"),
        ({"candidates_tsv": "query-id\tcorpus-id\trank\tscore\nq1\td1\tone\t1\n"}, ":2: 'one' is not a number"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(
    write_folder: Writer, files: dict[str, str | None], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        load_set(write_folder(**files), Sources(), top_k=100)


def test_quotes_in_an_id_are_letters(write_folder: Writer) -> None:
    rows = 'query-id\tcorpus-id\tscore\nq1\t"d1\t1\nq1\td2\t0\n'
    data = load_set(write_folder(qrels_test_tsv=rows), Sources(), top_k=100)
    assert data.judgements["q1"] == {'"d1': 1, "d2": 0}
