#!/bin/sh
# Usage: build.sh CXX OUT. Compiles every .cpp of the tree that this file stands in, two compilers at once, and links OUT.
# All of core/ is one unit, since reading the standard library's headers once for each of its small files took most of a build.
# CXX may be several words. A file whose first line reads "// flags: …" is compiled with those flags besides.
set -u
[ $# -eq 2 ] || { echo "usage: build.sh CXX OUT" >&2; exit 2; }
CXX=$1
case $2 in /*) OUT=$2 ;; *) OUT=$PWD/$2 ;; esac
cd "$(dirname "$0")" || exit 2
OBJ=$OUT.objects
rm -rf "$OBJ" && mkdir -p "$OBJ" || exit 2

for file in core/*.cpp; do printf '#include "%s/%s"\n' "$PWD" "$file"; done > "$OBJ/core.cpp"

# A worker takes the next file that nobody has claimed: mkdir succeeds for one of them only.
worker() {
  for file in "$OBJ/core.cpp" bindings/linear/*.cpp seed/*.cpp bindings/*/*.cpp; do
    [ -f "$file" ] || continue
    name=$(printf %s "${file#"$OBJ/"}" | tr / .)
    mkdir "$OBJ/$name.claim" 2>/dev/null || continue
    IFS= read -r first < "$file"
    flags=
    case $first in "// flags:"*) flags=${first#// flags:} ;; esac
    # shellcheck disable=SC2086 # CXX and flags are lists of words
    $CXX -O3 -std=c++20 -Wall -Wextra -Werror -pthread $flags -c "$file" -o "$OBJ/$name.o" 2> "$OBJ/$name.log" || : > "$OBJ/failed"
  done
}
worker & worker; wait
cat "$OBJ"/*.log >&2
[ ! -e "$OBJ/failed" ] || exit 1
$CXX -pthread -o "$OUT" "$OBJ"/*.o || exit 1
rm -rf "$OBJ"
