"""The TypeScript client in a browser: its built modules, loaded as they are, against a real server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.live import ROOT, LiveServer

MODULES = ROOT / "clients" / "typescript" / "dist" / "esm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODULES.is_dir(), reason="`make typescript` builds the client"),
]


def test_the_client_ranks_and_ends_calls_in_a_browser(page: Any, tiny_server: LiveServer) -> None:
    def module(route: Any) -> None:
        file = MODULES / route.request.url.partition("/client/")[2]
        route.fulfill(body=file.read_text(encoding="utf-8"), content_type="text/javascript")

    # The page's policy allows scripts of its own origin alone: that is where the modules are said to be.
    page.route("**/client/**", module)
    said = page.evaluate(
        """async (url) => {
          const { RerankerClient, InvalidRequest } = await import(`${url}/client/index.js`);
          const client = new RerankerClient(url);
          const { results } = await client.rerank("capital of France", ["Bananas.", "Paris, capital of France."]);
          const { status } = await client.healthCheck();
          const refused = await client.rerank("", ["a"]).catch((error) => error instanceof InvalidRequest);
          const ended = await client.rerank("q", ["a"], { signal: AbortSignal.abort() }).catch((error) => error.name);
          return { best: results[0].index, status, refused, ended };
        }""",
        tiny_server.url,
    )
    assert said == {"best": 1, "status": "healthy", "refused": True, "ended": "AbortError"}
