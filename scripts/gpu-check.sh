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
#                               summary in $OUT (or build/gpu-check), which is
#                               written anew after each part; its status is 0 if
#                               all of them passed
#
# The module, and programs with the engine in them, travel, and are built there
# again meanwhile: parts that begin after that run with what was built there,
# and the summary says so. `troupe` itself has more in it than the engine, and
# is not built there.
set -uo pipefail
cd "$(dirname "$0")/.."
pack=$(realpath -m "${GPU_CHECK_PACK:-build/gpu-check}") # tests have others
built=$pack-built # does not travel, so a later call has it
# What is built from the engine and needs nothing else of this tree.
engine_programs="unit_cuda unit_ranks check_families bench_gpu_kernels
bench_gpu_engine"

# The machine's Python, and one to rehearse with.
pythons=(312 313)
travels_max=$((64 << 20)) # bytes: the tree and the pack

make_pack() {
  set -e
  . scripts/packages.sh
  . scripts/build.sh
  . scripts/python.sh
  prepare_python
  # shellcheck disable=SC2086 # several words
  build_release ON troupe troupe_cuda $engine_programs
  rm -rf "$pack" build/gpu-check.new
  local to=build/gpu-check.new version program
  mkdir -p "$pack" "$to/lib" "$to/wheels" "$to/programs"
  cp build/release/libtroupe_cuda.so "$to/"
  cp build/release/troupe build/release/bench/bench_gpu_{engine,kernels} \
    build/release/tests/reference/check_families \
    build/release/tests/unit/ranks/unit_ranks \
    build/release/tests/unit/cuda/unit_cuda "$to/programs/"
  strip "$to"/programs/*
  # What the bare machine may lack. Its own C and C++ libraries stay: what is
  # built or opened there may need newer ones than ours.
  ldd "$to"/programs/* | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libanl|libnss_[^/]*|ld-linux[^/]*|libstdc\+\+|libgcc_s)\.so' |
    xargs -I{} cp -L {} "$to/lib/"
  copy_headers "$to/include"
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
  local bytes
  bytes=$({
    git ls-files --cached --others --exclude-standard -z
    printf '%s\0' "$pack/pack.tar.gz"
  } | du --total --bytes --files0-from=- | awk 'END {print $1}')
  echo "$((bytes >> 20)) MiB travel"
  [ "$bytes" -le "$travels_max" ] || fail "That is too much."
}

# copy_headers FOLDER: those that building the engine and the module takes and
# that the machine may lack, as the compiler read them here: of the packages in
# cmake/bare.cmake, and cuBLAS's.
copy_headers() {
  local header to
  ninja -C build/release -t deps |
    awk -v ours="^(cuda|engine|bench/CMakeFiles/bench_gpu_[a-z]+.dir|\
tests/(CMakeFiles|reference|emulated_gpu|unit/cuda|unit/ranks))/" \
      '/^[^ ]/ {is_ours = $1 ~ ours} is_ours {print $1}' | sort -u |
    while read -r header; do
      to=${header#/usr/include/}
      to=${to#*-linux-gnu/}
      case $to in
        boost/* | catch2/* | CLI/* | curl/* | fmt/* | gloo/* | openssl/*) ;;
        pcre2.h | simdjson.h) ;;
        */cublas*.h) to=${to##*/} ;;
        *) continue ;;
      esac
      mkdir -p "$(dirname "$1/$to")"
      cp "$header" "$1/$to"
    done
}

# A program that finds the libraries that travel, wherever it was built: what
# else runs there has those of the machine.
with_own_libraries() {
  cat <<'EOF'
#!/bin/bash
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH=$here/lib:$GPU_LIBRARIES:${LD_LIBRARY_PATH:-}
exec "${GPU_PROGRAMS:-$here/programs}/${0##*/}" "$@"
EOF
}

# All parts together; a call there has ten minutes. A rehearsal takes longer and
# checks less (scripts/gpu-rehearse.sh).
budget_s=${GPU_CHECK_BUDGET_S:-560}
patience=${GPU_CHECK_PATIENCE:-1} # times what a part may take
made=${GPU_CHECK_MADE:---seeds 2}

# say LINE: a line of the summary.
say() {
  echo "$1" | tee -a "$out/summary.txt"
}

