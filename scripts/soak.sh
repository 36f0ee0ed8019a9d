#!/bin/bash
# Hurts a cluster for a long time and compares every byte that its clients get:
# first replicas are killed in mid-stream, then anything goes wrong at random.
#
#   scripts/soak.sh [KILLS] [SECONDS] [SEED]   1000 kills, then 1800 s of faults
#
# Writes what it measured to bench/results/soak-DATE.txt; commit that file.
# Ends with 1 at the first answer that is not that of an undisturbed run.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh
. scripts/python.sh

kills=${1:-1000}
seconds=${2:-1800}
seed=${3:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
results=bench/results/soak-$(date -u +%Y-%m-%d).txt

require_packages "${packages_build[@]}" "${packages_weights[@]}" \
  "${packages_test[@]}"
prepare_python
scripts/fetch_model.sh
build_release ON
mkdir -p bench/results
{
  date -u +"%Y-%m-%dT%H:%MZ, commit $(git rev-parse --short HEAD), $(nproc) cores"
  grep -m 1 'model name' /proc/cpuinfo || true
} >"$results"
tests/cluster/enclosed "$python" tests/cluster/soak.py --kills "$kills" \
  --seconds "$seconds" --seed "$seed" 2>&1 | tee -a "$results"
exit "${PIPESTATUS[0]}"
