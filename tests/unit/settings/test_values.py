"""rerankd.settings.values and the bounds of the table."""

from __future__ import annotations

from typing import Any

import pytest

from rerankd.errors import ConfigurationError
from rerankd.settings import RENAMED, ModelSettings, Settings, fields_of, load_settings
from rerankd.settings.testing import TESTING_VARIABLE
from rerankd.settings.values import Given, convert

ROWS = [
    *((Settings, name) for name in fields_of(Settings)),
    *((ModelSettings, name) for name in fields_of(ModelSettings)),
]


def read(name: str, value: Any) -> Any:
    return convert(Settings, name, Given(value, "here"))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "eighty", "whole number"),
        ("port", "tcp://10.0.0.1:8000x", "whole number"),
        ("port", 1.5, "whole number"),
        ("port", True, "whole number"),
        ("port", -1, "65535"),
        ("port", 65536, "65535"),
        ("max_documents", -1, "1 or more"),
        ("query_truncation_share", "nan", "finite number"),
        ("query_truncation_share", 0.8, "0.75"),
        ("insecure", "perhaps", "true or false"),
        ("dtype", "float8", "float32"),
        ("model", 7, "text"),
        ("threads", 10**30, "1024"),
        ("threads", "9" * 5_000, "whole number"),
        ("port", {"a": 1}, "a table"),
        ("max_pair_tokens", [1], "a list"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name_rule_and_place(name: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(name, value)
    message = caught.value.message
    assert all(part in message for part in (f"'{name}'", says, "(here)"))
    assert len(message) < 250


@pytest.mark.parametrize("name", ["port", "deadline_seconds", "model"])
def test_a_number_of_thousands_of_digits_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(ConfigurationError, match="very many digits"):
        read(name, 10**6_000)


@pytest.mark.parametrize("name", [name for name, row in fields_of(Settings).items() if row.metadata["secret"]])
def test_the_value_of_a_secret_is_never_shown(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(name, ["hidden-value"])
    assert "hidden-value" not in caught.value.message


ZERO_IS_REFUSED = [
    "max_body_bytes", "max_inflight_body_bytes", "max_header_bytes", "max_json_depth", "max_documents", "max_queries",
    "max_document_characters", "max_query_characters", "max_request_characters", "max_pair_tokens", "queue_requests",
    "deadline_seconds", "max_deadline_seconds", "header_timeout_seconds", "receive_timeout_seconds",
    "send_timeout_seconds", "keep_alive_seconds", "engine_timeout_seconds", "cache_ttl_seconds",
    "cache_timeout_seconds", "max_tenant_share", "query_truncation_share", "replicas", "ray_min_replicas",
    "ray_max_replicas", "feedback_days", "ray_replica_cpus", "ray_target_queue_tokens", "ray_model_idle_seconds",
    "fusion_weight", "max_chunks_per_document", "chunk_tokens", "chunk_top_k",
]  # fmt: skip
ZERO_HAS_A_MEANING = [
    "threads", "tokenizer_threads", "max_batch_tokens", "prefix_cache_tokens", "port", "queue_tokens", "cache_bytes",
    "drain_grace_seconds", "drain_seconds", "ray_replica_gpus", "ray_upscale_seconds", "ray_downscale_seconds",
    "chunk_overlap_tokens",
]  # fmt: skip


@pytest.mark.promise("U16")
def test_zero_is_refused_wherever_every_request_would_fail() -> None:
    numbers = {name for name, row in fields_of(Settings).items() if type(row.default) in (int, float)}
    assert numbers == {*ZERO_IS_REFUSED, *ZERO_HAS_A_MEANING}, "a new number: what does 0 of it mean?"
    for name in ZERO_IS_REFUSED:
        with pytest.raises(ConfigurationError, match=name):
            read(name, 0)
    for name in ZERO_HAS_A_MEANING:
        assert read(name, 0) == 0


@pytest.mark.promise("P13", "S17")
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "Infinity", float("inf"), "1e400", 1e300])
def test_no_number_is_infinite_or_absurd(value: Any) -> None:
    for name, row in fields_of(Settings).items():
        if type(row.default) in (int, float):
            with pytest.raises(ConfigurationError, match=name):
                read(name, value)


@pytest.mark.promise("U22")
@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("log_level", "INFO", "info"),
        ("log_level", "Warn", "warning"),
        ("log_level", " debug ", "debug"),
        ("log_format", "JSON", "json"),
        ("dtype", "bf16", "bfloat16"),
        ("dtype", "half", "float16"),
        ("dtype", "FP16", "float16"),
        ("dtype", "Float32", "float32"),
        ("dtype", "fp32", "float32"),
        ("dtype", "INT8", "int8"),
        ("engine", "Native", "native"),
        ("rate_limit_unit", "Documents", "documents"),
    ],
)
def test_choices_are_taken_in_any_case_and_by_their_usual_names(name: str, given: str, taken: str) -> None:
    assert read(name, given) == taken


@pytest.mark.promise("U22")
def test_a_served_name_takes_the_same_words_and_refuses_the_same() -> None:
    assert convert(ModelSettings, "dtype", Given("BF16", "here")) == "bfloat16"
    assert convert(ModelSettings, "dtype", Given("", "here")) == ""
    with pytest.raises(ConfigurationError, match="dtype"):
        convert(ModelSettings, "dtype", Given("float8", "here"))


def test_the_fake_engine_and_its_script_are_for_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused as an unknown word and an unknown setting are, in each source, and nothing names them."""
    for table in (Settings, ModelSettings):
        assert convert(table, "engine", Given("fake", "here")) == "fake"
    assert read("fake_script", "die_after=1") == "die_after=1"
    monkeypatch.delenv(TESTING_VARIABLE)
    for table in (Settings, ModelSettings):
        with pytest.raises(ConfigurationError, match=r"one of auto, native, onnx, reference, vllm \(here\)"):
            convert(table, "engine", Given("fake", "here"))
    with pytest.raises(ConfigurationError, match="there is no setting 'fake_script'; did you mean 'cache_secret'"):
        load_settings(environ={}, flags={"fake_script": "die_after=1"})
    warnings: list[str] = []
    assert load_settings(environ={"RERANKD_FAKE_SCRIPT": "die_after=1"}, warn=warnings.append) == Settings()
    assert ["not used" in warning for warning in warnings] == [True]


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_every_default_passes_its_own_rules(table: Any, name: str) -> None:
    default = fields_of(table)[name].default
    assert convert(table, name, Given(default, "here")) == default


def test_every_new_name_exists_and_no_old_one_does() -> None:
    assert set(RENAMED.values()) <= set(fields_of(Settings))
    assert not set(RENAMED) & set(fields_of(Settings))


def test_times_are_named_by_their_unit() -> None:
    timed = [name for name in fields_of(Settings) if any(part in name for part in ("timeout", "deadline", "ttl"))]
    assert [name for name in timed if not name.endswith("_seconds")] == []


def test_every_setting_has_a_sentence() -> None:
    assert all(fields_of(table)[name].metadata["help"].endswith(".") for table, name in ROWS)


def test_every_source_is_read_by_the_same_rules() -> None:
    from_flags = load_settings(environ={}, flags={"dtype": "BF16", "port": "9000"})
    from_environment = load_settings(environ={"RERANKD_DTYPE": "BF16", "RERANKD_PORT": "9000"})
    assert from_flags == from_environment == Settings(dtype="bfloat16", port=9000)
