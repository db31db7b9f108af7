"""The page at ``/playground``: static files of this package, ranked with by whoever opens them.

The files hold no secret and need no key, for a browser sends none when it opens a page; what the page asks the
server does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from fastapi import Request, Response

from rerankd.http.request_state import state_of
from rerankd.http.route import MeasuredRoute

PAGE = "/playground"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOLDER = resources.files("rerankd.http") / "playground"

FILES: Mapping[str, str] = MappingProxyType(
    {
        PAGE if file.name == "index.html" else f"{PAGE}/{file.name}": file.name
        for file in sorted(_FOLDER.iterdir(), key=lambda file: file.name)
        if file.name.rpartition(".")[2] in _TYPES
    }
)
"""The file behind each path."""

# The browser itself refuses any other host, and any script or style that is not a file of this server.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again at every visit, and answered with 304 while nothing changed.
    "Cache-Control": "no-cache",
}


def playground_routes() -> list[MeasuredRoute]:
    return [MeasuredRoute(path, _File(name).show, include_in_schema=False) for path, name in FILES.items()]


class _File:
    """One file, read once."""

    def __init__(self, name: str) -> None:
        self._content = (_FOLDER / name).read_bytes()
        self._type = _TYPES[name.rpartition(".")[2]]
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:16]}"'

    async def show(self, request: Request) -> Response:
        if request.scope.get("raw_path", b"").endswith(b"/"):
            # Links of the page are relative to a path without a slash at its end.
            return Response(status_code=308, headers={"Location": f"..{PAGE}", **_HEADERS})
        headers = _HEADERS | {"ETag": self._tag}
        if state_of(request.scope).headers.get(b"if-none-match") == self._tag.encode():
            return Response(status_code=304, headers=headers)
        return Response(self._content, media_type=self._type, headers=headers)
