#!/bin/sh
# A checkpoint for llama.cpp's server, in bf16 and q8_0: llamacpp_convert.sh CHECKPOINT
# Its converter knows a reranker by the folder's name; it keeps two rows of the output matrix and the prompt beside them.
set -eu
place="${RIVALS:-$(dirname "$0")/../../out/rivals}/llamacpp"
# A path from the root: its quantiser takes a name that begins with a digit for a format.
folder="$(realpath -s "$1")"
named="$(mktemp -d)"
trap 'rm -r "$named"' EXIT
ln -s "$(realpath "$folder")" "$named/Qwen3-Reranker"
"$place/bin/python" "$place/source/convert_hf_to_gguf.py" "$named/Qwen3-Reranker" \
    --outtype bf16 --outfile "$folder-bf16.gguf"
"$place/bin/llama-quantize" "$folder-bf16.gguf" "$folder-q8_0.gguf" Q8_0
