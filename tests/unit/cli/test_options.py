"""rerankd.cli.options: flags are the settings table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from rerankd.cli.main import cli
from rerankd.cli.options import flag_of
from rerankd.cli.serve import serve
from rerankd.settings import Settings, fields_of


def test_every_setting_is_a_flag_of_serve() -> None:
    flags = {option.name for option in serve.params}
    assert flags == {*fields_of(Settings), "config", "on_ray"}


def test_help_shows_what_each_flag_does_and_its_variable() -> None:
    page = CliRunner().invoke(cli, ["serve", "--help"], terminal_width=100).output
    shown = {name for name in fields_of(Settings) if f"{flag_of(name)} " in page}
    assert shown == {name for name, row in fields_of(Settings).items() if not row.metadata["advanced"]}
    assert "RERANKD_MAX_DOCUMENTS" in page


@pytest.mark.parametrize(
    ("text", "says"), [("prot = 1", "did you mean 'port'"), ("port = -1", "'port'"), ("=", "cannot be read")]
)
def test_a_wrong_settings_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "rerankd.toml"
    file.write_text(text)
    done = CliRunner().invoke(cli, ["serve", "--config", str(file)])
    assert (done.exit_code, len(done.output.strip().splitlines())) == (2, 1)
    assert says in done.output


def test_an_advanced_setting_is_a_flag_all_the_same() -> None:
    done = CliRunner().invoke(cli, ["serve", "--max-json-depth", "1"])
    assert done.exit_code == 2
    assert "'max_json_depth' is '1' and has to be 4 or more" in done.output


def test_an_old_flag_is_refused_with_its_new_name() -> None:
    for command in ("serve", "rank", "evaluate"):
        done = CliRunner().invoke(cli, [command, "--deadline-ms", "5"])
        assert done.exit_code == 2
        assert "--deadline-ms is now --deadline-seconds" in done.output


def test_a_public_address_without_a_key_is_refused() -> None:
    done = CliRunner().invoke(cli, ["serve", "--host", "0.0.0.0", "--engine", "fake"])
    assert done.exit_code == 2
    assert "insecure" in done.output
