from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rerankd.evaluate.dataset import EvaluationSet, Sources, load_set, read_trec_judgements, read_trec_run, titled
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.notes import Notes

HEAD = "query-id\tcorpus-id\tscore\n"
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
    assert [document for document, _ in read_trec_run(run, Notes())["q"]] == ["c", "b", "a"]


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
        read_trec_run(run, Notes())


def test_a_grade_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    qrels = tmp_path / "qrels"
    qrels.write_text("q 0 d 1\nq 0 e yes\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=":2: 'yes' is not a number"):
        read_trec_judgements(qrels, Notes())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"corpus_jsonl": None},
            "corpus.jsonl cannot be read: No such file or directory; its folder holds candidates.tsv",
        ),
        ({"corpus_jsonl": '{"_id": "d1", "text": "a"}\n{"text": "b"}\n'}, r"corpus.jsonl:2: not an object"),
        ({"queries_jsonl": "[]\n"}, r"queries.jsonl:1: not an object"),
        ({"queries_jsonl": '{"_id": true, "text": "a"}'}, r"queries.jsonl:1: not an object"),
        ({"qrels_test_tsv": "query\tdocument\tscore\n"}, "no column 'query-id'"),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nq1\td1\n"}, ":2: fewer columns"),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1.5\n"}, ":2: '1.5' is not a whole number"),
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


def folder_read(write_folder: Writer, **files: str) -> EvaluationSet:
    return load_set(write_folder(**files), Sources(), top_k=100)


