"""``rerankd evaluate`` from the command line to its files."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.live import LiveServer
from tests.tokenizer_fixtures import prompts

from rerankd.cli.main import cli

DOCUMENTS = {
    "d1": "Paris is the capital of France",
    "d2": "a query about documents",
    "d3": "instructions and relevance",
    "d4": "yes and no",
}
QUERIES = {"q1": "the capital of France", "q2": "documents", "q3": "relevance of instructions"}
GRADES = {"q1": {"d1": 2, "d4": 1}, "q2": {"d2": 1, "d3": 0}, "q3": {"d3": 3, "d2": 1, "d1": 1}}


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run draws its report before it begins, which takes longer than the rest of it here."""
    if "with_pictures" not in request.fixturenames:
        monkeypatch.setattr("rerankd.evaluate.plots._svg", lambda figure: "<svg></svg>")


@pytest.fixture
def with_pictures() -> None:
    """For tests of the pictures themselves."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (made / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    rows = [f"{query}\t{document}\t{grade}" for query, row in GRADES.items() for document, grade in row.items()]
    (made / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows), encoding="utf-8")
    rows = [
        f"{query}\t{document}\t{place}\t{-place}" for query in QUERIES for place, document in enumerate(DOCUMENTS)
    ]
    (made / "candidates.tsv").write_text("query-id\tcorpus-id\trank\tscore\n" + "\n".join(rows), encoding="utf-8")
    return made


def run(folder: Path, *arguments: str) -> Result:
    given = ["evaluate", str(folder), "--checkpoints", str(folder.parent / "kept"), *arguments]
    return CliRunner().invoke(cli, given, catch_exceptions=False)


def figures(folder: Path, *arguments: str) -> dict[str, Any]:
    file = folder.parent / "report.json"
    result = run(folder, "--json", str(file), *arguments)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def ndcg(ranked: list[str], grades: dict[str, int]) -> float:
    def gain(values: list[int]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(values[:10]))

    return gain([grades.get(document, 0) for document in ranked]) / gain(sorted(grades.values(), reverse=True))


def average_precision(ranked: list[str], grades: dict[str, int]) -> float:
    relevant = [place for place, document in enumerate(ranked, start=1) if grades.get(document, 0) > 0]
    return sum(found / place for found, place in enumerate(relevant, start=1)) / sum(g > 0 for g in grades.values())


def reciprocal(ranked: list[str], grades: dict[str, int]) -> float:
    return 1 / next(place for place, document in enumerate(ranked, start=1) if grades.get(document, 0) > 0)


def mean(measure: Any, rankings: dict[str, list[str]]) -> float:
    return sum(measure(ranked, GRADES[query]) for query, ranked in rankings.items()) / len(rankings)


def random_checkpoint(folder: Path, tokenizer: Path, **sizes: int) -> Path:
    """A Qwen3 checkpoint in the released layout with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.Qwen3Config(tie_word_embeddings=True, **sizes)
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


