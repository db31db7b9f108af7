"""``rerankd completion``: the script that lets a shell complete commands, flags and choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_RERANKD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Print the completion script of SHELL, for its startup file to evaluate.

    bash: eval "$(rerankd completion bash)"; zsh: the same with zsh; fish: rerankd completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "rerankd", _VARIABLE).source())
