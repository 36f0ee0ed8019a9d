#!/bin/bash
# Builds the simulator and runs it on all cores.
#
#   scripts/sim.sh SEEDS [--first N] [--seconds S]   see tests/sim/main.cpp
#
# A seed that fails is printed with the invariant that does not hold; again with
# --first SEED --trace it tells its story.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh

[ $# -gt 0 ] || fail "usage: scripts/sim.sh SEEDS [--first N] [--seconds S]"
build_release ON troupe_sim >&2
exec build/release/tests/sim/troupe_sim "$@"