# ended NAME STATUS SECONDS MOST WITH: the line of a part, and what there is of
# all so far, for a call may be cut short.
ended() {
  case $2 in
    0) say "$1: passed, $3 s$5" ;;
    no-time) say "$1: did not run, no time was left" ;;
    124 | 137) say "$1: FAILED, it was stopped after $4 s$5" ;;
    *) say "$1: FAILED, $3 s$5" ;;
  esac
  [ "$2" = 0 ] || failed=$((failed + 1))
  hand_in
}

# Logs may grow meanwhile, of which tar complains.
hand_in() {
  tar -C "$out" -czf "$given/.new" . 2>/dev/null
  mv "$given/.new" "$given/gpu-check.tar.gz"
}

is_wanted() {
  [ -z "$wanted" ] || [[ " $wanted " == *" $1 "* ]]
}

# time_for SECONDS: prints how many of them a part may take; fails if no time is
# left.
time_for() {
  local most=$(($1 * patience)) left=$((budget_s - SECONDS))
  [ "$left" -ge 5 ] || return
  echo $((left < most ? left : most))
}

# part NAME SECONDS PROGRAM COMMAND...: runs the command, which runs that
# program, for so long at most, if it is wanted.
part() {
  local name=$1 program=$3 most start whose=packed folder=$pack/programs
  is_wanted "$name" || return 0
  look_at_builds
  start=$SECONDS
  ran=$((ran + 1))
  most=$(time_for "$2") || {
    ended "$name" no-time
    return
  }
  shift 3
  if ! command -v "$1" >/dev/null; then
    say "$name: did not run, there is no $1"
    failed=$((failed + 1))
    return
  fi
  if [ "$engine" = built ] && [ -x "$built/programs/$program" ]; then
    whose=built
    folder=$built/programs
  fi
  GPU_PROGRAMS=$folder timeout -k 5 "$most" "$@" >"$out/$name.log" 2>&1
  ended "$name" $? $((SECONDS - start)) "$most" \
    ", with the $module module and the $whose $program"
}

# build TARGET...: by the compilers that are there, with what travels of the
# packages that the engine needs.
build() {
  cmake --preset release -B "$built" -DTROUPE_BARE="$pack" -DTROUPE_CUDA=ON \
    -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$built/programs" &&
    cmake --build "$built" --target "$@"
}

# build_part NAME SECONDS TARGET...: a part that may end while others run:
# $out/NAME.ended is there then.
build_part() {
  local name=$1 most start=$SECONDS status=no-time
  is_wanted "$name" || return 0
  if most=$(time_for "$2"); then
    shift 2
    nice timeout -k 5 "$most" bash -c 'build "$@"' "$name" "$@" \
      >"$out/$name.log" 2>&1
    status=$?
  fi
  echo "$status $((SECONDS - start)) $most" >"$out/$name.new"
  mv "$out/$name.new" "$out/$name.ended"
}

# They go on beside the parts, and give way to them. The module, which all parts
# use, comes first.
begin_builds() {
  local name
  for name in build build-engine; do
    ! is_wanted "$name" || unseen+=("$name")
  done
  ran=${#unseen[@]}
  {
    build_part build 150 troupe_cuda
    # shellcheck disable=SC2086 # several words
    build_part build-engine 150 $engine_programs
  } &
  builder=$!
}

# look_at_builds [wait]: what has been built is used from now on.
look_at_builds() {
  local name status seconds most
  [ "${1:-}" != wait ] || wait "$builder"
  for name in "${unseen[@]}"; do
    [ -f "$out/$name.ended" ] || return 0
    unseen=("${unseen[@]:1}")
    read -r status seconds most <"$out/$name.ended"
    ended "$name" "$status" "$seconds" "$most" ""
    case $name-$status in
      build-0)
        module=built
        export TROUPE_CUDA_MODULE=$built/libtroupe_cuda.so
        ;;
      build-engine-0) engine=built ;;
    esac
  done
}

# Random models of every family, made there, against transformers.
made_families() {
  rm -rf "$pack/made"
  # shellcheck disable=SC2086 # several words
  python3 tests/reference/make_random_families.py "$pack/made" $made &&
    "$pack/check_families" "$pack/made" >"$out/made-families.json"
}

