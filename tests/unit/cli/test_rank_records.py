"""rerankd rank --input: records of any number, in order, nothing lost and nothing twice."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.live import ROOT, LiveServer

from rerankd.cli.main import cli
from rerankd.cli.records import output, scorers
from rerankd.cli.records.fields import Scored
from rerankd.types import RerankRequest

pytestmark = pytest.mark.timeout(600)

FAKE = ("--engine", "fake")
QUERY = "What is the capital of France?"
PARIS, BERLIN = "Paris is the capital of France.", "Berlin is the capital of Germany."


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["rank", *arguments], input=text, catch_exceptions=False)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, records: Iterable[Any]) -> Path:
    with file.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write((record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)) + "\n")
    return file


def pairs(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": number, "query": QUERY, "document": f"document {number}"} for number in range(count))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pairs_get_a_score_and_lists_get_results(folder: Path) -> None:
    both = [
        {"query": QUERY, "document": PARIS, "id": "ü"},
        {"query": QUERY, "documents": [BERLIN, {"text": PARIS}]},
    ]
    write(folder / "in.jsonl", both)
    done = run("--input", "in.jsonl", "--output", "out.jsonl")
    pair, listed = lines(folder / "out.jsonl")
    assert done.exit_code == 0
    assert 0.5 < pair.pop("score") <= 1
    assert pair == both[0]
    assert [row["index"] for row in listed.pop("results")] == [1, 0]
    assert listed == both[1]
    assert sorted(os.listdir(folder)) == ["in.jsonl", "out.jsonl"]


def test_a_score_is_that_of_the_same_pair_among_lines(folder: Path) -> None:
    write(folder / "in.jsonl", [{"query": QUERY, "document": text} for text in (PARIS, BERLIN)])
    records = [json.loads(line)["score"] for line in run("--input", "in.jsonl", *FAKE).stdout.splitlines()]
    text = f"{PARIS}\n{BERLIN}\n"
    done = run(QUERY, "--documents", "-", "--json", *FAKE, text=text)
    listed = sorted(json.loads(done.stdout)["results"], key=lambda row: row["index"])
    assert records == pytest.approx([row["relevance_score"] for row in listed], abs=1e-5)


def test_a_pipe_is_read_and_written() -> None:
    text = json.dumps({"query": QUERY, "document": PARIS}) + "\n"
    done = run("--input", "-", *FAKE, text=text)
    assert list(json.loads(done.stdout)) == ["query", "document", "score"]


def test_one_query_is_given_for_all_and_fields_have_other_names(folder: Path) -> None:
    write(folder / "in.jsonl", [{"q": QUERY, "passage": PARIS}, {"passage": BERLIN}])
    done = run(QUERY, "--input", "in.jsonl", "--document-field", "passage", "--score-field", "s", *FAKE)
    first, second = (json.loads(line)["s"] for line in done.stdout.splitlines())
    assert first != second
    named = run("--input", "in.jsonl", "--query-field", "q", "--document-field", "passage", *FAKE)
    assert named.exit_code == 1
    assert "line 2: the field 'q' is missing (--query-field)" in named.stderr


def test_csv_keeps_its_quotes_and_tsv_its_cells(folder: Path) -> None:
    text = 'id,document\n1,"two\nlines, and ""quotes"""\n\n2,plain\n3,too,many\n'
    (folder / "in.csv").write_text("\ufeff" + text, encoding="utf-8")
    done = run("q", "--input", "in.csv", "--output", "out.csv", *FAKE)
    assert done.exit_code == 1
    rows = list(csv.reader(io.StringIO((folder / "out.csv").read_text(encoding="utf-8"))))
    assert [row[:2] for row in rows] == [["id", "document"], ["1", 'two\nlines, and "quotes"'], ["2", "plain"]]
    assert rows[0][2] == "score"
    assert lines(folder / "out.csv.failures.jsonl") == [{"line": 6, "reason": "it has 3 cells, and the header has 2"}]
    (folder / "in.tsv").write_text('id\tdocument\n1\ta "word\n', encoding="utf-8")
    assert run("q", "--input", "in.tsv", *FAKE).stdout.splitlines()[1].startswith('1\ta "word\t')


def test_parquet_is_read_and_gone_on_with(folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    table = arrow.table({"query": [QUERY] * 7, "documents": [[PARIS, BERLIN]] * 7, "id": range(7)})
    parquet.write_table(table, "in.parquet", row_group_size=3)
    with interrupted_after(4):
        run("--input", "in.parquet", "--output", "out.jsonl", *FAKE)
    assert run("--input", "in.parquet", "--output", "out.jsonl", *FAKE).exit_code == 0
    assert [row["id"] for row in lines(folder / "out.jsonl")] == list(range(7))
    assert all(len(row["results"]) == 2 for row in lines(folder / "out.jsonl"))


def test_without_pyarrow_parquet_is_refused_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "in.parquet").write_bytes(b"PAR1")
    done = run("--input", "in.parquet", *FAKE)
    assert done.exit_code == 2
    assert done.stderr == "rerankd: Parquet needs pyarrow: pip install 'rerankd[parquet]'\n"


