"""A released reranker as a classifier with the same scores: python -m benchmarks.rivals.seq_cls FOLDER PLACE.

The classifier's one row is the difference of the two words' rows of the output matrix. Its tokenizer takes the signs
``STAND_IN`` for the line ends that close the prompt: Infinity strips every text, and would strip those.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import Replace, Sequence

STAND_IN = "\N{SYMBOL FOR NEWLINE}" * 2
"""For a text that ends with two line ends and shall not lose them."""


def convert(folder: Path, place: Path) -> None:
    """Write ``folder``, whose words are ``yes`` and ``no``, as a classifier to ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    matrix = tensors.pop("lm_head.weight", tensors["model.embed_tokens.weight"])
    yes, no = words.token_to_id("yes"), words.token_to_id("no")
    tensors["score.weight"] = (matrix[yes].float() - matrix[no].float()).to(matrix.dtype)[None].contiguous()
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["Qwen3ForSequenceClassification"],
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": words.token_to_id("<|endoftext|>"),
    }
    (place / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    shutil.copyfile(folder / "tokenizer_config.json", place / "tokenizer_config.json")
    strippable(words).save(str(place / "tokenizer.json"))


def strippable(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, which reads ``STAND_IN`` as two line ends where nothing else stands between control tokens."""
    ends = Replace(Regex(f"^{STAND_IN}$"), "\n\n")
    tokenizer.normalizer = Sequence([tokenizer.normalizer, ends] if tokenizer.normalizer else [ends])
    return tokenizer


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
