"""The interactive page at ``/docs``: every byte of it comes from this server."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from importlib import resources

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from rerankd.errors import NotFound
from rerankd.http.route import MeasuredRoute

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
"""Files of the page by name, with their types; nothing else of the package's folder is served."""

# The browser itself then refuses any other host, whatever the page or its library may try.
_ONLY_THIS_HOST = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>rerankd</title>
<link rel="icon" type="image/png" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""

# The validator's badge would be an image of another host.
_START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null, tryItOutEnabled: true,
  presets: [SwaggerUIBundle.presets.apis], docExpansion: "list", defaultModelsExpandDepth: -1
});
"""


def docs_routes() -> list[MeasuredRoute]:
    return [
        MeasuredRoute("/docs", _page, include_in_schema=False),
        MeasuredRoute("/docs/assets/{name}", _asset, include_in_schema=False),
    ]


async def _page(request: Request) -> Response:
    raw = bytes(request.scope.get("raw_path", b""))
    if slashes := len(raw) - len(raw.rstrip(b"/")):
        # The page finds its parts beside its own address; relative, for a proxy may have a prefix before it.
        return RedirectResponse("../" * slashes + "docs")
    return HTMLResponse(_PAGE, headers=_ONLY_THIS_HOST)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=_ONLY_THIS_HOST)
    if name not in ASSETS:
        raise NotFound("the page has no such file")
    content = await asyncio.to_thread(_read, name)
    return Response(content, media_type=ASSETS[name], headers=_ONLY_THIS_HOST)


@lru_cache(maxsize=len(ASSETS))
def _read(name: str) -> bytes:
    return resources.files("fastapi_swagger.resources").joinpath(name).read_bytes()