def test_what_cannot_be_scored_stands_beside_the_output_with_its_line(folder: Path) -> None:
    bad: dict[Any, str] = {
        "{nope": "it is not JSON: Expecting property name enclosed in double quotes at letter 2",
        "[1]": "it is not a JSON object",
        "[" * 100_000: "it is JSON nested too deeply",
        '{"query": " ", "document": "a"}': "the field 'query' is blank",
        '{"query": 7, "document": "a"}': "the field 'query' holds no text (--query-field)",
        '{"query": "q"}': "the field 'document' is missing (--document-field)",
        '{"query": "q", "documents": []}': "the list 'documents' is empty",
        '{"query": "q", "documents": ["a", 1]}': "item 1 of the list 'documents' holds no text",
        json.dumps({"query": "q", "document": "x" * 101}): (
            "its documents have more than 100 characters (--max-request-characters)"
        ),
        '{"query": "q", "document": "%s"}' % ("y" * 700): "it has more than 600 bytes (--max-request-characters)",
    }
    good = json.dumps({"query": "q", "document": "a"})
    write(folder / "in.jsonl", itertools.chain.from_iterable((text, good) for text in bad))
    limit = ("--max-request-characters", "100")
    done = run("--input", "in.jsonl", "--output", "out.jsonl", *limit, *FAKE)
    found = lines(folder / "out.jsonl.failures.jsonl")
    assert done.exit_code == 1
    assert len(lines(folder / "out.jsonl")) == len(bad)
    assert [row["line"] for row in found] == list(range(1, 2 * len(bad), 2))
    reasons = [row["reason"] for row in found]
    reasons[2] = "it is JSON nested too deeply" if "more than 600 bytes" in reasons[2] else reasons[2]
    assert reasons == list(bad.values())


def test_bytes_that_are_no_text_fail_alone(folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(b'{"query": "q", "document": "\xff"}\n{"query": "q", "document": "b"}\n')
    done = run("--input", "in.jsonl", *FAKE)
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 1)
    assert "line 1: it is not UTF-8 text" in done.stderr


