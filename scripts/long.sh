#!/bin/bash
# What takes too long for scripts/test.sh: all C++ tests under AddressSanitizer
# and UndefinedBehaviorSanitizer, then the fuzz targets.
#
#   scripts/long.sh [FUZZ_SECONDS]     seconds per fuzz target, default 600
#
# Writes what it saw to bench/results/long-DATE.txt; commit that file.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh
. scripts/python.sh

fuzz_seconds=${1:-600}
results=bench/results/long-$(date -u +%Y-%m-%d).txt
failed=0

say() {
  echo "$*" | tee -a "$results"
}

sanitized_tests() {
  cmake --preset sanitize >build/sanitize.log 2>&1
  ninja -C build/sanitize >>build/sanitize.log 2>&1
  # CAF's and the tests' own processes are watched too; leaks end the run.
  if (cd build/sanitize && ASAN_OPTIONS=detect_leaks=1 \
    UBSAN_OPTIONS=halt_on_error=1 ctest --timeout 1200 --output-on-failure) \
    >build/sanitize-tests.log 2>&1; then
    say "sanitizers: $(grep 'tests passed' build/sanitize-tests.log)"
  else
    say "sanitizers: FAILED, see build/sanitize-tests.log"
    grep -E 'Failed|\*\*\*' build/sanitize-tests.log | tee -a "$results"
    failed=1
  fi
}

# seed NAME FILE...: what the target's first corpus has.
seed() {
  local name=$1 file
  shift
  mkdir -p "build/fuzz/corpus-$name"
  for file; do
    cp "$file" "build/fuzz/corpus-$name/${file//\//-}"
  done
}

# fuzz NAME SOURCE...: builds the target with libFuzzer and runs it.
fuzz() {
  local name=$1
  shift
  local program=build/fuzz/$name
  mkdir -p "build/fuzz/corpus-$name"
  clang++-14 -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined \
    -fno-sanitize=null -I. "tests/fuzz/$name.cpp" "$@" -lfmt -lcrypto \
    -lsimdjson -lpcre2-8 -o "$program"
  if "$program" -max_total_time="$fuzz_seconds" -max_len=65536 \
    -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$name-" \
    -print_final_stats=1 "build/fuzz/corpus-$name" >"$program.log" 2>&1; then
    say "$name: $(grep number_of_executed "$program.log" | tr -s ' ')" \
      "in $fuzz_seconds s, no finding"
  else
    say "$name: FINDING, see $program.log"
    failed=1
  fi
}

require_packages "${packages_build[@]}" "${packages_test[@]}" clang-14 \
  libclang-rt-14-dev
mkdir -p build bench/results build/fuzz
: >"$results"
say "$(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD), $(nproc) cores"
scripts/fetch_model.sh all
prepare_python
build_release ON tokenize_file
sanitized_tests
fuzz http_fuzz router/http/request_parser.cpp router/http/syntax.cpp
seed listing_fuzz tests/fuzz/seeds/listing-*
fuzz listing_fuzz engine/weights/download/*.cpp engine/codec/*.cpp -lcurl
model_files=(engine/weights/*.cpp engine/ops/cpu/half.cpp
  engine/model/model_config.cpp engine/model/metadata.cpp
  engine/model/architecture.cpp engine/text/value.cpp engine/codec/*.cpp)
seed gguf_fuzz tests/fuzz/seeds/*.two-gguf
fuzz gguf_fuzz "${model_files[@]}" \
  engine/model/{model_card,gguf_tokenizer}.cpp \
  engine/text/{pretokenizers,character_sets,utf8}.cpp
seed safetensors_fuzz tests/fuzz/seeds/*.safetensors
fuzz safetensors_fuzz "${model_files[@]}"
seed config_json_fuzz tests/reference/tiny/*/config.json
fuzz config_json_fuzz "${model_files[@]}" \
  engine/model/hugging_face/{config_json,family,json_fields}.cpp \
  engine/model/hugging_face/quantization_config.cpp
text_files=(engine/text/*.cpp engine/text/jinja/*.cpp engine/codec/*.cpp)
for target in tokenizer_json_fuzz chat_template_fuzz; do
  "$python" tests/fuzz/make_seeds.py "$target" "build/fuzz/corpus-$target"
  fuzz "$target" "${text_files[@]}"
done
fuzz join_fuzz actors/runtime/join_messages.cpp actors/runtime/token_format.cpp \
  actors/runtime/sha256.cpp
if "$python" tests/reference/compare_tokenizer.py --kinds --only "" \
  --tokenize "$(find build/release -name tokenize_file -type f)" \
  >build/tokenizers.log 2>&1; then
  say "tokenizers: every kind as the reference"
else
  say "tokenizers: DIFFER, see build/tokenizers.log"
  failed=1
fi
say "done, $failed failed"
exit "$failed"
