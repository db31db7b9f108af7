#!/bin/sh
# Infinity on a classifier made by `python -m benchmarks.rivals.seq_cls CHECKPOINT CLASSIFIER`: infinity.sh CLASSIFIER [PORT]
# It puts query and document together as they are, so the template has to be in the texts: serve.py --framed.
set -eu
place="${RIVALS:-$(dirname "$0")/../../out/rivals}/infinity"
exec "$place/bin/infinity_emb" v2 --model-id "$1" --served-model-name rival --host 127.0.0.1 --port "${2:-8003}" \
    --engine torch --device cpu --dtype "${DTYPE:-bfloat16}" --no-bettertransformer --no-model-warmup --lengths-via-tokenize
