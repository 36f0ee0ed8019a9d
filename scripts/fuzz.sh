#!/bin/bash
# Runs the fuzz targets of tests/fuzz with libFuzzer, under AddressSanitizer and
# UndefinedBehaviorSanitizer.
#
#   scripts/fuzz.sh [RUNS [TARGET...]]     executions per target, default 10^7;
#                                          default: every target
#
# Appends what it saw to bench/results/fuzz-DATE.txt; commit that file. A finding
# is build/fuzz/TARGET-*, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/python.sh

runs=${1:-10000000}
[ $# -le 1 ] || targets=("${@:2}")
[ $# -ge 2 ] || targets=($(cd tests/fuzz && ls ./*_fuzz.cpp | sed 's|./||; s|\.cpp||'))
results=bench/results/fuzz-$(date -u +%Y-%m-%d).txt
failed=0

# All that the targets are made of: what reads bytes of others and needs neither
# actors nor kernels.
sources=(engine/codec/*.cpp engine/text/*.cpp engine/text/jinja/*.cpp
  engine/weights/*.cpp engine/weights/download/*.cpp engine/model/*.cpp
  engine/model/hugging_face/*.cpp engine/ops/cpu/half.cpp
  router/http/request_parser.cpp router/http/syntax.cpp
  actors/runtime/{join_messages,token_format,sha256}.cpp)
compile="clang++-14 -std=c++20 -g -O1 -fsanitize=address,undefined"
compile="$compile -fno-sanitize=null -I."
[ -z "$(command -v ccache)" ] || compile="ccache $compile"

say() {
  echo "$*" | tee -a "$results"
}

# One archive of all sources: each target takes what it needs of it.
build_archive() {
  rm -rf build/fuzz/objects build/fuzz/sources.a
  mkdir -p build/fuzz/objects
  printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} sh -c \
    "$compile -fsanitize=fuzzer-no-link -c {} \
     -o build/fuzz/objects/\$(echo {} | tr / -).o"
  ar rcs build/fuzz/sources.a build/fuzz/objects/*.o
}

# seed TARGET: what its first corpus has.
seed() {
  local corpus=build/fuzz/corpus-$1 file files=()
  mkdir -p "$corpus"
  case $1 in
  gguf_fuzz) files=(tests/fuzz/seeds/*.two-gguf) ;;
  safetensors_fuzz) files=(tests/fuzz/seeds/*.safetensors) ;;
  config_json_fuzz) files=(tests/reference/{tiny,families,encoders}/*/config.json) ;;
  listing_fuzz) files=(tests/fuzz/seeds/listing-*) ;;
  tokenizer_json_fuzz | chat_template_fuzz)
    "$python" tests/fuzz/make_seeds.py "$1" "$corpus"
    ;;
  esac
  for file in "${files[@]}"; do
    cp "$file" "$corpus/${file//\//-}"
  done
}

# runs_of TARGET: lines of "EXECUTIONS BYTES", the longest input of so many. What
# is made of a text costs more than reading it: there, a tenth is long.
runs_of() {
  case $1 in
  tokenizer_json_fuzz | chat_template_fuzz)
    echo "$((runs - runs / 10)) 1024"
    echo "$((runs / 10)) 4096"
    ;;
  config_json_fuzz) echo "$runs 4096" ;;
  *) echo "$runs 65536" ;;
  esac
}

# fuzz TARGET: builds and runs it. Without the stacks of allocations and the
# weights of inputs, which cost more than the parsers do.
fuzz() {
  local program=build/fuzz/$1 begin count bytes
  $compile -fsanitize=fuzzer "tests/fuzz/$1.cpp" build/fuzz/sources.a \
    -lfmt -lcrypto -lsimdjson -lpcre2-8 -lcurl -o "$program"
  seed "$1"
  while read -r count bytes; do
    begin=$(date +%s)
    if ASAN_OPTIONS=malloc_context_size=0:quarantine_size_mb=16 "$program" \
      -runs="$count" -max_len="$bytes" -entropic=0 -rss_limit_mb=2048 -timeout=60 \
      -artifact_prefix="$program-" -print_final_stats=1 "build/fuzz/corpus-$1" \
      >"$program.log" 2>&1 </dev/null; then
      say "$1: $(grep number_of_executed "$program.log" | grep -o '[0-9]*$')" \
        "executions of up to $bytes bytes in $(($(date +%s) - begin)) s, no finding"
    else
      say "$1: FINDING, see $program.log"
      failed=1
    fi
  done < <(runs_of "$1")
}

require_packages "${packages_build[@]}" "${packages_test[@]}" clang-14 \
  libclang-rt-14-dev
mkdir -p build/fuzz bench/results
prepare_python
say "$(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD), $(nproc) cores"
build_archive
for target in "${targets[@]}"; do
  fuzz "$target"
done
exit "$failed"
