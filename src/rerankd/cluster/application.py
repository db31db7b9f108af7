"""The two deployments of a cluster, from the settings of one server.

    serve run rerankd.cluster.application:build config=/etc/rerankd/rerankd.toml

A deployment's arguments are Ray's own business to carry: the settings, with their keys, lie in the memory of the
cluster. Its nodes have to trust each other anyway, as everywhere in Ray.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rerankd.cluster.ingress import ClusterService, ReplicaLost
from rerankd.cluster.messages import Ask, Call, ModelCard, Reply, Status
from rerankd.cluster.replica import EngineReplica
from rerankd.errors import ConfigurationError, Draining, Overloaded
from rerankd.http.app import create_app
from rerankd.http.request_state import REQUEST_ID
from rerankd.observe.logs import configure_logs
from rerankd.observe.tracing import open_tracer
from rerankd.settings import Settings, load_settings

ENGINE = "engine"
_INGRESS_CPUS = 0.1
"""Reserved; an ingress parses and renders, some milliseconds a request."""
_REPLICAS_OF_AN_INGRESS = 4
_REPORT_SECONDS = 1.0
"""How often a replica says how many tokens it has."""
_SPARE_CALLS = 64
"""Calls that a replica may have beyond those that it lets in: it is the one to refuse, for it knows the tokens."""


class EngineDeployment(EngineReplica):
    """An engine replica as Ray sees it."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        # Ray awaits it: a replica counts as ready when its default model is.
        configure_logs(settings.log_format, settings.log_level)
        name = serve.get_replica_context().replica_id.unique_id
        super().__init__(settings, name, settings.ray_model_idle_seconds)
        await self.start()

    def check_health(self) -> None:
        """Ray replaces a replica that fails this three times."""
        self.check()

    def record_routing_stats(self) -> dict[str, Any]:
        """For :class:`~rerankd.cluster.router.PrefixRouter`."""
        return {"models": self.loaded_names(), "queued_tokens": self.queued_tokens()}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For :class:`~rerankd.cluster.autoscaling.QueuedTokens`."""
        return {"queued_tokens": float(self.queued_tokens())}

    def status(self, ask: Ask) -> Status:
        """Which replica this is, what it holds and what it counts."""
        return Status(self.name, tuple(self.loaded_names()), tuple(self.metrics()))

    async def __del__(self) -> None:
        await self.stop()


class RayReplicas:
    """The replicas behind a deployment handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def rerank(self, call: Call) -> Reply:
        """See :class:`~rerankd.cluster.ingress.Replicas`."""
        response = self._handle.rerank.remote(call)
        try:
            reply: Reply = await response
        except (BackPressureError, DeploymentUnavailableError):
            raise Overloaded("too many requests are waiting", retry_after=1.0, setting="queue_requests") from None
        except (RayActorError, ReplicaUnavailableError) as error:
            raise ReplicaLost from error
        except TaskCancelledError:
            raise Draining("the replica is shutting down", retry_after=1) from None
        except RayTaskError:
            raise
        except BaseException:
            response.cancel()
            raise
        return reply

    async def cards(self) -> list[ModelCard]:
        """See :class:`~rerankd.cluster.ingress.Replicas`."""
        cards: list[ModelCard] = await self._handle.cards.remote()
        return cards

    async def flush(self) -> None:
        """See :class:`~rerankd.cluster.ingress.Replicas`."""
        await self._handle.flush.remote()

    async def statuses(self) -> list[Status]:
        """See :class:`~rerankd.cluster.ingress.Replicas`. Each is asked to leave out those that have answered."""
        found: dict[str, Status] = {}
        while True:
            status: Status = await self._handle.status.remote(Ask(frozenset(found)))
            if status.replica in found:
                return list(found.values())
            found[status.replica] = status


class IngressDeployment:
    """The HTTP side: the same application as in one process."""

    async def __init__(self, settings: Settings, engine: DeploymentHandle) -> None:  # type: ignore[misc]
        # Ray awaits it.
        configure_logs(settings.log_format, settings.log_level)
        self._service = ClusterService(settings, RayReplicas(engine))
        await self._service.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _behind_ray(create_app(self._service.settings, self._service, tracer=open_tracer()))

    async def __del__(self) -> None:
        await self._service.stop()


def _behind_ray(app: ASGIApp) -> ASGIApp:
    """The application without what Ray's proxy does itself.

    Ray asks an application to start and to stop; ours is started by its deployment. And Ray's proxy gives a request
    without ``X-Request-Id`` one, which we take, and puts it into every answer.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0] != REQUEST_ID]
                message = {**message, "headers": kept}
            await send(message)

        if scope["type"] != "lifespan":
            await app(scope, receive, send_without_id)
            return
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})

    return answer


def application(settings: Settings) -> serve.Application:
    """The deployments, bound to each other.

    Raises:
        ConfigurationError: the API keys cannot be read, or there are experiments.
    """
    if settings.experiments:
        raise ConfigurationError(
            "experiments do not work on a Ray cluster: a replica keeps no answers ('experiments')"
        )
    most = max(settings.ray_min_replicas, settings.ray_max_replicas)
    calls = settings.queue_requests + _SPARE_CALLS
    engine = serve.deployment(
        name=ENGINE,
        max_ongoing_requests=calls,
        max_queued_requests=calls,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        ray_actor_options={"num_cpus": settings.ray_replica_cpus, "num_gpus": settings.ray_replica_gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.ray_min_replicas,
            max_replicas=most,
            upscale_delay_s=settings.ray_upscale_seconds,
            downscale_delay_s=settings.ray_downscale_seconds,
            # Ray's ten seconds between reports would come on top of every delay.
            metrics_interval_s=_REPORT_SECONDS,
            look_back_period_s=max(2 * _REPORT_SECONDS, settings.ray_upscale_seconds),
            policy=AutoscalingPolicy(
                policy_function="rerankd.cluster.autoscaling:QueuedTokens",
                policy_kwargs={"target_tokens": settings.ray_target_queue_tokens},
            ),
        ),
        request_router_config=RequestRouterConfig(
            request_router_class="rerankd.cluster.router:PrefixRouter",
            request_router_kwargs={"busy_tokens": settings.ray_target_queue_tokens},
            request_routing_stats_period_s=1.0,
        ),
    )(EngineDeployment)
    ingress = serve.deployment(
        name="ingress",
        max_ongoing_requests=most * calls,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        num_replicas=math.ceil(most / _REPLICAS_OF_AN_INGRESS),
        ray_actor_options={"num_cpus": _INGRESS_CPUS},
    )(serve.ingress()(IngressDeployment))
    threads = settings.threads or max(1, int(settings.ray_replica_cpus))
    own = dataclasses.replace(settings, threads=threads)
    return ingress.bind(settings, engine.bind(own))


def build(arguments: dict[str, str]) -> serve.Application:
    """For ``serve run`` and RayService manifests: ``config`` is the path of a settings file on the nodes."""
    config = arguments.get("config")
    return application(load_settings(file=Path(config) if config else None))
