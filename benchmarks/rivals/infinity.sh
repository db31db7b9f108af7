#!/bin/sh
# Infinity on a sequence-classification conversion of the checkpoint: infinity.sh CHECKPOINT [PORT]
# It sends query and document as they are, so the template has to be in the texts.
set -eu
exec infinity_emb v2 --model-id "$1" --served-model-name rival --port "${2:-8003}" --engine torch --no-bettertransformer
