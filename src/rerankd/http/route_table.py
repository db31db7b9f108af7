"""Path -> wire route, by look-up.

A router that tries one pattern after another spends more time than the rest of this layer together once there are
fifty paths; almost all of ours have no parameter and are found by their name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from rerankd.wire.registry import Route

Found: TypeAlias = tuple[Route, dict[str, str]]
"""A route and the parameters that its pattern finds in a path."""

_PARAMETER = re.compile(r"\{(\w+)\}")


class RouteTable:
    """The paths of the wire's routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact = {route.path: route for route in routes if "{" not in route.path}
        self._patterns = [
            (re.compile(_PARAMETER.sub(r"(?P<\1>.+)", route.path)), route) for route in routes if "{" in route.path
        ]

    def find(self, path: str) -> Found | None:
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        for pattern, route in self._patterns:
            if found := pattern.fullmatch(path):
                return route, found.groupdict()
        return None
