#!/bin/bash
# Rehearses scripts/gpu-check.sh where there is no GPU: the pack as it travels,
# in a root folder that has what the machine with a GPU has, and none of the
# packages that Troupe is built with. In the place of CUDA's runtime, cuBLASLt,
# NCCL and NVML are those of the tests, whose devices interpret PTX.
#
#   scripts/gpu-rehearse.sh ROOT [PART...]
#
# ROOT is made as docs/gpu-status.md says. Needs scripts/gpu-check.sh pack, root,
# and CUDA's toolkit in /usr/local/cuda. Results are in ROOT/root/out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh

# The tree as it travels, and the pack with the module's stand-in.
lay_tree() {
  rm -rf "$root/root/troupe" "$root/root/out"
  mkdir -p "$root/root/troupe/build/gpu-check" "$root/root/out"
  git ls-files --cached --others --exclude-standard -z |
    tar --null --files-from=- -c | tar -C "$root/root/troupe" -x
  local unpacked
  unpacked=$(mktemp -d)
  tar -C "$unpacked" -xzf build/gpu-check/pack.tar.gz
  cp build/release/tests/interpreted_gpu/libinterpreted_gpu.so \
    "$unpacked/libtroupe_cuda.so"
  tar -C "$unpacked" -czf "$root/root/troupe/build/gpu-check/pack.tar.gz" .
  rm -rf "$unpacked"
}

# The toolkit, by whose runtime a module that is built there is linked with the
# stand-in.
lay_toolkit() {
  local toolkit=$root/usr/local/cuda driver=$root/usr/local/nvidia
  rm -rf "$toolkit" "$driver"
  mkdir -p "$toolkit" "$driver/bin" "$driver/lib64"
  # But for its libraries, some of which are as large as all else together, and
  # for what the pack has.
  tar -C /usr/local/cuda/ -c --exclude='./lib*/lib*.so*' \
    --exclude='./include/cublas*' . | tar -C "$toolkit" -x
  cp -a /usr/local/cuda/lib64/libcudart.so* "$toolkit/lib64/"
  cp build/release/tests/interpreted_gpu/lib*.so* "$toolkit/lib64/"
  # What cmake tries the compiler with needs more than the stand-in has.
  mv "$toolkit/lib64/libcudart_static.a" "$toolkit/lib64/libcudart_itself.a"
  echo 'INPUT(/usr/local/cuda/lib64/libinterpreted_cuda.so' \
    '/usr/local/cuda/lib64/libcudart_itself.a)' \
    >"$toolkit/lib64/libcudart_static.a"
  cp build/release/tests/unit/node_agent/libnvidia-ml.so.1 "$driver/lib64/"
  cat >"$driver/bin/nvidia-smi" <<'SMI'
#!/bin/sh
echo "an interpreter of PTX"
SMI
  cat >"$toolkit/bin/compute-sanitizer" <<'SANITIZER'
#!/bin/bash
while [[ $1 == --* ]]; do
  case $1 in --tool | --error-exitcode | --target-processes) shift ;; esac
  shift
done
exec "$@"
SANITIZER
  chmod +x "$driver/bin/nvidia-smi" "$toolkit/bin/compute-sanitizer"
}

[ $# -gt 0 ] || fail "usage: scripts/gpu-rehearse.sh ROOT [PART...]"
root=$(realpath "$1")
shift
[ -f build/gpu-check/pack.tar.gz ] || fail "scripts/gpu-check.sh pack comes first."
build_release ON interpreted_gpu interpreted_cublas_lt interpreted_nccl fake_nvml
lay_tree
lay_toolkit
# No network but what the machine talks to itself by. The interpreter takes many
# times what a GPU does: more patience, fewer models.
export root
# shellcheck disable=SC2016 # the shell in there expands them
unshare --mount --net --pid --fork bash -c '
  ip link set lo up
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  exec chroot "$root" /usr/bin/env -i HOME=/root OUT=/root/out \
    PATH=/opt/torch/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    INTERPRETED_GPUS=2 GPU_CHECK_BUDGET_S="${GPU_CHECK_BUDGET_S:-3600}" \
    GPU_CHECK_PATIENCE="${GPU_CHECK_PATIENCE:-30}" \
    GPU_CHECK_MADE="${GPU_CHECK_MADE:---only llama}" \
    /root/troupe/scripts/gpu-check.sh "$@"' rehearse "$@"
