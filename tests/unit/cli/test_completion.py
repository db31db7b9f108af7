"""rerankd completion: each shell completes commands, flags and choices with the script that it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.live import ROOT

pytestmark = pytest.mark.timeout(600)

ASKS = {
    "bash": 'eval "$(rerankd completion bash)"; COMP_WORDS=({words}); COMP_CWORD={last}; '
    '_rerankd_completion rerankd; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": "compdef() {{ }}; compadd() {{ print -rl -- ${{completions[@]}} }}; "
    "_describe() {{ print -rl -- ${{(P)3}} }}; "
    'eval "$(rerankd completion zsh)"; words=({words}); CURRENT={position}; _rerankd_completion',
    "fish": 'rerankd completion fish | source; complete -C "{line}"',
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A folder with the command as an installation has it."""
    command = tmp_path / "rerankd"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rerankd "$@"\n')
    command.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param("rerankd mo", {"models"}, marks=pytest.mark.thorough),
        ("rerankd rank --docum", {"--documents", "--document-field"}),
    ],
)
@pytest.mark.parametrize(
    "shell", [pytest.param(shell, marks=() if shell == "bash" else pytest.mark.thorough) for shell in ASKS]
)
def test_a_shell_completes(shell: str, words: str, found: set[str], path: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    last = len(words.split()) - 1
    script = ASKS[shell].format(words=words, last=last, position=last + 1, line=words)
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, env=environ, timeout=300, check=False
    )
    assert found <= {line.partition(":")[0].split("\t")[0] for line in done.stdout.splitlines()}, done.stderr


def test_another_shell_is_refused() -> None:
    from click.testing import CliRunner

    from rerankd.cli.main import cli

    done = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