@pytest.mark.promise("E1")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"candidates_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq1\td1\t1\n"},
            r"candidates.tsv:4: .*twice",
        ),
        ({"candidates_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td1 \t1\n"}, r"candidates.tsv:3: .*twice"),
        ({"corpus_jsonl": '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n'}, r"corpus.jsonl:2: .*twice"),
        (
            {"queries_jsonl": '{"_id": "q1", "text": "a"}\n\n{"_id": "q1", "text": "b"}\n'},
            r"jsonl:3: .*twice",
        ),
        ({"qrels_test_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td1\t2\n"}, r"test.tsv:3: .*as 1 and as 2"),
    ],
)
def test_what_stands_in_a_file_twice_is_refused_with_its_line(
    write_folder: Writer, files: dict[str, str], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        folder_read(write_folder, **files)


@pytest.mark.promise("E1")
def test_the_same_judgement_again_changes_nothing_and_is_said(write_folder: Writer) -> None:
    data = folder_read(write_folder, qrels_test_tsv="query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td1\t1\n")
    assert data.judgements == {"q1": {"d1": 1}}
    assert "1 x judgement that stands there already, left out (first at test.tsv:3)" in data.notes.sentence()


@pytest.mark.promise("E2")
def test_a_byte_order_mark_is_no_part_of_the_first_row(write_folder: Writer, tmp_path: Path) -> None:
    marked = {
        "corpus_jsonl": "\ufeff" + '{"_id": "d1", "text": "a"}\n',
        "queries_jsonl": "\ufeff" + '{"_id": "q1", "text": "a"}\n',
        "qrels_test_tsv": "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n",
        "candidates_tsv": "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n",
    }
    data = folder_read(write_folder, **marked)
    assert (data.judgements, data.candidates) == ({"q1": {"d1": 1}}, {"q1": [("d1", 1.0)]})
    run, qrels = tmp_path / "run", tmp_path / "qrels.txt"
    qrels.write_text("\ufeffq 0 d 1\n", encoding="utf-8")
    run.write_text("\ufeffq Q0 d 1 1 t\n", encoding="utf-8")
    assert read_trec_judgements(qrels, Notes()) == {"q": {"d": 1}}
    assert read_trec_run(run, Notes()) == {"q": [("d", 1.0)]}


@pytest.mark.promise("E3")
@pytest.mark.parametrize("title", ["NaN", "null", "5", "[]", "true", "Infinity"])
def test_a_title_that_is_no_text_is_none(write_folder: Writer, title: str) -> None:
    data = folder_read(write_folder, corpus_jsonl=f'{{"_id": "d1", "title": {title}, "text": "a"}}\n')
    assert data.documents == {"d1": "a"}
    assert ("title" in data.notes.sentence()) == (title != "null")


@pytest.mark.promise("E3")
def test_a_text_that_is_none_is_refused(write_folder: Writer) -> None:
    with pytest.raises(EvaluationError, match=r"corpus.jsonl:1: not an object"):
        folder_read(write_folder, corpus_jsonl='{"_id": "d1", "text": NaN}\n')


@pytest.mark.promise("E4")
def test_blanks_around_ids_are_removed_and_said(write_folder: Writer) -> None:
    data = folder_read(
        write_folder,
        corpus_jsonl='{"_id": " d1", "text": "a"}\n{"_id": "d2\\u00a0", "text": "b"}\n',
        queries_jsonl='{"_id": "q1", "text": "a"}\n{"_id": "q2 ", "text": "b"}\n',
        qrels_test_tsv="query-id\tcorpus-id\tscore \nq1 \td1\t1\nq2\t d2\t1 \n",
        candidates_tsv="query-id\tcorpus-id\tscore\nq1\td1 \t1\n q2\td2\t1\n",
    )
    assert data.queries == {"q1": "a", "q2": "b"}
    assert data.judgements == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert data.candidates == {"q1": [("d1", 1.0)], "q2": [("d2", 1.0)]}
    assert set(data.documents) == {"d1", "d2"}
    assert "blanks around an id or number, removed" in data.notes.sentence()


@pytest.mark.promise("E4")
def test_what_fits_nothing_is_counted(write_folder: Writer) -> None:
    data = folder_read(
        write_folder,
        qrels_test_tsv="query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\nq9\td1\t1\n",
        candidates_tsv="query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td99\t1\nq8\td1\t1\n",
    )
    sentence = data.notes.sentence()
    for part in (
        "1 x judged query without a text",
        "1 x list of candidates for a query that is not judged",
        "1 x query without candidates, counted as 0",
        "1 x candidate without a text",
    ):
        assert part in sentence


@pytest.mark.promise("E6")
def test_grades_of_pandas_and_ids_that_are_numbers_are_read(write_folder: Writer) -> None:
    data = folder_read(
        write_folder,
        corpus_jsonl='{"_id": 1, "text": "a"}\n',
        queries_jsonl='{"_id": 7, "text": "b"}\n',
        qrels_test_tsv="query-id\tcorpus-id\tscore\n7\t1\t1.0\n",
        candidates_tsv="query-id\tcorpus-id\tscore\n7\t1\t1\n",
    )
    assert data.judgements == {"7": {"1": 1}}
    assert data.documents == {"1": "a"}
    assert "grade such as 1.0, read as 1" in data.notes.sentence()
    assert "_id that is a number, read as text" in data.notes.sentence()


@pytest.mark.promise("E6")
@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "1e999", "NaN"])
def test_a_score_that_is_no_finite_number_is_refused(write_folder: Writer, tmp_path: Path, score: str) -> None:
    run = tmp_path / "run"
    run.write_text(f"q Q0 a 1 2 t\nq Q0 b 2 {score} t\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"run:2: .* is not a finite number"):
        read_trec_run(run, Notes())
    with pytest.raises(EvaluationError, match=r"candidates.tsv:2: .* is not a finite number"):
        folder_read(write_folder, candidates_tsv=f"query-id\tcorpus-id\tscore\nq1\td1\t{score}\n")


@pytest.mark.promise("E6")
def test_a_split_that_is_not_there_names_those_that_are(write_folder: Writer) -> None:
    folder = write_folder()
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    with pytest.raises(EvaluationError, match="there is dev: choose with --split"):
        load_set(folder, Sources(), top_k=100)
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(EvaluationError, match=r"no qrels/\*\.tsv at all"):
        load_set(folder, Sources(), top_k=100)


@pytest.mark.promise("P9")
@pytest.mark.timeout(30)
def test_hostile_lines_are_named_and_long_ones_are_read(write_folder: Writer) -> None:
    folder = write_folder()
    long = "x" * 500_000
    (folder / "corpus.jsonl").write_text(f'{{"_id": "d1", "text": "{long}"}}\n', encoding="utf-8")
    tail = "\t" + long
    (folder / "candidates.tsv").write_text(f"query-id\tcorpus-id\tscore\tnote\nq1\td1\t1{tail}\n", encoding="utf-8")
    assert load_set(folder, Sources(), top_k=100).documents == {"d1": long}
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n' + "[" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"corpus.jsonl:2: not an object"):
        load_set(folder, Sources(), top_k=100)
    (folder / "corpus.jsonl").unlink()
    os.mkfifo(folder / "corpus.jsonl")
    with pytest.raises(EvaluationError, match="is a FIFO"):
        load_set(folder, Sources(), top_k=100)
