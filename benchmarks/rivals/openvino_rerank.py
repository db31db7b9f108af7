"""OpenVINO GenAI's rerank pipeline behind the benchmarks' protocol, with the Qwen3-Reranker prompt in its texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


class OpenVino:
    """The pipeline puts query and document together as they are: the template has to be in both."""

    def __init__(self, options: dict[str, Any]) -> None:
        import openvino_genai

        folder = converted(options)
        threads = {"INFERENCE_NUM_THREADS": options["threads"]} if options["threads"] else {}
        self._tokenizer = openvino_genai.Tokenizer(str(folder))
        self._pipeline = openvino_genai.TextRerankPipeline(str(folder), "CPU", top_n=1 << 20, **threads)
        self.details = f"OpenVINO GenAI {openvino_genai.__version__}, {options['dtype']} weights"

    def score(self, request: dict[str, Any]) -> NDArray[np.float64]:
        query, documents = framed(request["query"], request["documents"], request["instruction"])
        probabilities = np.full(len(documents), np.nan)
        for index, probability in self._pipeline.rerank(query, documents):
            probabilities[index] = probability
        return probabilities

    def tokens(self, request: dict[str, Any]) -> int:
        """Tokens of all pairs by its own tokenizer."""
        query, documents = framed(request["query"], request["documents"], request["instruction"])
        ids = self._tokenizer.encode([query + document for document in documents], add_special_tokens=False)
        return int(ids.attention_mask.data.sum())


def framed(query: str, documents: list[str], instruction: str) -> tuple[str, list[str]]:
    """Query and documents such that each pair, put together, is the model card's prompt.

    They part inside ``<Document>:``, where no token spans the gap and no white space ends or begins a text: whoever
    reads the two by themselves, or strips them, still finds the prompt's tokens there.
    """
    return (
        f"{PREFIX}<Instruct>: {instruction}\n<Query>: {query}\n<Document",
        [f">: {document}{SUFFIX}" for document in documents],
    )


def converted(options: dict[str, Any]) -> Path:
    """Where ``openvino_convert.sh`` puts the conversion of a checkpoint."""
    folder = Path(options["folder"])
    place = folder.parent / f"{folder.name}-openvino-{options['dtype']}"
    if not (place / "openvino_model.xml").is_file():
        raise FileNotFoundError(f"there is no {place}: benchmarks/rivals/openvino_convert.sh {folder} makes it")
    return place
