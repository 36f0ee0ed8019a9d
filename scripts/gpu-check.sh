#!/bin/bash
# Runs on a machine with a GPU what the emulator has shown without one
# (docs/gpu-status.md).
#
#   scripts/gpu-check.sh pack   here: builds, and puts what travels into
#                               build/gpu-check (tests, module, libraries)
#   scripts/gpu-check.sh        there: runs it, says which part failed and goes on
#                               with the others; results in $OUT (or
#                               build/gpu-check/out)
set -uo pipefail
cd "$(dirname "$0")/.."
pack=build/gpu-check

make_pack() {
  set -e
  . scripts/packages.sh
  . scripts/build.sh
  build_release ON troupe_cuda unit_cuda
  rm -rf "$pack"
  mkdir -p "$pack/lib"
  cp build/release/libtroupe_cuda.so "$pack/"
  cp "$(find build/release -name unit_cuda -type f)" "$pack/"
  # What the bare machine may lack; its own C library stays.
  ldd "$pack/unit_cuda" | awk '$3 ~ /^\// {print $3}' |
    grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' |
    xargs -I{} cp -L {} "$pack/lib/"
  du -sh "$pack"
}

# part NAME COMMAND...: one line of the summary.
part() {
  local name=$1 start=$SECONDS result=passed
  shift
  timeout 240 "$@" >"$out/$name.log" 2>&1 || { result=FAILED; failed=1; }
  echo "$name: $result, $((SECONDS - start)) s" | tee -a "$out/summary.txt"
}

check() {
  out=${OUT:-$pack/out}
  failed=0
  mkdir -p "$out"
  export TROUPE_SOURCE=$PWD TROUPE_TEST_DEVICE=cuda
  export TROUPE_CUDA_MODULE=$PWD/$pack/libtroupe_cuda.so
  export LD_LIBRARY_PATH=$PWD/$pack/lib
  nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader |
    tee "$out/summary.txt"
  part kernels "$pack/unit_cuda" "~*family*" --durations yes
  part families "$pack/unit_cuda" "*family*" --durations yes
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
      part "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$pack/unit_cuda" "attention*,products*,operations*,ties*,extreme*"
    done
  else
    echo "no compute-sanitizer" | tee -a "$out/summary.txt"
  fi
  return "$failed"
}

if [ "${1:-}" = pack ]; then
  make_pack
else
  check
fi
