"""Section S-05: keys and texts appear in no log line, metric, error or description."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import NO_GRACE, running_server
from tests.raw import RawConnection

KEY = "needle-key-9d1c"
TEXT = "needle-text-77aa"
ADMIN_KEY = "needle-admin-51fe"


@pytest.mark.promise("S-05")
@pytest.mark.parametrize("log_format", ["json", pytest.param("console", marks=pytest.mark.slow)])
def test_keys_and_texts_are_never_shown(tmp_path: Path, measured: Measured, log_format: str) -> None:
    flags = ("--engine", "fake", "--log-level", "debug", "--log-format", log_format, *NO_GRACE)
    env = {"RERANKD_API_KEYS": f"user:{KEY}", "RERANKD_ADMIN_KEYS": f"root:{ADMIN_KEY}"}
    shown = []
    with running_server(*flags, log=tmp_path / "server.log", env=env) as server:
        headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": f"{TEXT} with spaces"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            shown += [client.get(path).text for path in ("/", "/health", "/info", "/metrics", "/openapi.json")]
            shown += [client.get(f"/{TEXT}").text, client.get(f"/v1/models/{TEXT}").text]
            for body in (
                {"query": TEXT, "documents": [TEXT], "instruction": TEXT, "return_documents": False},
                {"query": TEXT, "documents": [TEXT], "top_n": TEXT},
                {"query": TEXT, "documents": TEXT, TEXT: TEXT, "model": TEXT, "return_documents": False},
                {"query": [TEXT], "documents": {TEXT: TEXT}},
            ):
                for path in ("/rerank", "/v1/rerank", "/score", "/tei/rerank"):
                    response = client.post(path, json=body)
                    shown.append(str(response.headers) + (response.text if response.status_code != 200 else ""))
            shown.append(client.post("/rerank", content=f'{{"query": "{TEXT}').text)
            shown.append(client.post("/rerank", headers={"Authorization": f"Bearer {KEY}x"}).text)
        with RawConnection(server.port) as connection:
            connection.send(f"POST /{TEXT} HTTP/1.1\r\n{TEXT} {KEY}\r\n\r\n".encode())
            shown.append(connection.read_all().decode())
        server.stop()
    shown.append(server.log.read_text())
    hits = {needle: sum(needle in text for text in shown) for needle in (KEY, TEXT, ADMIN_KEY, "needle")}
    measured(
        "S-05", f"keys and texts in {len(shown)} places, {log_format} logs", "0 hits", f"{sum(hits.values())} hits"
    )
    assert sum(hits.values()) == 0
