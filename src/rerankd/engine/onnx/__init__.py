"""The ONNX Runtime engine: encoders, and the embedded model where torch is not installed.

| file | what it does |
| --- | --- |
| ``engine.py`` | the contract of ``engine/base.py``: load, token budget, scores |
| ``session.py`` | an ``InferenceSession`` with threads, memory arena and execution provider set deliberately |
| ``padding.py`` | prompts of a batch, sorted by length, as padded micro-batches |
| ``source.py`` | what a checkpoint's folder offers: a published graph, or weights of a known architecture |
| ``config.py`` | ``config.json`` of a cross-encoder, checked |
| ``weights.py`` | where each tensor lies in its safetensors file |
| ``protobuf.py`` | the ONNX messages in protobuf's wire format |
| ``graph.py`` | nodes and initializers of one graph; weights stay in the safetensors file as external data |
| ``graphs/`` | the forward pass of BERT and XLM-RoBERTa, ModernBERT, Qwen3, one file each |
| ``convert.py`` | writes such a graph as a file, and checks it against transformers |

A graph takes ``input_ids`` and ``attention_mask`` (and ``token_type_ids`` where the model has them), int64 (batch,
length), and gives ``logits``, float32 (batch, 1): the interface of the graphs that model hubs publish.
"""
