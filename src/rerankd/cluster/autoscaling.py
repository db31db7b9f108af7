"""How many replicas there should be: tokens that wait or run, over the tokens that one replica should have.

Not requests, Ray's own measure: one request may have a thousand documents. Ray waits its up- and downscaling delays
and keeps to its bounds with what this says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

QUEUED_TOKENS = "queued_tokens"


def replicas_for(tokens: float, target_tokens: int, current: int) -> int:
    """Enough replicas to have at most ``target_tokens`` each.

    Fewer only once they would be at most half full, so that a load in between does not make one come and go.
    """
    wanted = math.ceil(tokens / target_tokens)
    if wanted < current:
        return min(current, max(1, math.ceil(2 * tokens / target_tokens)))
    return max(1, wanted)


class QueuedTokens:
    """An autoscaling policy of Ray Serve, which makes one of it in its controller.

    Args:
        target_tokens: of one replica.
    """

    def __init__(self, target_tokens: int) -> None:
        self._target_tokens = target_tokens

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Ray's ``AutoscalingContext`` -> replicas, and a state to keep (none)."""
        by_replica: Mapping[object, float] = (context.aggregated_metrics or {}).get(QUEUED_TOKENS, {})
        tokens = sum(by_replica.values())
        return replicas_for(tokens, self._target_tokens, context.target_num_replicas), {}
