#!/bin/bash
# Installs what the tests need, builds, and runs everything that runs without a
# GPU: unit, actor and kernel tests (ctest), comparisons with reference
# implementations, and the tests against running clusters (pytest): of one node,
# and of several that are hurt.
# The last line is the count over all of them; the exit status is 0 only if
# nothing failed and no suite was empty.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh
. scripts/python.sh

passed=0
failed=0
# Programs, and files of tests on clusters of their own, run beside each other.
at_once=$(nproc)
[ "$at_once" -le 4 ] || at_once=4
# Tests on the real weights fail without them instead of standing aside.
export TROUPE_REQUIRE_MODEL=1

# record SUITE PASSED FAILED: adds to the count. A suite without a single test is
# a failure: something that should have run did not.
record() {
  local name=$1 good=$2 bad=$3
  if [ $((good + bad)) = 0 ]; then
    echo "$name ran no test" >&2
    bad=1
  fi
  echo "-- $name: $good passed, $bad failed"
  passed=$((passed + good))
  failed=$((failed + bad))
}

prepare() {
  require_packages "${packages_build[@]}" "${packages_weights[@]}" \
    "${packages_test[@]}"
  # What is fetched comes while the compilers work.
  (
    prepare_python
    scripts/fetch_model.sh all
  ) &
  local fetching=$!
  echo "Building ..."
  build_release ON
  wait "$fetching" || fail "What the tests need could not be fetched."
  prepare_python # it is there: says where
}

# The C++ programs, one ctest entry each.
run_ctest() {
  local report=build/release/ctest.xml
  rm -f "$report"
  (cd build/release && ctest -j "$at_once" --output-on-failure \
    --no-tests=error --timeout 300 --output-junit ctest.xml \
    --test-output-size-passed 1000000) || true
  record ctest $(count_of "$report")
}

# Each tokenizer that is compared is one test.
run_reference() {
  local report=build/reference.xml
  rm -f "$report"
  "$python" tests/reference/compare_tokenizer.py \
    --tokenize "$(find build/release -name tokenize_file -type f)" \
    --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf --junit "$report" || true
  record reference $(count_of "$report")
}

# The real weights in other formats against the same as F32: one test.
run_formats() {
  if "$python" tests/reference/compare_formats.py \
    --compare build/release/tests/reference/compare_logits \
    --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf; then
    record formats 1 0
  else
    record formats 0 1
  fi
}

# run_pytest SUITE PATH WORKERS [COMMAND]: in so many processes, a file of tests
# in one of them; each runs under COMMAND.
run_pytest() {
  local report=build/pytest-$1.xml
  rm -f "$report"
  "$python" -m pytest -q -p no:cacheprovider --junit-xml "$report" \
    --tx "$3*popen//python=${4-} '$python'" --dist loadfile "$2" || true
  record "$1" $(count_of "$report")
}

# count_of REPORT: "PASSED FAILED" of a JUnit report; "0 1" if there is none
# (the runner died). A ctest entry that is a Catch2 program counts as its test
# cases. A skipped test counts as failed: nothing here may be skipped.
count_of() {
  "$python" scripts/count_tests.py "$1"
}

prepare
run_ctest
run_reference
run_formats
run_pytest layout tests/layout 1
run_pytest e2e tests/e2e "$at_once"
# Of these there may be several, each with processes and a network of its own;
# but what is hurt there is to be seen within a time, and each takes a core.
run_pytest cluster tests/cluster 1 tests/cluster/enclosed
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