class interrupted_after:
    """A run whose scorer stops after so many records, as a signal would; checkpoints are written at each record."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        whole = scorers.LocalScorer.score

        def some(self_: Any, requests: Iterable[RerankRequest]) -> Iterator[Scored]:
            yield from itertools.islice(whole(self_, requests), self._count)
            raise KeyboardInterrupt

        self._patch.setattr(scorers.LocalScorer, "score", some)
        self._patch.setattr(output, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def __exit__(self, *error: object) -> None:
        self._patch.undo()


@pytest.mark.parametrize("stop", [0, 1, 30, 49])
def test_an_interrupted_run_goes_on_where_it_stopped(folder: Path, stop: int) -> None:
    records = [record if number % 7 else "broken" for number, record in enumerate(pairs(50))]
    write(folder / "in.jsonl", records)
    whole = run("--input", "in.jsonl", *FAKE).stdout
    with interrupted_after(stop):
        done = run("--input", "in.jsonl", "--output", "out.jsonl", *FAKE)
        assert done.exit_code == 130
        assert "the same command goes on here" in done.stderr
    # As a kill would leave it: whole lines behind the checkpoint, and a torn one.
    with (folder / "out.jsonl").open("a") as torn:
        torn.write('{"id": 999}\n{"id": 1000, "que')
    with (folder / "out.jsonl.failures.jsonl").open("a") as torn:
        torn.write('{"line"')
    assert run("--input", "in.jsonl", "--output", "out.jsonl", *FAKE).exit_code == 1
    assert (folder / "out.jsonl").read_text(encoding="utf-8") == whole
    assert [row["line"] for row in lines(folder / "out.jsonl.failures.jsonl")] == list(range(1, 51, 7))
    assert sorted(os.listdir(folder)) == ["in.jsonl", "out.jsonl", "out.jsonl.failures.jsonl"]


def test_the_output_of_another_run_is_not_touched(folder: Path) -> None:
    write(folder / "in.jsonl", pairs(9))
    again = ("--input", "in.jsonl", "--output", "out.jsonl", *FAKE)
    with interrupted_after(3):
        run(*again)
    before = (folder / "out.jsonl").read_bytes()
    other = run(*again, "--instruction", "other")
    assert other.exit_code == 2
    assert "unfinished output of a run with another instruction" in other.stderr
    write(folder / "in.jsonl", pairs(8))
    assert "a run with another input" in run(*again).stderr
    assert (folder / "out.jsonl").read_bytes() == before
    assert run(*again, "--fresh").exit_code == 0
    assert len(lines(folder / "out.jsonl")) == 8
    done = run(*again)
    assert done.exit_code == 2
    assert "out.jsonl is there already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--documents"),
        (("--input", "in.jsonl", "--output", "in.jsonl"), "one file"),
        (("--input", "in.txt"), "--format"),
        (("--input", "no.jsonl"), "no.jsonl cannot be read"),
        (("--input", "in.jsonl", "--output", "no/out.jsonl"), "cannot be written"),
        (("--input", "in.jsonl", "--output", "out.parquet"), "write JSONL, CSV or TSV"),
        (("--input", "in.jsonl", "--output", "out.csv"), "write JSONL, not CSV"),
        (("--input", "in.jsonl", "--json"), "--json has no effect with --input"),
        (("q", "--documents", "in.jsonl", "--fresh"), "--fresh has no effect with --documents"),
        (("--input", "in.jsonl", "--url", "http://x", "--dtype", "int8"), "--dtype has no effect with --url"),
        (("--input", "in.jsonl", "--url", "x"), "--url: base_url has to be an address"),
    ],
)
def test_what_cannot_work_is_refused(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    write(folder / "in.jsonl", pairs(1))
    done = run(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_running_server_scores_too(folder: Path, tiny_server: LiveServer) -> None:
    records: list[Any] = [{"query": QUERY, "document": text} for text in (PARIS, BERLIN)] * 90
    records[5] = {"query": QUERY, "documents": [BERLIN, PARIS]}
    records[7] = {"query": "x" * 20_001, "document": "too long a query for the server"}
    write(folder / "in.jsonl", records)
    done = run("--input", "in.jsonl", "--output", "out.jsonl", "--url", tiny_server.url)
    found = lines(folder / "out.jsonl")
    assert done.exit_code == 1
    assert len(found) == len(records) - 1
    assert found[0]["score"] > found[1]["score"]
    assert [row["index"] for row in found[5]["results"]] == [1, 0]
    (failure,) = lines(folder / "out.jsonl.failures.jsonl")
    assert failure["line"] == 8
    table = run(QUERY, "--documents", "-", "--url", tiny_server.url, text=f"{BERLIN}\n{PARIS}\n")
    assert "Paris" in table.stdout.splitlines()[1]


def test_progress_says_how_far_how_fast_and_how_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.cli.records.progress._SECONDS_IN_A_FILE", 0.0)
    write(folder / "in.jsonl", [*pairs(9), "broken"])
    done = run("--input", "in.jsonl", "--progress", *FAKE)
    assert "100 %, 10 records, " in done.stderr
    assert "/s, 0:00:00 left, 1 failed" in done.stderr
    assert " left" not in run("--input", "in.jsonl", *FAKE).stderr
    write(folder / "one.jsonl", pairs(1))
    assert done.stderr.splitlines()[-1].startswith("rerankd: 10 records, ")
    assert run("--input", "one.jsonl", *FAKE).stderr.startswith("rerankd: 1 record, ")


def memory_of(process: int) -> int:
    """Bytes of a process in memory; 0 once it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_million_records_are_killed_and_gone_on_with(folder: Path) -> None:
    count, most_growth = 1_000_000, 50_000_000
    write(folder / "in.jsonl", pairs(count))
    size = (folder / "in.jsonl").stat().st_size
    checkpoint = folder / "out.jsonl.checkpoint.json"
    command = [sys.executable, "-m", "rerankd", "rank", "--input", "in.jsonl", "--output", "out.jsonl", *FAKE]
    growth, rates = [], []
    for kill_at in (0.6, 2.0):
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE
        )
        first = largest = 0
        while process.poll() is None:
            time.sleep(0.5)
            place = json.loads(checkpoint.read_text())["position"]["place"] if checkpoint.exists() else 0
            # Once the model is loaded and the first windows were scored.
            if place > (0.05 if kill_at < 1 else 0.65) * size:
                first = first or memory_of(process.pid)
            largest = max(largest, memory_of(process.pid)) if first else 0
            if place >= kill_at * size:
                process.send_signal(signal.SIGKILL)
                process.wait()
        said = process.communicate()[1].decode()
        growth.append(largest - first)
        rates.append(said.strip())
    print(f"\nmemory grew by {growth} bytes; {rates[-1]}")
    assert process.returncode == 0
    with (folder / "out.jsonl").open(encoding="utf-8") as stream:
        found = (json.loads(line) for line in stream)
        assert all(row["id"] == number for number, row in enumerate(found))
        stream.seek(0)
        assert sum(1 for _ in stream) == count
    assert max(growth) < most_growth
    assert not checkpoint.exists()
