#!/bin/bash
# Runs on a machine with a GPU what the emulator has shown without one
# (docs/gpu-status.md).
#
#   scripts/gpu-check.sh pack   here: builds, and puts what travels into
#                               build/gpu-check (program, tests, module,
#                               libraries, the official client)
#   scripts/gpu-check.sh [PART...]
#                               there: runs all parts, or those, says which one
#                               failed and goes on with the others. Ends within
#                               ten minutes with one tar of logs, JSON and a
#                               summary in $OUT (or build/gpu-check/out); its
#                               status is 0 if all of them passed
set -uo pipefail
cd "$(dirname "$0")/.."
pack=${GPU_CHECK_PACK:-build/gpu-check} # tests have others

# The Pythons that the machine there may have.
pythons=(310 311 312 313)

make_pack() {
  set -e
  . scripts/packages.sh
  . scripts/build.sh
  . scripts/python.sh
  prepare_python
  build_release ON troupe troupe_cuda unit_cuda unit_ranks check_families \
    bench_gpu_engine
  rm -rf "$pack" build/gpu-check.new
  local to=build/gpu-check.new version program
  mkdir -p "$pack" "$to/lib" "$to/wheels" "$to/programs"
  cp build/release/libtroupe_cuda.so "$to/"
  cp build/release/troupe build/release/bench/bench_gpu_engine \
    build/release/tests/reference/check_families \
    build/release/tests/unit/ranks/unit_ranks \
    build/release/tests/unit/cuda/unit_cuda "$to/programs/"
  strip "$to"/programs/*
  # What the bare machine may lack; its own C library stays.
  ldd "$to"/programs/* | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libanl|libnss_[^/]*|ld-linux[^/]*)\.so' |
    xargs -I{} cp -L {} "$to/lib/"
  for program in "$to"/programs/*; do
    with_own_libraries >"$to/${program##*/}"
    chmod +x "$to/${program##*/}"
  done
  for version in "${pythons[@]}"; do
    "$python" -m pip download --quiet --disable-pip-version-check \
      --only-binary=:all: --python-version "$version" \
      --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
      --dest "$to/wheels" "$(grep ^openai tests/requirements.txt)"
  done
  tar -C "$to" -czf "$pack/pack.tar.gz" .
  rm -rf build/gpu-check.new
  du -sh "$pack"
}

# A program that finds the libraries that travel with it: what else runs there
# has those of the machine.
with_own_libraries() {
  cat <<'EOF'
#!/bin/bash
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH=$here/lib:$GPU_LIBRARIES:${LD_LIBRARY_PATH:-}
exec "$here/programs/${0##*/}" "$@"
EOF
}

# All parts together; a call there has ten minutes.
budget_s=${GPU_CHECK_BUDGET_S:-560}

# say LINE: a line of the summary.
say() {
  echo "$1" | tee -a "$out/summary.txt"
}

# part NAME SECONDS COMMAND...: runs it for so long at most, if it is wanted.
part() {
  local name=$1 most=$2 start=$SECONDS left=$((budget_s - SECONDS))
  shift 2
  [ -z "$wanted" ] || [[ " $wanted " == *" $name "* ]] || return 0
  ran=$((ran + 1))
  if [ "$left" -lt 5 ]; then
    say "$name: did not run, no time was left"
    failed=$((failed + 1))
    return
  fi
  if ! command -v "$1" >/dev/null; then
    say "$name: did not run, there is no $1"
    failed=$((failed + 1))
    return
  fi
  [ "$left" -ge "$most" ] || most=$left
  timeout -k 5 "$most" "$@" >"$out/$name.log" 2>&1
  case $? in
    0) say "$name: passed, $((SECONDS - start)) s" && return ;;
    124 | 137) say "$name: FAILED, it was stopped after $most s" ;;
    *) say "$name: FAILED, $((SECONDS - start)) s" ;;
  esac
  failed=$((failed + 1))
}

# Random models of every family, made there, against transformers.
made_families() {
  rm -rf "$pack/made"
  python3 tests/reference/make_random_families.py "$pack/made" --seeds 2 &&
    "$pack/check_families" "$pack/made" >"$out/made-families.json"
}

# The same with weights, keys and values in fp8.
made_fp8() {
  rm -rf "$pack/made-fp8"
  python3 tests/reference/make_random_families.py "$pack/made-fp8" \
    --fp8-weights --fp8-kv &&
    "$pack/check_families" "$pack/made-fp8" --fp8-weights --fp8-kv \
      >"$out/made-fp8.json"
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
  out=$pack/out
  failed=0
  ran=0
  wanted=$*
  rm -rf "$out"
  mkdir -p "$out" "${OUT:-$out}"
  if [ -f "$pack/pack.tar.gz" ] &&
    ! tar -C "$pack" -xzf "$pack/pack.tar.gz" 2>&1; then
    say "the pack could not be unpacked"
    return 1
  fi
  export TROUPE_SOURCE=$PWD TROUPE_TEST_DEVICE=cuda
  TROUPE_TEST_GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
  export TROUPE_TEST_GPUS
  export TROUPE_CUDA_MODULE=$PWD/$pack/libtroupe_cuda.so
  # cuBLAS and NCCL are too large to travel.
  GPU_LIBRARIES=$(folder_of libcublasLt.so.13):$(folder_of libnccl.so.2)
  # The driver's own, where a container has them.
  export GPU_LIBRARIES LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/nvidia/lib64
  export PATH=$PATH:/usr/local/cuda/bin
  say "$(nvidia-smi --query-gpu=name,driver_version,compute_cap \
    --format=csv,noheader 2>&1)"
  part kernels 150 "$pack/unit_cuda" "~*family*" --durations yes
  for tool in memcheck racecheck synccheck; do
    part "$tool" 45 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      --target-processes all \
      "$pack/unit_cuda" "attention*,products*,mixtures*,operations*,ties*,extreme*"
  done
  part families 60 "$pack/unit_cuda" "*family*" --durations yes
  # One rank by NCCL, and up to four that share the GPU.
  part ranks 60 "$pack/unit_ranks" "~[emulated]" --durations yes
  export -f serve made_families made_fp8
  export pack out
  part made-families 120 bash -c made_families
  part made-fp8 60 bash -c made_fp8
  part serve 120 bash -c serve
  for model in Qwen2.5-0.5B Qwen2.5-7B Llama-3-8B; do
    part "bench-$model" 240 python3 bench/gpu_engine.py --only "$model" \
      --engine "$pack/bench_gpu_engine" --out "$out/$model"
  done
  say "$((ran - failed)) of $ran parts passed"
  tar -C "$out" -czf "${OUT:-$pack}/gpu-check.tar.gz" .
  [ "$failed" = 0 ] && [ "$ran" -gt 0 ]
}

if [ "${1:-}" = pack ]; then
  make_pack
else
  check "$@"
fi
