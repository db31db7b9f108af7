"""The one table of settings: name, default, bounds and sentence; flags, variables and docs are made from it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

_DAY = 86_400.0
_MAX_INT = 2**53
"""The largest whole number that every JSON reader takes exactly."""

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
        "feedback_file": "feedback_store",
    }
)
"""Settings that had another name, old to new. The old name is refused, so that no value is read in the wrong unit."""


def setting(
    default: Any,
    sentence: str,
    *,
    secret: bool = False,
    choices: tuple[str, ...] = (),
    test_choices: tuple[str, ...] = (),
    least: float = 0,
    most: float = _MAX_INT,
    positive: bool = False,
    advanced: bool = False,
    tests_only: bool = False,
) -> Any:
    """One row of a settings table.

    Args:
        sentence: what it does, for help and documentation.
        secret: its value is never shown.
        choices: the words that it may be; upper case and the usual aliases are taken too.
        test_choices: words that only tests may use; see :mod:`rerankd.settings.testing`.
        least: the smallest number that makes sense; below it every request would fail.
        most: the largest; infinity is never taken.
        positive: the number has to be more than 0, not just 0 or more.
        advanced: rarely moved; documented, but left out of ``--help``.
        tests_only: as ``test_choices``, for the whole row.
    """
    return field(
        default=default,
        metadata={
            "help": sentence,
            "secret": secret,
            "choices": choices,
            "test_choices": test_choices,
            "least": least,
            "most": most,
            "positive": positive,
            "advanced": advanced or tests_only,
            "tests_only": tests_only,
        },
    )


def seconds(default: float, sentence: str, *, most: float = _DAY, zero: bool = False, advanced: bool = False) -> Any:
    """A row that is a time; ``zero`` says that 0 seconds make sense."""
    return setting(default, sentence, most=most, positive=not zero, advanced=advanced)


_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "fp8")
_LONG_DOCUMENTS = ("truncate", "chunk", "error")
_AGGREGATIONS = ("max", "first", "mean", "min", "top_k_mean")
_FUSION = ("none", "zscore", "rrf")
_ENGINES = ("auto", "native", "onnx", "reference", "vllm")
_TEST_ENGINES = ("fake",)
_TOKENS = 2**20
_CHUNKS = 4096
_THREADS = 1024


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One served name: the table ``[models.NAME]`` of the settings file."""

    model: str = setting("", "Folder, hub name or `tiny`; empty means the server's own `model`.")
    revision: str = setting("", "Revision of a hub checkpoint: a commit, tag or branch.")
    template: str = setting("auto", "Prompt template by name, or `auto` to choose by the checkpoint.")
    instruction: str = setting("", "Default instruction of this name; empty means the template's own.")
    dtype: str = setting(
        "", "Number format of the weights; empty means the server's own `dtype`.", choices=("", *_DTYPES)
    )
    engine: str = setting(
        "", "Engine that scores; empty means the server's own.", choices=("", *_ENGINES), test_choices=_TEST_ENGINES
    )
    device: str = setting("", "Device of the engine; empty means the server's own.")
    threads: int = setting(0, "Threads of the engine on a CPU; 0 means the server's own.", most=_THREADS)
    max_batch_tokens: int = setting(
        0, "Tokens of one forward pass, which bound its memory; 0 means the server's own.", most=2**31 - 1
    )
    prefix_cache_tokens: int = setting(
        -1, "Capacity of the prefix KV cache in tokens; -1 means the server's own.", least=-1, most=2**31 - 1
    )
    queue_requests: int = setting(0, "Requests that may wait or run; 0 means the server's own.")
    queue_tokens: int = setting(0, "Tokens that may wait; 0 means the server's own.")
    max_pair_tokens: int = setting(0, "Tokens of one pair, prompt included; 0 means the server's own.", most=_TOKENS)
    max_documents: int = setting(0, "Documents in one request; 0 means the server's own limit.")
    long_documents: str = setting(
        "", "What happens to a long document; empty means the server's own rule.", choices=("", *_LONG_DOCUMENTS)
    )
    chunk_tokens: int = setting(0, "Tokens of one passage; 0 means the server's own.", most=_TOKENS)
    chunk_aggregation: str = setting(
        "", "How passage scores become one; empty means the server's own way.", choices=("", *_AGGREGATIONS)
    )
    fusion: str = setting(
        "", "How first-stage scores are taken in; empty means the server's own way.", choices=("", *_FUSION)
    )
    fusion_weight: float = setting(0.0, "The model's share of a fused score; 0 means the server's own.", most=1)
    cascade_model: str = setting(
        "", "Served name that orders all documents first, or `first_stage`; empty means no cascade."
    )
    cascade_depth: int = setting(50, "Documents that this name then scores, without a confidence.", least=1)
    cascade_confidence: float = setting(
        0.0, "Score on until the first `top_n` are settled with this probability; 0 goes by the depth.", most=0.9999
    )
    chunk_top_k: int = setting(0, "Passages that `top_k_mean` averages; 0 means the server's own.", most=_CHUNKS)
    calibration: str = setting("", "File that `rerankd calibrate` wrote; empty means the model's own scores.")


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """One arm of an experiment: the table ``[experiments.NAME.arms.ARM]``. The first that answers is the control."""

    weight: float = setting(1.0, "Its share of the keys, beside the weights of the others.", most=1e6)
    model: str = setting("", "Served name that answers; empty means the experiment's own.")
    instruction: str = setting("", "Stands in the place of what requests say; empty leaves that as it is.")
    long_documents: str = setting(
        "", "Stands in the place of what requests say of long documents.", choices=("", *_LONG_DOCUMENTS)
    )
    template: str = setting("", "Prompt template by name; empty means the served name's own.")
    calibration: str = setting("", "File that `rerankd calibrate` wrote; empty means the served name's own.")
    shadow: bool = setting(False, "Never answer; score in spare time what the others answered, and compare.")


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """One experiment: the table ``[experiments.NAME]``."""

    model: str = setting("", "Served name whose requests take part; empty means the default.")
    method: str = setting(
        "split",
        "Each key falls to one arm, or two arms make one ranking by team draft.",
        choices=("split", "interleave"),
    )
    assign_by: str = setting(
        "query", "What a request without `X-Experiment-Key` and `user` is assigned by.", choices=("query", "caller")
    )
    traffic: float = setting(1.0, "Share of the keys that take part.", most=1)
    arms: Mapping[str, ArmSettings] = field(default_factory=dict, metadata={"help": "Its arms by name."})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the server, frozen once read."""

    # The model
    model: str = setting("tiny", "The model to serve: `tiny` (embedded), a folder, or a hub name.")
    revision: str = setting("", "Revision of a hub checkpoint: a commit, tag or branch.")
    served_name: str = setting("", "Name under which the model is served; empty means its own.")
    template: str = setting("auto", "Prompt template by name, or `auto` to choose by the checkpoint.")
    instruction: str = setting("", "Default instruction; empty means the template's own.")
    calibration: str = setting("", "File that `rerankd calibrate` wrote for the default name; empty means none.")
    instructions_folder: str = setting(
        "", "Folder of instructions by name, `NAME.toml` each, read again when it changes."
    )
    strict_models: bool = setting(False, "Refuse a request that names a model which is not served.")
    # The engine
    engine: str = setting(
        "auto",
        "Engine that scores: `auto` takes `native` (torch) for decoders, `onnx` for encoders and without torch.",
        choices=_ENGINES,
        test_choices=_TEST_ENGINES,
    )
    dtype: str = setting("auto", "Number format of the weights.", choices=_DTYPES)
    device: str = setting("auto", "Device of the engine: `auto`, `cpu`, `cuda` or `cuda:N`.")
    threads: int = setting(
        0, "Threads of the engine on a CPU; 0 means the cores that affinity and CPU quota allow.", most=_THREADS
    )
    replicas: int = setting(
        1, "Engines behind the listener, each in a process with its part of the CPUs or its GPU.", least=1, most=256
    )
    max_pair_tokens: int = setting(8192, "Tokens of one pair, prompt included.", least=1, most=_TOKENS)
    max_batch_tokens: int = setting(0, "Tokens of one forward pass; 0 lets warm-up measure it.", most=2**31 - 1)
    prefix_cache_tokens: int = setting(
        512, "Capacity of the prefix KV cache in tokens; 0 disables it.", most=2**31 - 1
    )
    tokenizer_threads: int = setting(
        0, "Threads that tokenise; 0 means one less than the usable cores, at most 4.", most=_THREADS, advanced=True
    )
    query_truncation_share: float = setting(
        0.75,
        "Share of a pair's tokens that a query may take from a long document.",
        most=0.75,
        positive=True,
        advanced=True,
    )
    fake_script: str = setting(
        "", "Times and faults of the fake engine, such as `seconds_per_batch=0.05`.", tests_only=True
    )
    # The address
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8000, "Port to listen on; 0 lets the system choose.", most=65535)
    insecure: bool = setting(False, "Allow a public address without any API key.")
    trusted_proxies: str = setting(
        "", "Addresses or networks of proxies, comma-separated, whose `X-Forwarded-For` says who the caller is."
    )
    allowed_hosts: str = setting(
        "",
        "Names, comma-separated, that `Host` may have; `*.example.org` and `*` work. Empty means any, but of this "
        "machine's alone on a loopback address without keys.",
    )
    root_path: str = setting("", "Path under which a proxy shows the server, such as `/rerank-api`.")
    cors_origins: str = setting("", "Origins, comma-separated, that a browser page may call from.")
    playground: bool = setting(True, "Serve `/playground`, a page to try rankings on.")
    # Limits of one request
    max_body_bytes: int = setting(4 * 1024 * 1024, "Bytes of a request body.", least=1024)
    max_inflight_body_bytes: int = setting(
        256 * 1024 * 1024, "Total bytes of request bodies held in memory.", least=1024, advanced=True
    )
    max_header_bytes: int = setting(
        32 * 1024, "Bytes of all request headers together.", least=1024, most=2**20, advanced=True
    )
    max_json_depth: int = setting(32, "Nesting depth of a JSON body.", least=4, most=200, advanced=True)
    max_documents: int = setting(1000, "Documents in one request.", least=1)
    max_queries: int = setting(256, "Queries in one call that carries several.", least=1, advanced=True)
    max_document_characters: int = setting(200_000, "Characters of one document.", least=1)
    max_query_characters: int = setting(20_000, "Characters of a query or an instruction.", least=1)
    max_request_characters: int = setting(2_000_000, "Characters of all documents of a request together.", least=1)
    # Long documents
    long_documents: str = setting(
        "truncate",
        "What happens to a long document: it is cut, scored passage by passage, or refused.",
        choices=_LONG_DOCUMENTS,
    )
    chunk_tokens: int = setting(512, "Tokens of one passage, where long documents are split.", least=16, most=_TOKENS)
    chunk_overlap_tokens: int = setting(
        64, "Tokens that a passage repeats of the one before, at most a quarter.", most=_TOKENS, advanced=True
    )
    max_chunks_per_document: int = setting(
        512, "Passages of one document; the text behind them is left out.", least=1, most=_CHUNKS
    )
    chunk_aggregation: str = setting(
        "max", "How the scores of a document's passages become its own.", choices=_AGGREGATIONS
    )
    chunk_top_k: int = setting(
        3, "Passages that `top_k_mean` averages, the best first.", least=1, most=_CHUNKS, advanced=True
    )
    # First-stage scores
    fusion: str = setting(
        "none", "How the first-stage scores of a request are taken into its scores.", choices=_FUSION
    )
    fusion_weight: float = setting(
        0.8, "The model's share of a fused score; `rerankd evaluate` finds it.", most=1, positive=True
    )
    # Time
    deadline_seconds: float = seconds(30.0, "Seconds for a request that sends no `X-Request-Timeout-Ms`.")
    max_deadline_seconds: float = seconds(300.0, "The longest deadline that a request may ask for, in seconds.")
    header_timeout_seconds: float = seconds(10.0, "Seconds for the headers of a request to arrive.", advanced=True)
    receive_timeout_seconds: float = seconds(30.0, "Seconds for the body of a request to arrive.", advanced=True)
    send_timeout_seconds: float = seconds(
        30.0, "Seconds after which a client that does not read is dropped.", advanced=True
    )
    keep_alive_seconds: float = seconds(75.0, "Seconds for which an idle connection stays open.", advanced=True)
    drain_grace_seconds: float = seconds(
        2.0, "Seconds after SIGTERM in which new requests are still taken.", zero=True
    )
    drain_seconds: float = seconds(25.0, "Seconds after SIGTERM within which the process ends.", zero=True)
    engine_timeout_seconds: float = seconds(
        30.0, "Watchdog: the longest forward pass of a full token budget, in seconds.", advanced=True
    )
    # The queue
    queue_tokens: int = setting(
        0, "Tokens that may wait; 0 means what the largest request can hold, twice.", advanced=True
    )
    queue_requests: int = setting(512, "Requests that may wait or run.", least=1)
    max_tenant_share: float = setting(
        0.5, "Share of the queue that one caller may take while others wait.", most=1, positive=True, advanced=True
    )
    # The score cache
    cache: str = setting("memory", "Score cache: `memory`, `off`, or a `redis://` address.", secret=True)
    cache_bytes: int = setting(64 * 1024 * 1024, "Bytes of the score cache in memory; 0 switches it off.")
    cache_ttl_seconds: float = seconds(3600.0, "Seconds for which a score stays in the cache.", most=3650 * _DAY)
    cache_timeout_seconds: float = seconds(
        0.02, "Seconds that one request may spend asking Redis.", most=60.0, advanced=True
    )
    cache_secret: str = setting(
        "", "Secret that authenticates scores in Redis, the same for all replicas; empty: a checksum.", secret=True
    )
    cache_per_tenant: bool = setting(False, "Keep the cache of every API key apart.")
    # Keys and rates
    api_keys: str = setting("", "API keys, `name:secret` separated by commas.", secret=True)
    api_keys_file: str = setting("", "File with one `name:secret` a line, read again when it changes.")
    admin_keys: str = setting("", "Keys for `/admin`, `name:secret` separated by commas.", secret=True)
    rate_limit: str = setting("", "Rate of one caller, such as `10/minute;1000/day`; empty means none.")
    rate_limit_unit: str = setting(
        "requests",
        "What the rate counts; of a document that is split, each passage is one.",
        choices=("requests", "documents"),
        advanced=True,
    )
    rate_limit_store: str = setting(
        "memory", "Where rates are counted: `memory` or `redis://`.", secret=True, advanced=True
    )
    # A Ray cluster
    ray_min_replicas: int = setting(1, "Engine replicas on a Ray cluster, at least.", least=1, advanced=True)
    ray_max_replicas: int = setting(1, "Engine replicas on a Ray cluster, at most.", least=1, advanced=True)
    ray_replica_cpus: float = setting(
        1.0, "CPUs that Ray reserves for an engine replica, which are its threads.", positive=True, advanced=True
    )
    ray_replica_gpus: float = setting(0.0, "GPUs that Ray reserves for an engine replica.", advanced=True)
    ray_target_queue_tokens: int = setting(
        32_768, "Tokens that wait or run at which a Ray replica is full: more bring another.", least=1, advanced=True
    )
    ray_upscale_seconds: float = seconds(
        5.0, "Seconds for which a Ray cluster needs more replicas first.", zero=True, advanced=True
    )
    ray_downscale_seconds: float = seconds(
        120.0, "Seconds for which a Ray cluster needs fewer replicas first.", zero=True, advanced=True
    )
    ray_model_idle_seconds: float = seconds(
        600.0, "Seconds after which a Ray replica lets a model go that is not the default.", advanced=True
    )
    # Experiments
    feedback_store: str = setting(
        "",
        "Where answers of experiments and feedback are kept: a file (SQLite) for the replicas of one machine, or a "
        "`postgresql://` address for those of several; empty: `rerankd/feedback.sqlite` in `$XDG_STATE_HOME`.",
        secret=True,
    )
    feedback_days: float = setting(
        90.0, "Days after which answers and their feedback are deleted.", most=3650, positive=True, advanced=True
    )
    # Logs
    log_format: str = setting("auto", "Log lines for a machine or a person.", choices=("auto", "json", "console"))
    log_level: str = setting("info", "Least level that is logged.", choices=("debug", "info", "warning", "error"))
    # Served names
    models: Mapping[str, ModelSettings] = field(
        default_factory=dict, metadata={"help": "More served names, each a table `[models.NAME]`."}
    )
    experiments: Mapping[str, ExperimentSettings] = field(
        default_factory=dict, metadata={"help": "Experiments, each a table `[experiments.NAME]`."}
    )


Table: TypeAlias = type[Settings] | type[ModelSettings] | type[ExperimentSettings] | type[ArmSettings]


def fields_of(table: Table) -> dict[str, dataclasses.Field[Any]]:
    """The rows of a settings table that take one value, by name."""
    return {row.name: row for row in dataclasses.fields(table) if "least" in row.metadata}
