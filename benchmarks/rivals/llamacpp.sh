#!/bin/sh
# llama.cpp's server on a GGUF conversion of the checkpoint: llamacpp.sh MODEL.gguf [PORT]
set -eu
exec llama-server --model "$1" --host 127.0.0.1 --port "${2:-8004}" --reranking --ctx-size 8192 --ubatch-size 8192 --batch-size 8192
