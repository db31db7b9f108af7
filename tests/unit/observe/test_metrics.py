from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from rerankd.observe.metrics import Metrics

PACKAGE = Path(__file__).parents[3] / "src" / "rerankd"


def test_two_servers_in_one_process_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.truncated_pairs.inc(3)
    assert b"reranker_truncated_pairs_total 3.0" in generate_latest(first.registry)
    assert b"reranker_truncated_pairs_total 0.0" in generate_latest(second.registry)


def test_every_metric_has_a_sentence_and_our_prefix() -> None:
    families = list(Metrics().registry.collect())
    assert len(families) > 10
    for family in families:
        assert family.name.startswith("reranker_")
        assert family.documentation.endswith(".")


def test_every_metric_is_used_somewhere() -> None:
    declared = {name for name in vars(Metrics()) if name != "registry"}
    used = {name for file in PACKAGE.rglob("*.py") for name in metrics_named_in(file)}
    assert declared - used == set()


def metrics_named_in(file: Path) -> Iterator[str]:
    """``documents`` of ``self._metrics.documents``; what is assigned is declared, not used."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("metrics"):
            yield node.attr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus")
def test_prometheus_finds_nothing_to_complain_about() -> None:
    metrics = Metrics()
    metrics.requests.labels("POST", "/rerank", "200").inc()
    metrics.request_duration.labels("POST", "/rerank").observe(0.1)
    page = generate_latest(metrics.registry)
    assert b"_created" not in page
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
