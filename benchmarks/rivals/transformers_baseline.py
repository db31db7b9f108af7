"""The model card's code behind FastAPI, as blog posts serve it.

python benchmarks/rivals/transformers_baseline.py FOLDER [PORT]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.rivals.openvino_rerank import INSTRUCTION, PREFIX, SUFFIX


class Body(BaseModel):
    """What the load generator sends."""

    query: str
    documents: list[str]


class Reranker:
    """Left padding, all logits of all positions, float32."""

    def __init__(self, folder: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._yes = self._tokenizer.convert_tokens_to_ids("yes")
        self._no = self._tokenizer.convert_tokens_to_ids("no")

    def rerank(self, body: Body) -> dict[str, Any]:
        texts = [f"<Instruct>: {INSTRUCTION}\n<Query>: {body.query}\n<Document>: {text}" for text in body.documents]
        inputs = self._tokenizer(
            [PREFIX + text + SUFFIX for text in texts], padding=True, return_tensors="pt", add_special_tokens=False
        )
        with torch.no_grad():
            logits = self._model(**inputs).logits[:, -1]
        scores = torch.sigmoid(logits[:, self._yes] - logits[:, self._no]).tolist()
        return {"scores": scores, "usage": {"total_tokens": int(inputs["attention_mask"].sum())}}


def main() -> None:
    app = FastAPI()
    app.post("/rerank")(Reranker(sys.argv[1]).rerank)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8001)


if __name__ == "__main__":
    main()
