#!/bin/sh
# A checkpoint for OpenVINO GenAI's rerank pipeline, its weights in int8: openvino_convert.sh CHECKPOINT [PYTHON]
set -eu
python="${2:-out/rivals/openvino/bin/python}"
folder="${1%/}"
exec "$(dirname "$python")/optimum-cli" export openvino --model "$folder" --library transformers \
    --task text-generation --weight-format int8 "$folder-openvino-int8"
