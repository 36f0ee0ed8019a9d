# Builds the release preset. Other scripts source this file after packages.sh.

# build_release TESTS [TARGET...]: configures where needed and builds; without a
# target everything. TESTS is ON, or OFF where the tests' packages may be missing.
# Leaves a full log in build/release/build.log; on failure prints its end.
build_release() {
  local tests=$1
  shift
  local log=build/release/build.log
  mkdir -p build/release
  # A compiler of this source takes up to 1.5 GB: with little memory, fewer jobs.
  local jobs memory_gb
  jobs=$(nproc)
  memory_gb=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$((memory_gb / 2))" -ge "$jobs" ] || jobs=$((memory_gb / 2))
  [ "$jobs" -ge 1 ] || jobs=1
  if [ ! -f build/release/build.ninja ] || [ "$tests" = ON ]; then
    cmake --preset release -DTROUPE_TESTS="$tests" >"$log" 2>&1 || {
      tail -n 30 "$log" >&2
      fail "cmake could not configure the build; the whole log is $log."
    }
  fi
  if [ -t 1 ]; then
    # ninja's own line ("[12/340] ...") is the progress display.
    ninja -C build/release -j "$jobs" "$@" || fail "The build failed."
  else
    ninja -C build/release -j "$jobs" "$@" >>"$log" 2>&1 || {
      grep -v '^\[[0-9]*/[0-9]*\] Building' "$log" | tail -n 60 >&2
      fail "The build failed; the whole log is $log."
    }
  fi
}
