"""Whether a rival reads the tokens that rerankd's prompt has: a row counts only if it does.

python -m benchmarks.rivals.tokens http://127.0.0.1:8002/rerank out/bench/0.6B/tokenizer.json [--framed]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import httpx

from benchmarks.payloads import PAYLOADS, Body
from benchmarks.rivals.openvino_rerank import framed
from benchmarks.workloads import Texts, Workload


def in_template(body: Body, instruction: str) -> Body:
    """The request with the prompt written into its texts, for servers that put a pair together as it is."""
    query, documents = framed(str(body["query"]), list(body["documents"]), instruction)
    return {**body, "query": query, "documents": documents}


def shape(texts: Texts, body: Body) -> Workload:
    """The request's lengths in tokens, template included; all documents of a payload are as long."""
    prompt = texts.prompt(str(body["query"]), list(body["documents"]))
    return Workload(len(prompt.tails), len(prompt.prefix), max(map(len, prompt.tails)))


def reported(url: str, body: Body) -> int | None:
    """Tokens of a request as the server at ``url`` counts them; None if it does not say."""
    answer = httpx.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=600)
    answer.raise_for_status()
    usage = answer.json().get("usage") or {}
    return int(usage["total_tokens"]) if usage.get("total_tokens") else None


def verdict(texts: Texts, url: str, extra: Body, *, is_framed: bool) -> str:
    """Empty if the server reads what it should; else why its rows are void."""
    body = PAYLOADS["10x64"].body(-1)
    wanted = sum(texts.prompt(str(body["query"]), list(body["documents"])).pair_tokens)
    sent = in_template(body, texts.instruction) if is_framed else body
    found = reported(url, {**sent, **extra})
    return "" if found == wanted else f"void: it reads {found or 'an unknown number of'} tokens instead of {wanted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--model", default="rival")
    parser.add_argument("--framed", action="store_true", help="write the template into the texts")
    arguments = parser.parse_args()
    words = verdict(Texts(arguments.tokenizer), arguments.url, {"model": arguments.model}, is_framed=arguments.framed)
    print(words or "it reads the same tokens")
    raise SystemExit(bool(words))


if __name__ == "__main__":
    main()
