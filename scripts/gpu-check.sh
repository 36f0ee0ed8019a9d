#!/bin/bash
# Runs on a machine with a GPU what the emulator has shown without one
# (docs/gpu-status.md).
#
#   scripts/gpu-check.sh pack   here: builds, and puts what travels into
#                               build/gpu-check (program, tests, module,
#                               libraries, the official client)
#   scripts/gpu-check.sh        there: runs it, says which part failed and goes on
#                               with the others; results in $OUT (or
#                               build/gpu-check/out)
set -uo pipefail
cd "$(dirname "$0")/.."
pack=build/gpu-check

# The Pythons that the machine there may have.
pythons=(310 311 312 313)

make_pack() {
  set -e
  . scripts/packages.sh
  . scripts/build.sh
  . scripts/python.sh
  prepare_python
  build_release ON troupe troupe_cuda unit_cuda unit_ranks bench_gpu_engine
  rm -rf "$pack" build/gpu-check.new
  mkdir -p "$pack" build/gpu-check.new/lib build/gpu-check.new/wheels
  local to=build/gpu-check.new version
  cp build/release/libtroupe_cuda.so build/release/troupe \
    build/release/bench/bench_gpu_engine \
    "$(find build/release -name unit_cuda -type f)" \
    "$(find build/release -name unit_ranks -type f)" "$to/"
  strip "$to/troupe" "$to/unit_cuda" "$to/unit_ranks" "$to/bench_gpu_engine"
  # What the bare machine may lack; its own C library stays.
  ldd "$to/unit_cuda" "$to/troupe" | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' |
    xargs -I{} cp -L {} "$to/lib/"
  for version in "${pythons[@]}"; do
    "$python" -m pip download --quiet --disable-pip-version-check \
      --only-binary=:all: --python-version "$version" \
      --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
      --dest "$to/wheels" "$(grep ^openai tests/requirements.txt)"
  done
  tar -C build/gpu-check.new -cJf "$pack/pack.tar.xz" .
  rm -rf build/gpu-check.new
  du -sh "$pack"
}

# All parts together; a call there has ten minutes.
budget_s=${GPU_CHECK_BUDGET_S:-570}

# part NAME COMMAND...: one line of the summary.
part() {
  local name=$1 start=$SECONDS left=$((budget_s - SECONDS)) result=passed
  shift
  if [ "$left" -lt 5 ]; then
    echo "$name: did not run, no time was left" | tee -a "$out/summary.txt"
    failed=1
    return
  fi
  timeout -k 5 $((left < 240 ? left : 240)) "$@" >"$out/$name.log" 2>&1 ||
    { result=FAILED; failed=1; }
  echo "$name: $result, $((SECONDS - start)) s" | tee -a "$out/summary.txt"
}

# A node that serves from the GPU.
serve() {
  python3 -m pip install --quiet --no-index --find-links "$pack/wheels" \
    --target "$pack/python" openai &&
    PYTHONPATH=$pack/python python3 scripts/gpu_serve_check.py "$pack/troupe" \
      tests/reference/tiny/bf16-llama3.gguf "$out/serve.json"
}

# The folder of a library that the toolkit has, or PyTorch brings.
folder_of() {
  local sites found
  sites=$(python3 -c 'import site; print(*site.getsitepackages())' 2>/dev/null)
  # shellcheck disable=SC2086 # several folders
  found=$(find /usr/local/cuda*/ $sites -name "$1" 2>/dev/null | head -n 1)
  dirname "${found:-/usr/local/cuda/lib64/$1}"
}

check() {
  out=${OUT:-$pack/out}
  failed=0
  mkdir -p "$out"
  [ ! -f "$pack/pack.tar.xz" ] || tar -C "$pack" -xJf "$pack/pack.tar.xz"
  export TROUPE_SOURCE=$PWD TROUPE_TEST_DEVICE=cuda
  export TROUPE_CUDA_MODULE=$PWD/$pack/libtroupe_cuda.so
  # cuBLAS and NCCL are too large to travel.
  export LD_LIBRARY_PATH=$PWD/$pack/lib:$(folder_of libcublasLt.so.13)
  LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(folder_of libnccl.so.2)
  export PATH=$PATH:/usr/local/cuda/bin
  nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader |
    tee "$out/summary.txt"
  part kernels "$pack/unit_cuda" "~*family*" --durations yes
  part families "$pack/unit_cuda" "*family*" --durations yes
  # One rank by NCCL, and up to four that share the GPU.
  part ranks "$pack/unit_ranks" "~[emulated]" --durations yes
  export -f serve
  export pack out
  part serve bash -c serve
  for model in Qwen2.5-0.5B Qwen2.5-7B Llama-3-8B; do
    part "bench-$model" python3 bench/gpu_engine.py --only "$model" \
      --engine "$pack/bench_gpu_engine" --out "$out/$model"
  done
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
