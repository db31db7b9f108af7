#!/bin/sh
# llama.cpp's server on a GGUF conversion of the checkpoint: llamacpp.sh MODEL.gguf [PORT]
# Its own template and classifier are in the file. Four pairs at once from one pool of keys: of the numbers of slots,
# batch sizes and kinds of attention that were tried these are the quickest, and a pair of 8,192 tokens fits.
set -eu
place="${RIVALS:-$(dirname "$0")/../../out/rivals}/llamacpp"
exec "$place/bin/llama-server" --model "$1" --host 127.0.0.1 --port "${2:-8004}" --reranking \
    --parallel 4 --kv-unified --ctx-size 16384 --batch-size 2048 --ubatch-size 512
