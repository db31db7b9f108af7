"""The C kernels without Python (``driver.c``): no warnings, clean under sanitizers, the right numbers on AArch64."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from build_kernels import ARCHITECTURES, CSRC, ISA_FLAGS, SOURCES

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(600)]

DRIVER = Path(__file__).with_name("driver.c")
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
PACKAGES = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
    "qemu-aarch64": "qemu-user",
    "gcc": "gcc",
}
STRICT = ["-std=gnu11", "-g", "-O1", "-fopenmp", "-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TARGETS = [(machine, isa) for machine, isas in ARCHITECTURES.items() for isa in isas]
SKIPPED = 77


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian has it in {PACKAGES[name]}")
    return found


def compiler_for(machine: str) -> str:
    found = tool(COMPILERS[machine])
    target = subprocess.run([found, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    if not target.startswith(machine):
        pytest.skip(f"{found} compiles for {target.strip()}")
    return found


def run(command: Sequence[str | Path], right: Sequence[int] = (0,)) -> int:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode in right, f"{command}\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    return done.returncode


def build_driver(machine: str, isa: str, target: Path, *flags: str) -> Path:
    sources = [CSRC / name for name, isas in SOURCES.items() if isa in isas]
    has = [f"-DHAS_{source.stem.upper()}" for source in sources]
    compiler, isa_flag = compiler_for(machine), f"-DKERNEL_ISA={isa}"
    # The driver asks whether the processor runs the instruction set, and may not use it itself.
    objects = []
    for source, isa_flags in [
        *((source, ISA_FLAGS[isa]) for source in sources),
        (CSRC / "cpu_features.c", ()),
        (DRIVER, ()),
    ]:
        objects.append(target.with_name(f"{source.stem}.o"))
        run([compiler, *STRICT, *flags, *isa_flags, isa_flag, *has, f"-I{CSRC}", "-c", source, "-o", objects[-1]])
    wrap = "-Wl,--wrap=calloc,--wrap=aligned_alloc"
    run([compiler, *flags, "-fopenmp", wrap, *objects, "-lm", "-o", target])
    return target


@pytest.mark.parametrize(("machine", "isa"), TARGETS)
def test_every_source_compiles_without_a_warning(machine: str, isa: str, tmp_path: Path) -> None:
    compiler = compiler_for(machine)
    for name in [name for name, isas in SOURCES.items() if isa in isas] + ["cpu_features.c"]:
        flags = [*STRICT, *ISA_FLAGS[isa], f"-DKERNEL_ISA={isa}", "-fPIC", "-c"]
        run([compiler, *flags, CSRC / name, "-o", tmp_path / "unit.o"])


@pytest.mark.promise("F11", "F12")
@pytest.mark.parametrize("isa", [isa for isa in ARCHITECTURES["x86_64"] if isa in SOURCES["attention_f32.c"]])
def test_kernels_run_clean_under_address_and_undefined_behaviour_sanitizers(isa: str, tmp_path: Path) -> None:
    driver = build_driver("x86_64", isa, tmp_path / "driver", *SANITIZE)
    if run([driver], right=(0, SKIPPED)) == SKIPPED:
        pytest.skip(f"this processor does not run {isa}")


@pytest.mark.promise("F11", "F12")
def test_kernels_give_the_right_numbers_on_aarch64(tmp_path: Path) -> None:
    emulator = tool("qemu-aarch64")
    run([emulator, build_driver("aarch64", "neon", tmp_path / "driver", "-static")])
