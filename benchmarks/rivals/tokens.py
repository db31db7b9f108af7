"""Whether a rival reads the tokens that rerankd's prompt has: a row counts only if it does.

python -m benchmarks.rivals.tokens http://127.0.0.1:8002/rerank out/bench/0.6B/tokenizer.json [--framed]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.payloads import PAYLOADS, Body
from benchmarks.rivals.openvino_rerank import framed
from benchmarks.rivals.seq_cls import STAND_IN
from benchmarks.workloads import Texts, Workload


def in_template(body: Body, instruction: str) -> Body:
    """The request with the prompt written into its texts, for Infinity, which strips them and puts them together."""
    query, documents = framed(str(body["query"]), list(body["documents"]), instruction)
    return {**body, "query": query, "documents": [document.rstrip() + STAND_IN for document in documents]}


def shape(texts: Texts, body: Body) -> Workload:
    """The request's lengths in tokens, template included; all documents of a payload are as long."""
    pairs = texts.pairs(str(body["query"]), list(body["documents"]))
    return Workload(len(pairs), len(pairs[0].prefix), max(len(pair.tail) for pair in pairs))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server says of one request: the tokens it read, None if it does not say, and its probabilities."""

    tokens: int | None
    probabilities: tuple[float, ...]


def probe() -> Body:
    """A request whose texts end in signs, digits and another script: where a template slips, their tokens tell."""
    body = PAYLOADS["10x64"].body(-1)
    documents = ['Is it 7, or "8"...', "法国的首都是巴黎。", *body["documents"][2:]]
    return {**body, "query": f"{body['query']}?", "documents": documents}


def reading(url: str, body: Body) -> Reading:
    """What the server at ``url`` makes of a request; it answers with scores in order, or with results by index.

    Raises:
        RuntimeError: it left documents out.
    """
    answer = httpx.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=600)
    answer.raise_for_status()
    found = answer.json()
    tokens = (found.get("usage") or {}).get("total_tokens")
    by_index = {one["index"]: one["relevance_score"] for one in found.get("results", ())}
    scores = found.get("scores") or [by_index[index] for index in sorted(by_index)]
    if len(scores) != len(body["documents"]):
        raise RuntimeError(f"{url}: {len(scores)} scores for {len(body['documents'])} documents")
    return Reading(int(tokens) if tokens else None, tuple(map(float, scores)))


def verdict(texts: Texts, url: str, extra: Body, *, is_framed: bool) -> tuple[str, tuple[float, ...]]:
    """Empty if the server reads what it should, else why its rows are void; and the probabilities it gave."""
    body = probe()
    wanted = sum(pair.tokens for pair in texts.pairs(str(body["query"]), list(body["documents"])))
    sent = in_template(body, texts.instruction) if is_framed else body
    found = reading(url, {**sent, **extra})
    if found.tokens == wanted:
        return "", found.probabilities
    return f"void: it reads {found.tokens or 'an unknown number of'} tokens instead of {wanted}", found.probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--model", default="rival")
    parser.add_argument("--framed", action="store_true", help="write the template into the texts")
    arguments = parser.parse_args()
    words, scores = verdict(
        Texts(arguments.tokenizer), arguments.url, {"model": arguments.model}, is_framed=arguments.framed
    )
    print(words or "it reads the same tokens", *(f"{score:.4f}" for score in scores))
    raise SystemExit(bool(words))


if __name__ == "__main__":
    main()