def ranked_by_transformers(checkpoint: Path) -> dict[str, list[str]]:
    """The order that the model itself gives, one pair at a time, by the model card's rule."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from rerankd.checkpoint import Checkpoint

    opened = Checkpoint.open(str(checkpoint))
    head = opened.tokenizer.head_spec()
    model = transformers.Qwen3ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    instruction = opened.template.default_instruction
    rankings = {}
    for query, text in QUERIES.items():
        scores = {}
        for document, ids in zip(
            DOCUMENTS, prompts(opened.tokenizer, instruction, text, list(DOCUMENTS.values())), strict=True
        ):
            with torch.inference_mode():
                logits = model(torch.tensor(ids[None].astype("int64"))).logits[0, -1]
            scores[document] = float(logits[head.positive] - logits[head.negative])
        rankings[query] = sorted(scores, key=lambda document: -scores[document])
    return rankings


def check_hand_made_example(folder: Path, checkpoint: Path) -> None:
    found = figures(folder, "--model", str(checkpoint), "--dtype", "float32", "--threads", "1")["sets"]["made"]
    rankings = ranked_by_transformers(checkpoint)
    assert len(set(map(tuple, rankings.values()))) > 1
    for name, measure in (("ndcg@10", ndcg), ("map", average_precision), ("mrr@10", reciprocal)):
        assert found["reranked"][name] == pytest.approx(mean(measure, rankings), abs=5e-5)
        assert found["candidates"][name] == pytest.approx(
            mean(measure, {query: list(DOCUMENTS) for query in QUERIES}), abs=5e-5
        )
    assert found["reranked"]["recall@10"] == 1.0


@pytest.mark.thorough
def test_a_random_checkpoint_gives_the_measures_of_a_hand_made_example(
    folder: Path, tmp_path: Path, small_tokenizer_file: Path
) -> None:
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    check_hand_made_example(folder, random_checkpoint(tmp_path / "random", small_tokenizer_file, **sizes, **heads))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_random_checkpoint_in_the_layout_of_06b_gives_the_measures_of_a_hand_made_example(
    folder: Path, tmp_path: Path, qwen3_file: Path
) -> None:
    sizes = {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    check_hand_made_example(folder, random_checkpoint(tmp_path / "random", qwen3_file, **sizes, **heads))


@pytest.mark.usefixtures("with_pictures")
def test_all_three_reports_are_written(folder: Path, tmp_path: Path) -> None:
    markdown, html = tmp_path / "report.md", tmp_path / "report.html"
    report = figures(folder, "--engine", "fake", "--markdown", str(markdown), "--html", str(html))
    assert {"candidates", "reranked", "fused"} <= report["sets"]["made"].keys()
    assert report["sets"]["made"]["pairs"] == 12
    assert "| made | 3 |" in markdown.read_text(encoding="utf-8")
    assert "<svg" in html.read_text(encoding="utf-8")


def test_without_candidates_they_are_bm25s(folder: Path) -> None:
    (folder / "candidates.tsv").unlink()
    found = figures(folder, "--engine", "fake")["sets"]["made"]
    assert found["candidates"]["mrr@10"] == 1.0
    assert 0 < found["pairs"] < 12


def test_a_trec_run_and_qrels_may_stand_for_the_folders_own(folder: Path, tmp_path: Path) -> None:
    trec_run, qrels = tmp_path / "run", tmp_path / "qrels"
    trec_run.write_text("q2 Q0 d4 1 2.5 bm25\nq2 Q0 d2 2 1.5 bm25\n", encoding="utf-8")
    qrels.write_text("q2 0 d2 1\n", encoding="utf-8")
    found = figures(folder, "--engine", "fake", "--run", str(trec_run), "--qrels", str(qrels))["sets"]["made"]
    assert (found["queries"], found["pairs"], found["candidates"]["mrr@10"]) == (1, 2, 0.5)


def test_several_instructions_make_one_comparison(folder: Path) -> None:
    report = figures(folder, "--engine", "fake", "--instruction", "find it", "--instruction", "judge it")
    assert [system["instruction"] for system in report["systems"]] == ["find it", "judge it"]
    assert report["sets"] == report["systems"][0]["sets"]


def test_a_served_name_of_the_settings_brings_its_own_instruction(folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[models.laws]\nmodel = "tiny"\ninstruction = "find the law"\n', encoding="utf-8")
    report = figures(folder, "--engine", "fake", "--config", str(settings), "--model", "laws", "--model", "tiny")
    assert [system["label"] for system in report["systems"]] == ["laws", "tiny"]
    assert [system["instruction"] for system in report["systems"]] == ["find the law", None]


def test_a_second_run_scores_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rerankd.core.engine_core import EngineCore

    first = figures(folder, "--engine", "fake")

    def refuse(core: EngineCore, request: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(EngineCore, "add", refuse)
    assert figures(folder, "--engine", "fake")["sets"] == first["sets"]
    with pytest.raises(AssertionError, match="scored again"):
        run(folder, "--engine", "fake", "--fresh")


def test_a_running_server_gives_the_figures_of_the_model_in_process(folder: Path, tiny_server: LiveServer) -> None:
    served = figures(folder, "--url", tiny_server.url)["sets"]["made"]
    local = figures(folder, "--model", "tiny", "--threads", "1")["sets"]["made"]
    for part in ("reranked", "fused", "by_query", "pairs", "tokens"):
        assert served[part] == local[part]


def test_a_report_does_not_give_the_key_away(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = importlib.import_module("rerankd.cli.evaluate")._command_line
    shown = command_line(["evaluate", "x", "--api-key", "secret", "--url", "http://server.test", "--api-key=secret"])
    assert "secret" not in shown
    assert "--url http://server.test" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://127.0.0.1:9", "--dtype", "float32"], "--dtype has no effect with --url"),
        (["--relevant-from", "high"], "a grade from 1 on"),
        (["--json", "/no/such/folder/report.json"], "there is no folder /no/such/folder"),
        (["--split", "train"], "choose with --split"),
    ],
)
def test_a_wrong_argument_is_said_before_any_work(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_missing_extra_is_one_line_with_its_cure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ir_measures", "bm25s", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    result = run(folder, "--engine", "fake")
    assert result.exit_code == 2
    assert result.output.strip() == "rerankd: there is no ir_measures; install it with: pip install 'rerankd[eval]'"


@pytest.mark.promise("E8")
def test_a_run_in_which_every_pair_failed_says_so_and_its_status_is_not_0(folder: Path) -> None:
    report = folder.parent / "report.md"
    failing = ["--engine", "fake", "--markdown", str(report)]
    with broken_fake_engine():
        result = run(folder, *failing)
    assert result.exit_code == 1
    assert "12 of 12 pairs of tiny have no score" in result.output
    assert "no score" in report.read_text(encoding="utf-8")
    again = run(folder, *failing)
    assert again.exit_code == 0, again.output


@pytest.mark.promise("E8")
def test_a_run_in_which_some_pairs_failed_says_how_many(folder: Path) -> None:
    with broken_fake_engine(first=1):
        result = run(folder, "--engine", "fake", "--fresh")
    assert result.exit_code == 1
    assert re.search(r"\d+ of 12 pairs of tiny have no score", result.output)


@contextlib.contextmanager
def broken_fake_engine(first: int | None = None) -> Iterator[None]:
    """The fake engine gives no number for the ``first`` pairs of each batch, or for all."""
    from rerankd.engine.fake import FakeEngine

    whole = FakeEngine.score

    def score(engine: FakeEngine, batch: Any) -> Any:
        scores = whole(engine, batch).copy()
        if engine.passes > 1:  # the first is that of the start, which checks for such scores
            scores[:first] = math.nan
        return scores

    FakeEngine.score = score  # type: ignore[method-assign]
    try:
        yield
    finally:
        FakeEngine.score = whole  # type: ignore[method-assign]


@pytest.mark.promise("E7")
def test_a_server_says_as_many_truncated_pairs_as_the_model_in_process(folder: Path, tiny_server: LiveServer) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write("\n" + json.dumps({"_id": "long", "text": "word and more " * 3000}))
    with (folder / "candidates.tsv").open("a", encoding="utf-8") as candidates:
        candidates.write("\nq1\tlong\t9\t-9")
    served = figures(folder, "--url", f"{tiny_server.url}/v1")["sets"]["made"]
    local = figures(folder, "--model", "tiny", "--threads", "1", "--max-pair-tokens", "2048")["sets"]["made"]
    assert served["truncated_pairs"] == local["truncated_pairs"] == 1


@pytest.mark.promise("E4", "E6")
def test_a_run_ends_with_what_was_repaired_or_left_out(folder: Path) -> None:
    with (folder / "qrels" / "test.tsv").open("a", encoding="utf-8") as qrels:
        qrels.write("\nq1\td2 \t1.0\nq9\td1\t1")
    result = run(folder, "--engine", "fake")
    assert result.exit_code == 0
    last = [line for line in result.output.splitlines() if "Repaired or left out" in line]
    assert len(last) == 1
    assert "1 x judged query without a text" in last[0]
    assert "(first at test.tsv:" in last[0]


@pytest.mark.promise("P9")
@pytest.mark.usefixtures("with_pictures")
def test_a_folder_with_brackets_and_escapes_in_its_name_ends_well(folder: Path) -> None:
    odd = folder.rename(folder.parent / "[bold]\x1b[31m $\\frac$")
    result = run(odd, "--engine", "fake", "--fresh", "--html", str(folder.parent / "x.html"))
    assert result.exit_code == 0, result.output
    assert "\x1b[31m" not in result.output
    assert "[bold]\\x1b[31m" in result.output


@pytest.mark.promise("U9")
@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_a_user_without_a_home_evaluates_without_keeping_and_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", "/proc" if home == "/" else home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home != "/":
        monkeypatch.setattr("rerankd.cli.evaluate.cache_folder", lambda: None)
    result = CliRunner().invoke(cli, ["evaluate", str(folder), "--engine", "fake"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "not kept" in result.output
