"""The recipe of the embedded model: from training pairs to a model folder, in one command.

In: a data folder (``train/*.jsonl`` pairs, ``eval/NAME`` sets in BEIR layout). Out: config.json,
model.safetensors, tokenizer.json, template.json. May import torch, numpy, scipy, tokenizers, safetensors.
"""
