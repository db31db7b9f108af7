"""The deployment files say what their own tools accept, and name settings, metrics and routes that exist."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.live import ROOT

from rerankd.observe.metrics import Metrics
from rerankd.settings import Settings

DEPLOY = ROOT / "deploy"
SERIES = re.compile(r"\b(?:reranker_\w+|rerankd:[\w:]+)")


def needs(tool: str) -> str:
    """The path of a command, or a skip that names it."""
    found = shutil.which(tool, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {tool}")
    return found


def run(words: Sequence[str | Path], **options: Any) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def declared_series() -> set[str]:
    """Every name that a scrape of the server can have."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names.update(family.name + suffix for suffix in suffixes)
    return names


def recorded() -> set[str]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def panels() -> Iterator[dict[str, Any]]:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    return (panel for panel in board["panels"] if panel["type"] != "row")


def test_the_dockerfile_is_clean() -> None:
    run([needs("hadolint"), "--config", DEPLOY / "docker" / "hadolint.yaml", DEPLOY / "docker" / "Dockerfile"])


def test_manifests_fit_the_schemas_of_kubernetes(tmp_path: Path) -> None:
    kubectl, validate = needs("kubectl"), needs("kubernetes-validate")
    manifests = {overlay: tmp_path / f"{overlay}.yaml" for overlay in ("base", "keda", "gpu")}
    for overlay, file in manifests.items():
        file.write_text(run([kubectl, "kustomize", DEPLOY / "kubernetes" / overlay]))
    run([validate, "--strict", *manifests.values()])
    for overlay, file in manifests.items():
        kinds = {document["kind"] for document in yaml.safe_load_all(file.read_text())}
        assert {"Deployment", "Service", "PodDisruptionBudget"} <= kinds
        assert ("ScaledObject" in kinds) == (overlay == "keda")
        assert ("HorizontalPodAutoscaler" in kinds) == (overlay != "keda")


def test_alerts_fire_when_they_shall_and_only_then() -> None:
    run([needs("promtool"), "test", "rules", DEPLOY / "prometheus" / "rules_test.yml"])


def test_rules_and_panels_ask_for_series_that_exist() -> None:
    known = declared_series() | recorded()
    rules = set(SERIES.findall((DEPLOY / "prometheus" / "rules.yml").read_text()))
    queries = {target["expr"] for panel in panels() for target in panel["targets"]}
    asked = {name for query in queries for name in SERIES.findall(query)}
    assert rules - known == set()
    assert asked - known == set()
    assert recorded() - asked - rules == set()


def test_the_dashboard_is_what_its_generator_writes() -> None:
    run([sys.executable, DEPLOY / "grafana" / "generate.py", "--check"])


@pytest.mark.parametrize("upstream", ["least-connections.conf", "hash-by-query.conf"])
def test_nginx_takes_its_files(upstream: str, tmp_path: Path) -> None:
    nginx = needs("nginx")
    shutil.copytree(DEPLOY / "nginx", tmp_path, dirs_exist_ok=True)
    main = tmp_path / "nginx.conf"
    main.write_text(main.read_text().replace("least-connections.conf;", f"{upstream};"))
    run([nginx, "-t", "-p", tmp_path, "-c", "nginx.conf", "-g", "user root;"])


def test_compose_files_fit_the_compose_specification() -> None:
    files = [DEPLOY / "compose" / name for name in ("compose.yaml", "compose.gpu.yaml")]
    run([needs("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files])


def test_compose_documents_every_variable_that_it_reads() -> None:
    text = "".join(file.read_text() for file in (DEPLOY / "compose").glob("*.yaml"))
    read = set(re.findall(r"\$\{(\w+)", text))
    documented = set(re.findall(r"^(\w+)=", (DEPLOY / "compose" / ".env.example").read_text(), re.MULTILINE))
    assert read == documented


def test_files_name_settings_that_exist() -> None:
    known = {f"RERANKD_{name.upper()}" for name in Settings.__dataclass_fields__}
    # Of the compose file itself, not of the server.
    known |= {"RERANKD_IMAGE", "RERANKD_METRICS_KEY"}
    files = [file for file in DEPLOY.rglob("*") if file.is_file() and file.suffix != ".py"]
    named = {name for file in files for name in re.findall(r"\bRERANKD_[A-Z_]+\b", file.read_text())}
    assert named - known == set()
    for file in DEPLOY.rglob("rerankd.toml"):
        assert tomllib.loads(file.read_text()).keys() <= Settings.__dataclass_fields__.keys()


def test_the_ray_service_names_an_application_that_is_there() -> None:
    manifest = yaml.safe_load((DEPLOY / "kubernetes" / "ray" / "ray-service.yaml").read_text())
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    module, function = application["import_path"].split(":")
    tree = ast.parse((ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    schema = pytest.importorskip("ray.serve.schema", reason="needs ray: pip install 'rerankd[ray]'")
    schema.ServeDeploySchema.model_validate(config)
