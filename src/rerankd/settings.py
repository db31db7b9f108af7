"""The one table of settings: name, type, default and sentence, from which flags, variables and docs are made.

A value comes from a command-line flag, else from the environment (``RERANKD_`` + the name in capitals),
else from ``rerankd.toml``, else from the default. Nothing else in the package reads the environment.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerankd.errors import ConfigurationError

ENVIRONMENT_PREFIX = "RERANKD_"
FILE_NAME = "rerankd.toml"

RENAMED: Mapping[str, str] = types.MappingProxyType(
    {
        "kept_tokens": "prefix_cache_tokens",
        "hang_seconds": "engine_timeout_seconds",
        "max_waiting_bytes": "max_inflight_body_bytes",
        "query_share": "query_truncation_share",
        "tenant_share": "max_tenant_share",
        "deadline_ms": "deadline_seconds",
        "max_deadline_ms": "max_deadline_seconds",
        "header_timeout": "header_timeout_seconds",
        "receive_timeout": "receive_timeout_seconds",
        "send_timeout": "send_timeout_seconds",
        "keep_alive": "keep_alive_seconds",
        "drain_grace": "drain_grace_seconds",
        "cache_ttl": "cache_ttl_seconds",
        "cache_timeout_ms": "cache_timeout_seconds",
    }
)
"""Settings that had another name, old to new. The old name is refused, so that no value is read in the wrong unit."""


def setting(
    default: Any, sentence: str, *, secret: bool = False, choices: tuple[str, ...] = (), most: float = math.inf
) -> Any:
    """One row of a settings table; numbers lie between 0 and ``most``."""
    return field(default=default, metadata={"help": sentence, "secret": secret, "choices": choices, "most": most})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One served name: the table ``[models.NAME]`` of the settings file."""

    model: str = setting("", "Folder, hub name or `tiny`; empty means the server's own `model`.")
    revision: str = setting("", "Revision of a hub checkpoint: a commit, tag or branch.")
    template: str = setting("auto", "Prompt template by name, or `auto` to choose by the checkpoint.")
    instruction: str = setting("", "Default instruction of this name; empty means the template's own.")
    dtype: str = setting("", "Number format of the weights; empty means the server's own `dtype`.")
    max_pair_tokens: int = setting(0, "Tokens of one pair, prompt included; 0 means the server's own limit.")
    max_documents: int = setting(0, "Documents in one request; 0 means the server's own limit.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the server, frozen once read."""

    # The model
    model: str = setting("tiny", "The model to serve: `tiny` (embedded), a folder, or a hub name.")
    revision: str = setting("", "Revision of a hub checkpoint: a commit, tag or branch.")
    served_name: str = setting("", "Name under which the model is served; empty means its own.")
    template: str = setting("auto", "Prompt template by name, or `auto` to choose by the checkpoint.")
    instruction: str = setting("", "Default instruction; empty means the template's own.")
    strict_models: bool = setting(False, "Refuse a request that names a model which is not served.")
    # The engine
    engine: str = setting("native", "Engine that scores.", choices=("native", "reference", "vllm", "fake"))
    dtype: str = setting(
        "auto",
        "Number format of the weights.",
        choices=("auto", "float32", "bfloat16", "float16", "int8", "fp8"),
    )
    device: str = setting("auto", "Device of the engine: `auto`, `cpu`, `cuda` or `cuda:N`.")
    threads: int = setting(0, "Threads of the engine on a CPU; 0 means all cores.")
    max_pair_tokens: int = setting(8192, "Tokens of one pair, prompt included.")
    max_batch_tokens: int = setting(0, "Tokens of one forward pass; 0 lets warm-up measure it.")
    prefix_cache_tokens: int = setting(512, "Capacity of the prefix KV cache in tokens; 0 disables it.")
    tokenizer_threads: int = setting(0, "Threads that tokenise; 0 means one less than the cores, at most 4.")
    query_truncation_share: float = setting(
        0.25, "Share of a pair's tokens that an over-long query is cut down to.", most=0.75
    )
    fake_script: str = setting("", "Times and faults of the `fake` engine, such as `seconds_per_batch=0.05`.")
    # The address
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8000, "Port to listen on; 0 lets the system choose.", most=65535)
    insecure: bool = setting(False, "Allow a public address without any API key.")
    trusted_proxies: str = setting(
        "", "Addresses of proxies, comma-separated, whose `X-Forwarded-For` says who the caller is."
    )
    cors_origins: str = setting("", "Origins, comma-separated, that a browser page may call from.")
    # Limits of one request
    max_body_bytes: int = setting(4 * 1024 * 1024, "Bytes of a request body.")
    max_inflight_body_bytes: int = setting(256 * 1024 * 1024, "Total bytes of request bodies held in memory.")
    max_header_bytes: int = setting(32 * 1024, "Bytes of all request headers together.")
    max_json_depth: int = setting(32, "Nesting depth of a JSON body.")
    max_documents: int = setting(1000, "Documents in one request.")
    max_queries: int = setting(256, "Queries in one call that carries several.")
    max_document_characters: int = setting(100_000, "Characters of one document.")
    max_query_characters: int = setting(20_000, "Characters of a query or an instruction.")
    max_request_characters: int = setting(2_000_000, "Characters of all documents of a request together.")
    # Time
    deadline_seconds: float = setting(30.0, "Seconds for a request that sends no `X-Request-Timeout-Ms`.")
    max_deadline_seconds: float = setting(300.0, "The longest deadline that a request may ask for, in seconds.")
    header_timeout_seconds: float = setting(10.0, "Seconds for the headers of a request to arrive.")
    receive_timeout_seconds: float = setting(30.0, "Seconds for the body of a request to arrive.")
    send_timeout_seconds: float = setting(30.0, "Seconds after which a client that does not read is dropped.")
    keep_alive_seconds: float = setting(75.0, "Seconds for which an idle connection stays open.")
    drain_grace_seconds: float = setting(2.0, "Seconds after SIGTERM in which new requests are still taken.")
    drain_seconds: float = setting(25.0, "Seconds after SIGTERM within which the process ends.")
    engine_timeout_seconds: float = setting(
        30.0, "Watchdog: the longest forward pass of a full token budget, in seconds."
    )
    # The queue
    queue_tokens: int = setting(0, "Tokens that may wait; 0 means what the largest request can hold, twice.")
    queue_requests: int = setting(512, "Requests that may wait or run.")
    max_tenant_share: float = setting(0.5, "Share of the queue that one caller may take while others wait.", most=1)
    # The score cache
    cache: str = setting("memory", "Score cache: `memory`, `off`, or a `redis://` address.", secret=True)
    cache_bytes: int = setting(64 * 1024 * 1024, "Bytes of the score cache in memory.")
    cache_ttl_seconds: float = setting(3600.0, "Seconds for which a score stays in the cache.")
    cache_timeout_seconds: float = setting(0.02, "Seconds that one request may spend asking Redis.")
    cache_per_tenant: bool = setting(False, "Keep the cache of every API key apart.")
    # Keys and rates
    api_keys: str = setting("", "API keys, `name:secret` separated by commas.", secret=True)
    api_keys_file: str = setting("", "File with one `name:secret` a line, read again when it changes.")
    admin_keys: str = setting("", "Keys for `/admin`, `name:secret` separated by commas.", secret=True)
    rate_limit: str = setting("", "Rate of one caller, such as `10/minute;1000/day`; empty means none.")
    rate_limit_unit: str = setting("requests", "What the rate counts.", choices=("requests", "documents"))
    rate_limit_store: str = setting("memory", "Where rates are counted: `memory` or `redis://`.", secret=True)
    # Logs
    log_format: str = setting("auto", "Log lines for a machine or a person.", choices=("auto", "json", "console"))
    log_level: str = setting("info", "Least level that is logged.", choices=("debug", "info", "warning", "error"))
    # Served names
    models: Mapping[str, ModelSettings] = field(
        default_factory=dict, metadata={"help": "More served names, each a table `[models.NAME]`."}
    )


