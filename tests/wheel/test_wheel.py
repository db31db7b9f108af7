"""The wheel, built from the source distribution: complete, for every Linux, and fast where no compiler is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from benchmarks.wheel_environment import NO_COMPILER, install_wheel
from build_kernels import CSRC
from tests.live import ROOT, LiveServer, free_port

from rerankd.engine.native.cpu.library import load_kernels

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(600)]

AS_NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip
"""Runs a command as a user who can write nowhere, and may read all: the interpreter may lie in another's home."""
KERNELS = "rerankd/engine/native/cpu/librerankd_kernels.so"
QUESTION = {
    "query": "what is a wheel",
    "documents": ["A wheel is a built distribution.", "Rain falls.", "A wheel turns."],
}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder that another user can read, as pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def build(kind: str, source: Path, target: Path, env: dict[str, str] | None = None) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    run = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = target.glob("rerankd-*")
    return built


@pytest.fixture(scope="module")
def source(scratch: Path) -> Path:
    """The unpacked source distribution."""
    with tarfile.open(build("sdist", ROOT, scratch / "sdist")) as archive:
        archive.extractall(scratch / "source", filter="data")
    (folder,) = (scratch / "source").iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, scratch: Path) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    return build("wheel", source, scratch / "wheel")


def installed(wheel: Path, scratch: Path) -> Path:
    return install_wheel(wheel, scratch / f"env-{wheel.stem}")


class InstalledServer(LiveServer):
    """A server from an installed wheel, as a user who owns nothing and finds no compiler."""

    def __init__(self, python: Path, log: Path) -> None:
        self.port = free_port()
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        become = [shutil.which(AS_NOBODY[0]) or "", *AS_NOBODY[1:]] if os.getuid() == 0 else []
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*become, str(python), "-m", "rerankd", "serve", "--port", str(self.port), "--threads", "1"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=NO_COMPILER,
                cwd="/",
            )


def scores(url: str) -> list[float]:
    results = httpx.post(f"{url}/rerank", json=QUESTION, timeout=30).json()["results"]
    return [result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])]


def test_the_wheel_is_complete_and_fits_any_python_of_the_platform(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {KERNELS, "rerankd/py.typed", "rerankd/models/tiny/model.safetensors"} <= names
    assert not [name for name in names if "csrc" in name], "the sources are in the source distribution"
    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")


def test_the_wheel_runs_on_every_linux_of_the_last_ten_years(wheel: Path, scratch: Path) -> None:
    """The newest version of a symbol of the C library that it asks for is that of glibc 2.17."""
    pytest.importorskip("auditwheel", reason="auditwheel is not installed")
    bin_folder = Path(sys.executable).parent
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(scratch / "repaired"), str(wheel)]
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (repaired,) = (scratch / "repaired").iterdir()
    assert "-py3-none-manylinux_2_17_" in repaired.name or "-py3-none-manylinux2014_" in repaired.name


@pytest.mark.promise("S10", "P10")
def test_an_installed_wheel_uses_its_kernels_where_no_compiler_is(
    wheel: Path, scratch: Path, tmp_path: Path, default_server: LiveServer
) -> None:
    server = InstalledServer(installed(wheel, scratch), tmp_path / "server.log")
    try:
        server.wait_ready()
        assert httpx.get(f"{server.url}/info").json()["kernels"] == load_kernels().isa
        assert scores(server.url) == scores(default_server.url)
    finally:
        server.stop()


@pytest.mark.promise("F1", "S10")
def test_a_wheel_that_was_built_without_a_compiler_serves_and_says_so(
    source: Path, scratch: Path, tmp_path: Path, default_server: LiveServer
) -> None:
    for library in source.rglob("*.so"):
        library.unlink()
    wheel = build("wheel", source, scratch / "pure", env=NO_COMPILER)
    assert wheel.name.endswith("-py3-none-any.whl")
    server = InstalledServer(installed(wheel, scratch), tmp_path / "server.log")
    try:
        server.wait_ready()
        assert httpx.get(f"{server.url}/info").json()["kernels"] == "torch"
        assert "installed without kernels" in server.log.read_text()
        assert scores(server.url) == pytest.approx(scores(default_server.url), abs=1e-5)
    finally:
        server.stop()


def test_the_source_distribution_has_everything_that_a_build_needs(source: Path) -> None:
    sources = source / CSRC.relative_to(ROOT)
    assert {file.name for file in sources.iterdir()} == {file.name for file in CSRC.iterdir()}
    assert (source / "build_kernels.py").is_file()
    assert (source / "hatch_build.py").is_file()
