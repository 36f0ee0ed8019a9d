#!/bin/bash
# What takes too long for scripts/test.sh: all C++ tests under AddressSanitizer
# and UndefinedBehaviorSanitizer, then the fuzz targets (scripts/fuzz.sh), then
# every kind of tokenizer against its reference.
#
#   scripts/long.sh [FUZZ_RUNS]     executions per fuzz target, default 10^7
#
# Writes what it saw to bench/results/long-DATE.txt; commit that file.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh
. scripts/python.sh

fuzz_runs=${1:-10000000}
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

require_packages "${packages_build[@]}" "${packages_test[@]}"
mkdir -p build bench/results
: >"$results"
say "$(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short HEAD), $(nproc) cores"
scripts/fetch_model.sh all
prepare_python
build_release ON tokenize_file
sanitized_tests
if scripts/fuzz.sh "$fuzz_runs"; then
  say "fuzzing: no finding in $fuzz_runs executions per target"
else
  say "fuzzing: FINDING, see bench/results/fuzz-*.txt"
  failed=1
fi
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
