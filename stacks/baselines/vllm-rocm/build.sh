#!/bin/sh
# Builds vLLM for ROCm from PyPI's source package into the recipe's venv: sh build.sh PYTHON OUT. PyPI's wheel of vLLM is for CUDA alone.
# Needs ROCm (hipcc) and, in INDEX, the pip index of torch for that ROCm. Environment: PYTORCH_ROCM_ARCH (default gfx942), INDEX.
set -eu
python=$1 out=$2
version=0.33.0
: "${INDEX:=https://download.pytorch.org/whl/rocm6.4}"
export PYTORCH_ROCM_ARCH="${PYTORCH_ROCM_ARCH:-gfx942}" VLLM_TARGET_DEVICE=rocm
command -v hipcc >/dev/null || { echo "hipcc is not on PATH: install ROCm" >&2; exit 1; }
"$python" -m pip install -q --index-url "$INDEX" torch torchvision torchaudio
"$python" -m pip install -q 'cmake>=3.26.1' ninja packaging 'setuptools>=77' setuptools-scm wheel jinja2
"$python" -m pip install -q --no-build-isolation --no-binary vllm "vllm==$version"
"$python" -c 'import vllm; print(vllm.__version__)' > "$out/installed"
