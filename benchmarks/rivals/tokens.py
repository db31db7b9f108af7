"""Whether a rival reads the tokens that rerankd reads: python -m benchmarks.rivals.tokens RIVAL_URL [RERANKD_URL]."""

from __future__ import annotations

import sys

import httpx

from benchmarks.payloads import PAYLOADS


def tokens(url: str) -> int:
    """Tokens of one fixed request, as the server at ``url`` counts them."""
    body = {**PAYLOADS["10x64"].body(0), "model": "rival"}
    answer = httpx.post(f"{url}/rerank", json=body, timeout=600)
    answer.raise_for_status()
    return int(answer.json()["usage"]["total_tokens"])


def main() -> None:
    rival = tokens(sys.argv[1])
    ours = tokens(sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000")
    print(f"rival {rival}, rerankd {ours}: {'comparable' if rival == ours else 'VOID, it reads other tokens'}")
    sys.exit(rival != ours)


if __name__ == "__main__":
    main()
