"""rerankd.settings.sources: one table, four sources, every value with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerankd.errors import ConfigurationError
from rerankd.settings import RENAMED, Settings, fields_of, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rerankd.toml"
    path.write_text('port = 1\nhost = "file"\ndtype = "float32"\n[models.legal]\ninstruction = "Find the law"\n')
    return path


def test_flags_beat_the_environment_and_the_environment_beats_the_file(file: Path) -> None:
    settings = load_settings(
        file=file, environ={"RERANKD_PORT": "2", "RERANKD_HOST": "env"}, flags={"port": 3, "host": None}
    )
    assert (settings.port, settings.host, settings.dtype) == (3, "env", "float32")


def test_a_table_of_the_file_is_a_served_name(file: Path) -> None:
    assert load_settings(file=file, environ={}).models["legal"].instruction == "Find the law"


def test_every_source_starts_from_the_same_defaults() -> None:
    assert load_settings(environ={}) == Settings()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("prot = 1", ["'prot'", "'port'", "line 1"]),
        ("\n\nport = -1", ["'port'", "65535", "line 3"]),
        ("model = 7", ["'model'", "text", "7"]),
        ("models = 7", ["models", "line 1"]),
        ("[models.a]\ninstructoin = 'x'", ["'instructoin'", "'instruction'", "line 2"]),
        ("[models.a]\nport = 1", ["'port'", "belongs above the first [table]", "line 2"]),
        ("models.a = 7", ["models.a", "line 1"]),
        ("[server]\nport = 1", ["'server'", "line 1"]),
        ("port = ", ["rerankd.toml"]),
        ("deadline_ms = 500", ["'deadline_ms'", "'deadline_seconds'", "in seconds instead of milliseconds"]),
        ("tenant_share = 0.1", ["'tenant_share'", "'max_tenant_share'"]),
        ('host = """\nport = 1\n"""\ndevice = 3', ["'device'", "line 4"]),
    ],
)
def test_a_line_of_the_file_that_cannot_be_is_refused_with_its_number(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file=path, environ={})
    assert [name for name in names if name not in caught.value.message] == []


@pytest.mark.promise("U15")
@pytest.mark.parametrize(
    ("header", "quoted"),
    [
        ("[models.Qwen3-Reranker-0.6B]\ninstruction = 'x'", '[models."Qwen3-Reranker-0.6B"]'),
        ("[models.a.b.c]\ndtype = 'int8'", '[models."a.b.c"]'),
        ("[models.a.b]", '[models."a.b"]'),
        ("models.v1.5.instruction = 'x'", '[models."v1.5"]'),
    ],
)
def test_a_served_name_with_a_dot_asks_for_quotes(tmp_path: Path, header: str, quoted: str) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(header)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file=path, environ={})
    assert quoted in caught.value.message
    path.write_text(f"{quoted}\ninstruction = 'x'")
    assert list(load_settings(file=path, environ={}).models) == [quoted.split('"')[1]]


KUBERNETES = {
    "RERANKD_SERVICE_HOST": "10.0.0.1",
    "RERANKD_SERVICE_PORT": "8000",
    "RERANKD_SERVICE_PORT_HTTP": "8000",
    "RERANKD_PORT": "tcp://10.0.0.1:8000",
    "RERANKD_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "RERANKD_PORT_8000_TCP_PROTO": "tcp",
    "RERANKD_PORT_8000_TCP_PORT": "8000",
    "RERANKD_PORT_8000_TCP_ADDR": "10.0.0.1",
}


@pytest.mark.promise("U1")
@pytest.mark.parametrize(
    "environ",
    [
        KUBERNETES,
        {**KUBERNETES, "RERANKD_PORT": "tcp://[fd00::1]:8000"},
        {**KUBERNETES, "RERANKD_PORT": "udp://10.0.0.1:53"},
        {"RERANKD_CACHE_SERVICE_HOST": "10.0.0.2", "RERANKD_CACHE_PORT": "tcp://10.0.0.2:6379"},
        {"RERANKD_NAME": "/web/rerankd", "RERANKD_ENV_PATH": "/bin", "RERANKD_MODELS": "a"},
    ],
)
def test_an_environment_of_others_starts_the_server_with_a_warning_for_each(environ: dict[str, str]) -> None:
    warnings: list[str] = []
    assert load_settings(environ=environ, warn=warnings.append) == Settings()
    assert [name for name in environ if not any(name in line for line in warnings)] == []


@pytest.mark.promise("U1")
def test_an_unknown_variable_is_a_warning_that_names_it_and_the_nearest_setting() -> None:
    warnings: list[str] = []
    load_settings(environ={"RERANKD_MAX_DOCUMENT": "1", "PATH": "/bin"}, warn=warnings.append)
    (warning,) = warnings
    assert "RERANKD_MAX_DOCUMENT" in warning
    assert "did you mean 'max_documents'" in warning


@pytest.mark.promise("U1")
@pytest.mark.parametrize(
    ("sources", "place"),
    [
        ({"environ": {"RERANKD_PORT": "eighty"}}, "variable RERANKD_PORT"),
        ({"environ": {}, "flags": {"port": "eighty"}}, "flag --port"),
        ({"environ": {}, "flags": {"max_documents": "x"}}, "flag --max-documents"),
    ],
)
def test_every_error_says_where_the_value_came_from(sources: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError, match=place):
        load_settings(**sources)


@pytest.mark.promise("U2")
@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", sorted(fields_of(Settings)))
def test_an_empty_variable_sets_nothing(name: str, empty: str) -> None:
    assert load_settings(environ={f"RERANKD_{name.upper()}": empty}) == Settings()


@pytest.mark.promise("P13")
@pytest.mark.parametrize("text", ["[" * 100_000, "port = " + "[" * 100_000, "a." * 5_000 + "b = 1"])
def test_a_hostile_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file=path, environ={})
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300 + len(str(path))


def test_a_default_deadline_beyond_the_longest_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"flag --deadline-seconds.*'max_deadline_seconds'"):
        load_settings(environ={}, flags={"deadline_seconds": "600"})
    assert load_settings(environ={}, flags={"max_deadline_seconds": "10"}).max_deadline_seconds == 10


def test_an_old_name_is_refused_with_the_new_one_from_every_source() -> None:
    for old, new in RENAMED.items():
        for source in ({"environ": {f"RERANKD_{old.upper()}": "1"}}, {"environ": {}, "flags": {old: 1}}):
            with pytest.raises(ConfigurationError, match=f"'{old}' is now '{new}'"):
                load_settings(**source)  # type: ignore[arg-type]
