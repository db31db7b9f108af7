"""OpenVINO GenAI's rerank pipeline behind FastAPI: python benchmarks/rivals/openvino_server.py CHECKPOINT [PORT].

CHECKPOINT has been through ``openvino_convert.sh``.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.rivals.openvino_rerank import INSTRUCTION, OpenVino


class Body(BaseModel):
    """What the load generator sends."""

    query: str
    documents: list[str]


class Server:
    """One request at a time: the pipeline has all cores already."""

    def __init__(self, folder: str) -> None:
        self._pipeline = OpenVino({"folder": folder, "dtype": "int8", "threads": 0})
        self._lock = threading.Lock()

    def rerank(self, body: Body) -> dict[str, Any]:
        request = {**body.model_dump(), "instruction": INSTRUCTION}
        with self._lock:
            scores = self._pipeline.score(request).tolist()
        return {"scores": scores, "usage": {"total_tokens": self._pipeline.tokens(request)}}


def main() -> None:
    app = FastAPI()
    app.post("/rerank")(Server(sys.argv[1]).rerank)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8005)


if __name__ == "__main__":
    main()
