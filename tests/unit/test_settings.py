"""rerankd.settings: one table, four sources, no silent key."""

from __future__ import annotations

from pathlib import Path

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
        ("prot = 1", ["'prot'", "'port'"]),
        ('port = "eighty"', ["'port'", "int"]),
        ("port = 1.5", ["'port'", "int"]),
        ("port = -1", ["'port'", "65535"]),
        ("max_documents = -1", ["'max_documents'", "0 or more"]),
        ("query_truncation_share = nan", ["'query_truncation_share'", "0.75"]),
        ("deadline_ms = 500", ["'deadline_ms'", "'deadline_seconds'", "in seconds instead of milliseconds"]),
        ("tenant_share = 0.1", ["'tenant_share'", "'max_tenant_share'"]),
        ("port = true", ["'port'", "int"]),
        ('insecure = "perhaps"', ["'insecure'", "bool"]),
        ('dtype = "float8"', ["'dtype'", "float32"]),
        ("model = 7", ["'model'", "str"]),
        ("models = 7", ["models"]),
        ("[models.a]\ninstructoin = 'x'", ["'instructoin'", "'instruction'"]),
        ("models.a = 7", ["models.a"]),
        ("port = ", ["rerankd.toml"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file=path, environ={})
    assert [name for name in names if name not in caught.value.message] == []


def test_an_unknown_variable_of_ours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'max_documents'"):
        load_settings(environ={"RERANKD_MAX_DOCUMENT": "1", "PATH": "/bin"})


def test_an_old_name_is_refused_with_the_new_one_from_every_source() -> None:
    for old, new in RENAMED.items():
        for source in ({"environ": {f"RERANKD_{old.upper()}": "1"}}, {"environ": {}, "flags": {old: 1}}):
            with pytest.raises(ConfigurationError, match=f"'{old}' is now '{new}'"):
                load_settings(**source)  # type: ignore[arg-type]


def test_every_new_name_exists_and_no_old_one_does() -> None:
    assert set(RENAMED.values()) <= set(fields_of(Settings))
    assert not set(RENAMED) & set(fields_of(Settings))


def test_times_are_named_by_their_unit() -> None:
    timed = [name for name in fields_of(Settings) if any(part in name for part in ("timeout", "deadline", "ttl"))]
    assert [name for name in timed if not name.endswith("_seconds")] == []


def test_every_setting_has_a_sentence() -> None:
    sentences = [row.metadata["help"] for row in fields_of(Settings).values()]
    assert all(sentence.endswith(".") for sentence in sentences)
