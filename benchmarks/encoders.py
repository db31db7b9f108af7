"""Encoders side by side, from texts to scores: rerankd, sentence-transformers, Infinity.

    python benchmarks/encoders.py --layout minilm --threads 2
    python benchmarks/encoders.py --systems rerankd:float32,rerankd:int8,sentence-transformers
    sh benchmarks/rivals/install.sh infinity && out/rivals/infinity/bin/python benchmarks/encoders.py

Random weights in the released layout, written once, and a tokenizer whose pieces are whole words. Every system reads
the same query and documents, on as many threads each, in this process; they take turns, a request has words of its
own, and a row is the quickest of all rounds. The systems that are not installed are left out, and named. Workload A
has 16 documents of 158 words behind a query of 77, B 64 documents of 33 words.

The rows say how far each system's scores are from those of sentence-transformers, and the rank correlation of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tests.encoder_checkpoints import BGE_RERANKER_V2_M3, LAYOUTS, MINILM_L6, EncoderLayout
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from benchmarks.machine import machine, print_table
from rerankd.engine.base import DType
from rerankd.reranker import Reranker

CHECKPOINTS = {"minilm": MINILM_L6, "bge-v2-m3": BGE_RERANKER_V2_M3, "small": LAYOUTS["bert"]}
WORKLOADS = {"A": (16, 77, 158), "B": (64, 77, 33)}
SYSTEMS = ("sentence-transformers", "rerankd:float32", "rerankd:int8", "infinity")
PACKAGES = {"sentence-transformers": "sentence_transformers", "infinity": "infinity_emb"}

Score = Callable[[str, Sequence[str]], NDArray[np.float32]]


def write_checkpoint(layout: EncoderLayout, folder: Path) -> int:
    """Weights and tokenizer; returns how many words the tokenizer has."""
    layout.write(folder)
    is_bert = layout.architecture.startswith("Bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if is_bert else ["<s>", "<pad>", "</s>", "<unk>"]
    pad, unknown, begin, end = special if is_bert else ("<pad>", "<unk>", "<s>", "</s>")
    words = int(layout.numbers["vocab_size"]) - len(special)
    tokenizer = wordpiece(special, words) if is_bert else unigram(special, words)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1" if is_bert else f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(token, special.index(token)) for token in (begin, end)],
    )
    tokenizer.add_special_tokens(special)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=begin,
        sep_token=end,
        model_max_length=512,
        model_input_names=["input_ids", *(["token_type_ids"] if is_bert else []), "attention_mask"],
    ).save_pretrained(folder)
    return words


def wordpiece(special: list[str], words: int) -> Tokenizer:
    """As BERT's."""
    pieces = {piece: number for number, piece in enumerate([*special, *(f"w{number}" for number in range(words))])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def unigram(special: list[str], words: int) -> Tokenizer:
    """As XLM-RoBERTa's."""
    pieces = [(piece, 0.0) for piece in special] + [(f"▁w{number}", -3.0) for number in range(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return tokenizer


def rerankd(folder: Path, dtype: DType, threads: int) -> Score:
    reranker = Reranker(str(folder), engine="onnx", dtype=dtype, threads=threads)

    def score(query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        ranked = reranker.rank(query, list(documents))
        scores = np.empty(len(documents), np.float32)
        for result in ranked:
            scores[result.index] = result.score
        return scores

    return score


def sentence_transformers(folder: Path, threads: int) -> Score:
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    model = CrossEncoder(str(folder), device="cpu")

    def score(query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.predict([(query, document) for document in documents], show_progress_bar=False))

    return score


def infinity(folder: Path, threads: int, ends: contextlib.ExitStack) -> Score:
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs
    from infinity_emb.primitives import Device, Dtype

    torch.set_num_threads(threads)
    arguments = EngineArgs(
        model_name_or_path=str(folder),
        device=Device.cpu,
        dtype=Dtype.float32,
        bettertransformer=False,
        model_warmup=False,
    )
    loop = asyncio.new_event_loop()
    engine = AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())
    ends.callback(lambda: loop.run_until_complete(engine.astop()))  # its threads would outlive everything

    def score(query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        ranked, _ = loop.run_until_complete(engine.rerank(query=query, docs=list(documents)))
        scores = np.empty(len(documents), np.float32)
        for result in ranked:
            scores[result.index] = result.relevance_score
        return scores

    return score


def open_system(name: str, folder: Path, threads: int, ends: contextlib.ExitStack) -> Score:
    if name == "sentence-transformers":
        return sentence_transformers(folder, threads)
    if name == "infinity":
        return infinity(folder, threads, ends)
    dtype: DType = "int8" if name.endswith(":int8") else "float32"
    return rerankd(folder, dtype, threads)


def texts(workload: str, words: int, seed: int) -> tuple[str, list[str]]:
    """A query, and documents whose lengths differ by a fifth, as documents' do."""
    documents, query, document = WORKLOADS[workload]
    rng = np.random.default_rng(seed)
    lengths = [query, *rng.integers(int(document * 0.8), int(document * 1.2), documents)]
    first, *rest = (" ".join(f"w{word}" for word in rng.integers(0, words, length)) for length in lengths)
    return first, rest


def correlation(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Spearman's: Pearson's of the ranks."""
    first, second = (np.argsort(np.argsort(values)) - (len(values) - 1) / 2 for values in (scores, reference))
    return float(first @ second / (first @ first))


def compare(systems: dict[str, Score], words: int, workload: str, rounds: int) -> None:
    quickest = dict.fromkeys(systems, float("inf"))
    query, documents = texts(workload, words, 0)
    scores = {name: score(query, documents) for name, score in systems.items()}  # and warms every system
    seeds = count(1)
    for _ in range(rounds):
        for name, score in systems.items():
            query, documents = texts(workload, words, next(seeds))
            began = time.perf_counter()
            score(query, documents)
            quickest[name] = min(quickest[name], time.perf_counter() - began)
    first = next(iter(systems))
    print_table(
        f"{workload}: {len(documents)} documents",
        [
            {
                "system": name,
                "pairs/s": f"{len(documents) / taken:.1f}",
                f"times {first}": f"{quickest[first] / taken:.2f}",
                "max difference": f"{np.abs(scores[name] - scores[first]).max():.1e}",
                "rank correlation": f"{correlation(scores[name], scores[first]):.4f}",
            }
            for name, taken in quickest.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=CHECKPOINTS, default="minilm")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_table("machine", [machine()])
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as ends:
        folder = Path(place)
        words = write_checkpoint(CHECKPOINTS[options.layout], folder)
        systems: dict[str, Score] = {}
        for name in options.systems.split(","):
            if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
                print(f"{name} is not installed", file=sys.stderr)
            else:
                systems[name] = open_system(name, folder, options.threads, ends)
        for workload in WORKLOADS:
            compare(systems, words, workload, options.rounds)


if __name__ == "__main__":
    main()
