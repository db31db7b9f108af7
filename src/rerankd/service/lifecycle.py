"""The states of the server, and who may hear of a change.

    starting -> ready <-> degraded -> draining -> stopped, and dead from anywhere

``ready``: every served model is loaded and warm. ``degraded``: it answers, but a part that it can do
without (the shared cache, one of several engines) is out of reach.
``dead``: the engine is gone for good, the process must end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from rerankd.errors import engine_is_gone, model_is_loading, server_is_stopping


class State(StrEnum):
    """Where the server stands."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"
    DEAD = "dead"


_ANSWERING = frozenset({State.READY, State.DEGRADED})


class Lifecycle:
    """The one place that says whether the server is able to answer."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.reason = ""
        """Why the server is dead or degraded; empty otherwise."""
        self.state = State.STARTING
        """Changed by :meth:`move_to` alone."""
        self._accepts_while_draining = True
        self._listeners: list[Callable[[State], None]] = []
        self._troubles: dict[str, str] = {}

    @property
    def is_ready(self) -> bool:
        """May the load balancer send requests here (``/readyz``)?"""
        return self.state in _ANSWERING

    @property
    def is_alive(self) -> bool:
        """Is the process worth keeping (``/livez``)? Never a question of load, warm-up or Redis."""
        return self.state is not State.DEAD

    def on_change(self, listener: Callable[[State], None]) -> None:
        self._listeners.append(listener)

    def move_to(self, state: State, reason: str = "") -> None:
        """Change the state; nothing leads back from ``dead``, and only ``stopped`` follows ``draining``."""
        if self.state is State.DEAD or (self.state is State.DRAINING and state in _ANSWERING):
            return
        if state is State.READY and self._troubles:
            state, reason = State.DEGRADED, "; ".join(self._troubles.values())
        self.state, self.reason = state, reason
        for listener in self._listeners:
            listener(state)

    def report(self, part: str, trouble: str) -> None:
        """A part that the server can do without is in trouble, or is well again (an empty ``trouble``)."""
        self._troubles.pop(part, None)
        if trouble:
            self._troubles[part] = trouble
        if self.state in _ANSWERING:
            reasons = "; ".join(self._troubles.values())
            self.move_to(State.DEGRADED if reasons else State.READY, reasons)

    def end_grace(self) -> None:
        """From now on a draining server refuses new work.

        Until then it still takes some: load balancers learn of ``/readyz`` seconds after it changed.
        """
        self._accepts_while_draining = False

    def check_accepting(self) -> None:
        """Raise the error of a server that takes no new work just now."""
        if self.state is State.DRAINING and self._accepts_while_draining:
            return
        match self.state:
            case State.STARTING:
                raise model_is_loading()
            case State.DRAINING | State.STOPPED:
                raise server_is_stopping()
            case State.DEAD:
                raise engine_is_gone()
