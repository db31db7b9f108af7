"""Every metric, declared once: name, help, labels, buckets. Served at ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# A second series beside every counter and histogram, with the time of its birth, is nothing that anybody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS = (16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)


class Metrics:
    """The server's metrics on a registry of their own, so that two servers in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._declare_requests()
        self._declare_engines()
        self._declare_cache()
        self._declare_experiments()

    def _declare_requests(self) -> None:
        of = self.registry
        self.requests = Counter(
            "reranker_requests", "Requests answered.", ["method", "endpoint", "status"], registry=of
        )
        self.request_duration = Histogram(
            "reranker_request_duration_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["method", "endpoint"],
            buckets=_SECONDS,
            registry=of,
        )
        self.input_tokens = Histogram(
            "reranker_input_tokens", "Tokens of all pairs of a request.", buckets=_TOKENS, registry=of
        )
        self.documents = Histogram("reranker_documents", "Documents of a request.", buckets=_PAIRS, registry=of)
        self.rejections = Counter("reranker_rejections", "Requests refused, by error code.", ["code"], registry=of)
        self.truncated_pairs = Counter("reranker_truncated_pairs", "Pairs that lost tokens.", registry=of)

    def _declare_engines(self) -> None:
        of = self.registry
        self.queue_tokens = Gauge("reranker_queue_tokens", "Tokens that wait for the engine.", ["model"], registry=of)
        self.queue_requests = Gauge("reranker_queue_requests", "Requests that wait or run.", ["model"], registry=of)
        self.queue_wait_seconds = Histogram(
            "reranker_queue_seconds",
            "Seconds a request waited for its first batch.",
            ["model"],
            buckets=_SECONDS,
            registry=of,
        )
        self.batch_pairs = Histogram(
            "reranker_batch_pairs", "Pairs of a batch.", ["model"], buckets=_PAIRS, registry=of
        )
        self.batch_tokens = Histogram(
            "reranker_batch_tokens", "Tokens computed in a batch.", ["model"], buckets=_TOKENS, registry=of
        )
        self.forward_seconds = Histogram(
            "reranker_engine_seconds", "Seconds of a forward pass.", ["model"], buckets=_SECONDS, registry=of
        )
        self.dropped_pairs = Counter(
            "reranker_dropped_pairs",
            "Pairs dropped before a forward pass, by reason.",
            ["model", "reason"],
            registry=of,
        )
        self.engine_failures = Counter(
            "reranker_engine_failures", "Batches that failed, by kind.", ["model", "kind"], registry=of
        )
        self.failed_pairs = Counter(
            "reranker_failed_pairs", "Pairs without a score, by code.", ["model", "code"], registry=of
        )
        self.inflight_dedup = Counter(
            "reranker_cache_shared", "Pairs that waited for the same pair in flight.", ["model"], registry=of
        )
        self.engine_kernels = Gauge(
            "reranker_engine_kernels",
            "1 for each model, with the instruction set of its kernels; torch where it has none and is slower.",
            ["model", "isa"],
            registry=of,
        )

    def _declare_cache(self) -> None:
        of = self.registry
        self.cache_hits = Counter("reranker_cache_hits", "Pairs found in the score cache.", registry=of)
        self.cache_misses = Counter("reranker_cache_misses", "Pairs not found in the score cache.", registry=of)
        self.cache_evictions = Counter(
            "reranker_cache_evictions", "Entries evicted from the in-memory score cache.", registry=of
        )
        self.cache_errors = Counter(
            "reranker_cache_errors", "Look-ups and writes that failed, by kind.", ["kind"], registry=of
        )

    def _declare_experiments(self) -> None:
        of, arm = self.registry, ["experiment", "arm"]
        self.experiment_seconds = Histogram(
            "reranker_experiment_seconds", "Seconds of an answer, by arm.", arm, buckets=_SECONDS, registry=of
        )
        self.experiment_score = Histogram(
            "reranker_experiment_score", "Score of the first document, by arm.", arm, buckets=_SHARES, registry=of
        )
        self.experiment_rank_change = Histogram(
            "reranker_experiment_rank_change",
            "Mean places by which the first ten documents moved from the order in which they were sent, by arm.",
            arm,
            buckets=(0, 1, 2, 5, 10, 20, 50, 100),
            registry=of,
        )
        self.experiment_lost = Counter(
            "reranker_experiment_lost",
            "Answers that were not kept, because too much waited for the disk.",
            registry=of,
        )
        self.shadow_requests = Counter(
            "reranker_shadow_requests",
            "Requests of shadow arms: scored, dropped for want of spare time, or failed.",
            [*arm, "outcome"],
            registry=of,
        )
        self.shadow_tau = Histogram(
            "reranker_shadow_tau",
            "Kendall's tau between a shadow arm and the arm that answered.",
            arm,
            buckets=(-0.5, 0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1),
            registry=of,
        )
        self.shadow_first_changed = Counter(
            "reranker_shadow_first_changed",
            "Answers to which a shadow arm had another first document.",
            arm,
            registry=of,
        )


class EngineMetrics:
    """The metrics of one loaded model, under its name."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.queue_tokens = metrics.queue_tokens.labels(model)
        self.queue_requests = metrics.queue_requests.labels(model)
        self.queue_wait_seconds = metrics.queue_wait_seconds.labels(model)
        self.batch_pairs = metrics.batch_pairs.labels(model)
        self.batch_tokens = metrics.batch_tokens.labels(model)
        self.forward_seconds = metrics.forward_seconds.labels(model)
        self.inflight_dedup = metrics.inflight_dedup.labels(model)
        self.model = model
        self._metrics = metrics

    def pairs_dropped(self, reason: str, pairs: int) -> None:
        self._metrics.dropped_pairs.labels(self.model, reason).inc(pairs)

    def batch_failed(self, kind: str) -> None:
        self._metrics.engine_failures.labels(self.model, kind).inc()

    def pair_failed(self, code: str) -> None:
        self._metrics.failed_pairs.labels(self.model, code).inc()
