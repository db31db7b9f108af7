"""aiperf: its own classes write the body and read the answer; its workers are left out."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib import import_module

from runner import DOCUMENTS, MODEL, call, main


def aiperf_call(endpoint: str, module: str, kind: str, path: str) -> None:
    @call("aiperf", f"--endpoint-type {endpoint}")
    def rank(url: str, key: str, query: str) -> Sequence[int]:
        made = getattr(import_module(f"aiperf.endpoints.{module}"), kind)
        body = made.build_payload(None, query, DOCUMENTS, MODEL)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                rows = made.extract_rankings(None, json.load(answer))
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error.code}: {error.read().decode()}") from None
        return [row["index"] for row in rows]


for row in (
    ("cohere-rankings", "cohere_rankings", "CohereRankingsEndpoint", "/v2/rerank"),
    ("hf-tei-rankings", "hf_tei_rankings", "HFTeiRankingsEndpoint", "/rerank"),
    ("nim-rankings", "nim_rankings", "NIMRankingsEndpoint", "/v1/ranking"),
):
    aiperf_call(*row)

main()
