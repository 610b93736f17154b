#!/bin/sh
# As ../llama.cpp-cuda/build.sh, for rocm: sh build.sh PYTHON OUT
version=11434.0.0
grep -q "^version=$version$" "$(dirname "$0")/../llama.cpp-cuda/build.sh" || { echo "the shared script builds another version" >&2; exit 1; }
exec sh "$(dirname "$0")/../llama.cpp-cuda/build.sh" "$1" "$2" rocm