def fields_of(table: type[Settings] | type[ModelSettings]) -> dict[str, dataclasses.Field[Any]]:
    """The rows of a settings table that take one value, by name."""
    return {row.name: row for row in dataclasses.fields(table) if row.name != "models"}


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from all sources, the strongest last: file, environment, flags.

    Args:
        file: the settings file; None reads ``rerankd.toml`` of the working folder where there is one.
        environ: environment variables; None means the process's own.
        flags: values of command-line flags; None values count as not given.

    Raises:
        ConfigurationError: an unknown key, or a value of the wrong type.
    """
    values = _read_file(file)
    models = _models(values.pop("models", {}))
    values |= _read_environment(os.environ if environ is None else environ)
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    checked = {name: _convert(Settings, name, value) for name, value in values.items()}
    return Settings(**checked, models=models)


def _read_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(FILE_NAME)
    if file is None and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the settings file {path} cannot be read: {error}") from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {name[len(ENVIRONMENT_PREFIX) :].lower(): name for name in environ if name.startswith(ENVIRONMENT_PREFIX)}
    return {key: environ[name] for key, name in names.items()}


def _models(tables: Any) -> dict[str, ModelSettings]:
    if not isinstance(tables, dict):
        raise ConfigurationError("models has to be a table of tables, [models.NAME]")
    return {name: _model(name, row) for name, row in tables.items()}


def _model(name: str, row: Any) -> ModelSettings:
    if not isinstance(row, dict):
        raise ConfigurationError(f"[models.{name}] has to be a table")
    return ModelSettings(**{key: _convert(ModelSettings, key, value) for key, value in row.items()})


def _convert(table: type[Settings] | type[ModelSettings], name: str, value: Any) -> Any:
    rows = fields_of(table)
    if name in RENAMED:
        raise ConfigurationError(f"the setting {name!r} is now {RENAMED[name]!r}{_unit_note(name)}")
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"there is no setting {name!r}{hint}")
    row = rows[name]
    kind = type(row.default)
    choices = row.metadata["choices"]
    try:
        converted = _CONVERTERS[kind](value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"the setting {name!r} has to be of type {kind.__name__}") from None
    if choices and converted not in choices:
        raise ConfigurationError(f"the setting {name!r} has to be one of {', '.join(choices)}")
    most = row.metadata["most"]
    if kind in (int, float) and not 0 <= converted <= most:
        bounds = "0 or more" if most == math.inf else f"from 0 to {most:g}"
        raise ConfigurationError(f"the setting {name!r} has to be {bounds}")
    return converted


def _unit_note(old: str) -> str:
    """What a value has to be rewritten to, where the unit changed with the name."""
    return ", in seconds instead of milliseconds" if old.endswith("_ms") else ""


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _boolean(value: Any) -> bool:
    word = str(value).strip().lower()
    return _BOOLEANS[word] if word in _BOOLEANS else _refuse(value)


def _refuse(value: Any) -> typing.NoReturn:
    raise ValueError(type(value).__name__)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _refuse(value)


def _integer(value: Any) -> int:
    return _refuse(value) if isinstance(value, bool | float) else int(value)


def _number(value: Any) -> float:
    return _refuse(value) if isinstance(value, bool) else float(value)


_CONVERTERS: Mapping[type, typing.Callable[[Any], Any]] = types.MappingProxyType(
    {str: _text, int: _integer, float: _number, bool: _boolean}
)
