"""The prompts of released rerankers, one row each, and what a checkpoint of each is recognised by.

Each is what the model's card, or the code that it points to, makes of a query and a document; ``tests/golden``
compares token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rerankd.prompt.template import Control, Head, Template, Text

_QWEN3_SYSTEM = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN3_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _qwen3(name: str, gap: str) -> Template:
    # Cutting the body behind the instruction's gap and before the document's space changes no id: the pre-tokenizer
    # always cuts there ("<" cannot take a line's end in, ":" cannot take a space in, and it never looks back). So the
    # instruction is encoded once for all requests, and the query once for all documents of a request. tests/golden
    # compares the ids with those of the whole string. At any other place they would differ.
    return Template(
        name=name,
        parts=(
            Control(_QWEN3_SYSTEM),
            Text(f"<Instruct>: {{instruction}}{gap}"),
            Text(f"<Query>: {{query}}{gap}<Document>:"),
            Text(" {document}"),
            Control(_QWEN3_ANSWER),
        ),
        head=Head(kind="words", positive="yes", negative="no"),
        default_instruction="Given a web search query, retrieve relevant passages that answer the query",
    )


def _pair(name: str, begin: str, between: str, end: str) -> Template:
    """The pair of a cross-encoder: what its tokenizer's post-processor puts around two texts."""
    parts = (Control(begin), Text("{query}"), Control(between), Text("{document}"), Control(end))
    return Template(name=name, parts=parts, head=Head(kind="linear"))


_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each "
    "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
    "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)

# The pieces are encoded one by one in the released code too. Its scores are logits; their sigmoid is the probability
# of "1" against "0", which is what its own prediction is cut at.
_MXBAI = Template(
    name="mxbai-rerank-v2",
    parts=(
        Control(
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        ),
        Control("<|im_start|>user\n"),
        Text("{instruction: |instruction|\n}query: {query}"),
        Control("\n"),
        Text("document: {document}"),
        Control("\n"),
        Control(f"{_MXBAI_TASK}<|im_end|>\n<|im_start|>assistant\n"),
    ),
    head=Head(kind="words", positive="1", negative="0"),
)

# A chat of two turns; the released code strips both texts, and divides the logit by 5.
_ZERANK = Template(
    name="zerank",
    parts=(
        Control("<|im_start|>system\n"),
        Text("{query:strip}"),
        Control("<|im_end|>\n<|im_start|>user\n"),
        Text("{document:strip}"),
        Control("<|im_end|>\n<|im_start|>assistant\n"),
    ),
    head=Head(kind="words", positive="Yes"),
    scale=0.2,
)

# One string, the document first. The score is the logit of token 0, which is "!" in Qwen3's vocabulary, as it is.
_CTXL = Template(
    name="ctxl-rerank-v2",
    parts=(
        Text(
            "Check whether a given document contains information helpful to answer the query.\n"
            "<Document> {document}\n<Query> {query}{ |instruction} ??"
        ),
    ),
    head=Head(kind="words", positive="!"),
    activation="identity",
)

_BGE_GEMMA_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)

_BGE_GEMMA = Template(
    name="bge-reranker-v2-gemma",
    parts=(
        Control("<bos>"),
        Text("A: {query}"),
        Control("\n"),
        Text("B: {document}"),
        Control("\n"),
        Control(_BGE_GEMMA_TASK),
    ),
    head=Head(kind="words", positive="Yes"),
)


@dataclass(frozen=True, slots=True)
class Released:
    """A released decoder: its template, the family of its architecture, and what its files or its folder name."""

    template: Template
    family: str
    """``Qwen3`` of ``Qwen3ForCausalLM``."""
    name: str
    """Stands in the hub's name, in ``_name_or_path`` or in ``auto_map``."""


RELEASED = (
    # The first of a family is what a checkpoint without any other sign is.
    Released(_qwen3("qwen3-reranker", gap="\n"), "Qwen3", "qwen3-reranker"),  # the card's transformers example
    Released(_ZERANK, "Qwen3", "zerank"),
    Released(_CTXL, "Qwen3", "ctxl-rerank"),
    Released(_MXBAI, "Qwen2", "mxbai-rerank"),
    Released(_BGE_GEMMA, "Gemma", "bge-reranker-v2-gemma"),
)

PAIRS = (
    _pair("bert-pair", "[CLS]", "[SEP]", "[SEP]"),  # BERT, DeBERTa, ELECTRA, ModernBERT
    _pair("roberta-pair", "<s>", "</s></s>", "</s>"),  # RoBERTa, XLM-RoBERTa, MPNet
)

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        *(row.template for row in RELEASED),
        _qwen3("qwen3-reranker-chat", gap="\n\n"),  # the model card's vLLM example
        *PAIRS,
    )
}
