"""``python -m rerankd`` is the ``rerankd`` command."""

from rerankd.cli.main import cli

if __name__ == "__main__":
    cli(prog_name="rerankd")