# The same with weights, keys and values in fp8.
made_fp8() {
  rm -rf "$pack/made-fp8"
  # shellcheck disable=SC2086 # several words
  python3 tests/reference/make_random_families.py "$pack/made-fp8" $made \
    --seeds 1 --fp8-weights --fp8-kv &&
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

# bench MODEL: nothing else runs while times are taken.
bench() {
  is_wanted "bench-$1" || return 0
  look_at_builds wait
  part "bench-$1" 240 bench_gpu_engine python3 bench/gpu_engine.py --only "$1" \
    --engine "$pack/bench_gpu_engine" --out "$out/$1"
}

# Single operations, beside what the GPU could do.
kernel_times() {
  is_wanted kernel-times || return 0
  look_at_builds wait
  part kernel-times 120 bench_gpu_kernels python3 bench/gpu_kernels.py \
    --measured "$pack/bench_gpu_kernels" --json "$out/kernel-times.json"
}

# The folder of a library that the toolkit has, or PyTorch brings.
folder_of() {
  local sites found
  sites=$(python3 -c 'import site
print(*(f"{path}/nvidia" for path in site.getsitepackages()))' 2>/dev/null)
  # shellcheck disable=SC2086 # several folders
  found=$(find /usr/local/cuda*/ $sites -name "$1" 2>/dev/null | head -n 1)
  dirname "${found:-/usr/local/cuda/lib64/$1}"
}

check() {
  out=$pack/out
  given=${OUT:-$pack}
  failed=0
  ran=0
  unseen=() # builds whose end was not seen yet
  module=packed
  engine=packed
  local name
  wanted=$*
  rm -rf "$out"
  mkdir -p "$out" "$given"
  if [ -f "$pack/pack.tar.gz" ] &&
    ! tar -C "$pack" -xzf "$pack/pack.tar.gz" 2>&1; then
    say "the pack could not be unpacked"
    return 1
  fi
  # Tools and libraries of the toolkit, and the driver's own, where a container
  # has them.
  export PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/nvidia/lib64
  export TROUPE_SOURCE=$PWD TROUPE_TEST_DEVICE=cuda
  TROUPE_TEST_GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
  export TROUPE_TEST_GPUS
  export TROUPE_CUDA_MODULE=$pack/libtroupe_cuda.so
  # cuBLAS and NCCL are too large to travel.
  GPU_LIBRARIES=$(folder_of libcublasLt.so.13):$(folder_of libnccl.so.2)
  export GPU_LIBRARIES
  export -f build serve made_families made_fp8
  export pack built out made
  say "$(nvidia-smi --query-gpu=name,driver_version,compute_cap \
    --format=csv,noheader 2>&1)"
  begin_builds
  # What says most comes first. A row's bits, whatever its company: all else is
  # built upon that.
  part rows 60 unit_cuda "$pack/unit_cuda" "*bits*" "~*family*" \
    --durations yes
  part kernels 150 unit_cuda "$pack/unit_cuda" "~*family*" "~*bits*" \
    --durations yes
  part families 60 unit_cuda "$pack/unit_cuda" "*family*" --durations yes
  part serve 120 troupe bash -c serve
  bench Qwen2.5-0.5B
  kernel_times
  part made-families 120 check_families bash -c made_families
  # One rank by NCCL, and up to four that share the GPU.
  part ranks 60 unit_ranks "$pack/unit_ranks" "~[emulated]" --durations yes
  bench Qwen2.5-7B
  for tool in memcheck racecheck synccheck; do
    part "$tool" 45 unit_cuda compute-sanitizer --tool "$tool" \
      --error-exitcode 1 --target-processes all \
      "$pack/unit_cuda" "attention*,products*,mixtures*,operations*,ties*,extreme*"
  done
  part made-fp8 60 check_families bash -c made_fp8
  bench Llama-3-8B
  [ -z "$wanted" ] || bench tiny # in a rehearsal
  look_at_builds wait
  for name in "${unseen[@]}"; do # whoever built it is gone
    say "$name: FAILED, it did not end"
    failed=$((failed + 1))
  done
  say "$((ran - failed)) of $ran parts passed"
  hand_in
  [ "$failed" = 0 ] && [ "$ran" -gt 0 ]
}

if [ "${1:-}" = pack ]; then
  make_pack
else
  check "$@"
fi
