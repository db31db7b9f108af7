"""``rerankd serve --ray``: a Ray cluster of this machine, or a running one, for the life of this process."""

from __future__ import annotations

import os
import signal
import threading

import structlog

from rerankd.errors import ConfigurationError
from rerankd.http.auth import check_address
from rerankd.settings import Settings

_log = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Serve until a signal; what is in flight then has ``drain_seconds``.

    Raises:
        ConfigurationError: Ray is not installed, or the settings cannot work.
    """
    check_address(settings)
    try:
        import ray
        from ray import serve

        from rerankd.cluster.application import application
    except ModuleNotFoundError as error:
        raise ConfigurationError("a Ray cluster needs: pip install 'rerankd[ray]'") from error
    # A server of one's own tells nobody that it runs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray kills an HTTP proxy that is not up within five seconds, and gives up: a machine that starts is busy.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "50")
    ended = threading.Event()
    # RAY_ADDRESS joins a running cluster; without it Ray starts one here.
    ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=True)
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(application(settings), name="rerankd")
        # Now, because Ray takes SIGTERM for itself when it starts, and leaves without a drain.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        _log.info("ready", host=settings.host, port=settings.port)
        ended.wait()
        _log.info("draining")
        serve.delete("rerankd")
        return 0
    except RuntimeError as error:
        raise ConfigurationError(f"the deployments did not start: {error}") from None
    finally:
        serve.shutdown()
        ray.shutdown()
