"""Cross-encoders of random weights in the released layouts, written by transformers, for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

SMALL = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_labels": 1,
}
MODERN = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 1, "sep_token_id": 1}


@dataclass(frozen=True)
class EncoderLayout:
    """A model class of transformers with the numbers of its configuration."""

    architecture: str
    numbers: dict[str, Any]

    def write(self, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
        """A checkpoint as the hub publishes it; returns ``folder``."""
        import transformers

        config_class = getattr(transformers, self.architecture.removesuffix("ForSequenceClassification") + "Config")
        torch.manual_seed(seed)
        model = getattr(transformers, self.architecture)(config_class(**self.numbers))
        for name, parameter in model.named_parameters():
            # Wide enough that scores of different pairs differ; a fresh model gives all of them the same.
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.0 / parameter.shape[-1] ** 0.5)
            elif name.endswith("weight"):
                torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
        model.to(dtype).save_pretrained(folder)
        return folder


LAYOUTS = {
    "bert": EncoderLayout("BertForSequenceClassification", SMALL),
    "xlm-roberta": EncoderLayout(
        "XLMRobertaForSequenceClassification",
        {**SMALL, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    ),
    "modernbert": EncoderLayout("ModernBertForSequenceClassification", {**SMALL, **MODERN}),
    "modernbert, mean, last layer global": EncoderLayout(
        "ModernBertForSequenceClassification",
        {**SMALL, **MODERN, "num_hidden_layers": 4, "classifier_pooling": "mean"},
    ),
}
"""Three layers of a ModernBERT end with a local one, four with a global one."""

MINILM_L6 = EncoderLayout(
    "BertForSequenceClassification",
    {
        "vocab_size": 30_522,
        "hidden_size": 384,
        "intermediate_size": 1_536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "num_labels": 1,
    },
)
BGE_RERANKER_V2_M3 = EncoderLayout(
    "XLMRobertaForSequenceClassification",
    {
        "vocab_size": 250_002,
        "hidden_size": 1_024,
        "intermediate_size": 4_096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 8_194,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "num_labels": 1,
    },
)


def transformers_logits(folder: Path, prompts: list[np.ndarray], separator: int | None) -> np.ndarray:
    """The released code's scores, one pair at a time, in float32; ``separator`` ends the first segment."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    reads_types = model.config.model_type == "bert"
    scores = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        fields = {"input_ids": ids}
        if reads_types and separator is not None:
            is_separator = (ids == separator).long()
            fields["token_type_ids"] = (is_separator.cumsum(1) - is_separator > 0).long()
        with torch.inference_mode():
            scores.append(float(model(**fields).logits[0, 0]))
    return np.array(scores, dtype=np.float32)
