"""The TypeScript client: its own tests, the cases it shares with Python (M-04), and the package as a user gets it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.live import LiveServer

import rerankd

PACKAGE = Path(__file__).parents[3] / "clients" / "typescript"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```ts\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PUBLISHED = "http://127.0.0.1:8000"

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"
)
needs_packages = pytest.mark.skipif(
    not (PACKAGE / "node_modules").is_dir(),
    reason="no clients/typescript/node_modules: `make typescript` installs them",
)


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_the_servers() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == rerankd.__version__
    assert "dependencies" not in package


def test_the_lock_file_names_no_registry() -> None:
    lock = (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in lock
    assert "integrity" in lock


@needs_node
@needs_packages
@pytest.mark.promise("M-04")
def test_both_languages_pass_the_same_cases() -> None:
    run("npm", "run", "check", cwd=PACKAGE)
    report = json.loads(run("npx", "vitest", "run", "--reporter=json", cwd=PACKAGE))
    assert report["success"]
    cases = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
    ran = {
        test["title"]
        for file in report["testResults"]
        for test in file["assertionResults"]
        if test["status"] == "passed"
    }
    assert [case["name"] for case in cases if "python_only" not in case and case["name"] not in ran] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project into which the packed package is installed, as a user does it."""
    folder = tmp_path_factory.mktemp("user")
    packed = json.loads(run("npm", "pack", "--json", "--pack-destination", str(folder), cwd=PACKAGE))
    (described,) = packed.values() if isinstance(packed, dict) else packed
    (folder / "files.json").write_text(json.dumps([file["path"] for file in described["files"]]), encoding="utf-8")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    run("npm", "install", "--offline", "--no-audit", "--no-fund", f"./{described['filename']}", cwd=folder)
    return folder


@needs_node
@needs_packages
def test_the_package_holds_what_is_run_and_read_and_nothing_else(installed: Path) -> None:
    files = json.loads((installed / "files.json").read_text(encoding="utf-8"))
    beside = [file for file in files if not re.fullmatch(r"dist/(esm|cjs)/(generated/)?\w+(\.d)?\.(ts|js)", file)]
    assert sorted(beside) == ["LICENSE", "README.md", "dist/cjs/package.json", "package.json"]


@needs_node
@needs_packages
def test_a_users_file_passes_strict_and_runs(installed: Path, tiny_server: LiveServer) -> None:
    shutil.copy(PACKAGE / "test" / "user.ts", installed / "user.ts")
    compiler = str(PACKAGE / "node_modules" / ".bin" / "tsc")
    strict = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "false", "--types", ""]
    run(compiler, *strict, "--exactOptionalPropertyTypes", "user.ts", cwd=installed)
    extras = {"relevant": False, "isFused": True, "pairs": 1, "models": ["tiny"]}
    expected = extras | {"best": 2, "order": [[0, 1], "InvalidRequest"], "status": "healthy"}
    runtimes = [["node"], ["deno", "run", "--allow-net", "--no-check"], ["bun"]]
    for command in runtimes:
        if shutil.which(command[0]):
            said = json.loads(run(*command, "user.js", tiny_server.url, cwd=installed))
            assert said.pop("refused").startswith("invalid_request")
            assert said == expected


@needs_node
@needs_packages
def test_require_gives_the_same_client(installed: Path, tiny_server: LiveServer) -> None:
    (installed / "user.cjs").write_text(
        'const { RerankerClient } = require("rerankd");\n'
        "new RerankerClient(process.argv[2]).healthCheck().then((health) => console.log(health.status));\n",
        encoding="utf-8",
    )
    assert run("node", "user.cjs", tiny_server.url, cwd=installed) == "healthy\n"


@needs_node
@needs_packages
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_readme_runs(block: str, installed: Path, tiny_server: LiveServer) -> None:
    file = installed / f"block{os.getpid()}.mjs"
    file.write_text(block.replace(PUBLISHED, tiny_server.url), encoding="utf-8")
    assert run("node", file.name, cwd=installed)
