"""The routing rule for Ray Serve: its request router asks it for an order, and keeps to its own queue bounds."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from rerankd.cluster.messages import Ask, Call
from rerankd.cluster.routing import Candidate, order_of_choice


class PrefixRouter(RequestRouter):  # type: ignore[misc]
    """Chooses by :func:`order_of_choice`; what is no :class:`Call` may go to any replica."""

    _busy_tokens = 0

    def initialize_state(self, busy_tokens: int = 0, **kwargs: Any) -> None:
        """Ray hands over ``request_router_kwargs`` here."""
        self._busy_tokens = busy_tokens

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Groups of one replica each, in the order of choice; a full one is passed over by Ray."""
        if pending_request is None:
            return [candidate_replicas]
        # Without this Ray asks again at once while every replica is full.
        pending_request.routing_context.should_backoff = True
        call = pending_request.args[0] if pending_request.args else None
        if isinstance(call, Ask):
            fresh = [one for one in candidate_replicas if one.replica_id.unique_id not in call.avoid]
            return [fresh, candidate_replicas]
        if not isinstance(call, Call):
            return [candidate_replicas]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        candidates = [_candidate(name, replica.routing_stats) for name, replica in by_name.items()]
        order = order_of_choice(
            candidates, key=call.key, model=call.name, busy_tokens=self._busy_tokens, avoid=call.avoid
        )
        return [[by_name[candidate.replica]] for candidate in order]


def _candidate(name: str, stats: dict[str, Any]) -> Candidate:
    return Candidate(name, frozenset(stats.get("models", ())), int(stats.get("queued_tokens", 0)))
