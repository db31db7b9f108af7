#!/bin/sh
# vLLM's own server on a released Qwen3 reranker: vllm_server.sh CHECKPOINT [PORT]
# It applies no template by itself; the chat template given here is the model card's prompt.
set -eu
exec vllm serve "$1" --port "${2:-8002}" --runner pooling --dtype bfloat16 --max-model-len 8192 \
    --served-model-name rival \
    --chat-template "$(dirname "$0")/qwen3_reranker.jinja" \
    --hf-overrides '{"architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}'
