# The Debian packages that Troupe needs, and the one function that installs
# them. Other scripts source this file.

packages_build=(
  g++ cmake ninja-build ccache pkg-config
  libcaf-dev libboost1.81-dev libssl-dev libsqlite3-dev libsimdjson-dev
  libyaml-cpp-dev libcli11-dev libspdlog-dev libfmt-dev libpcre2-dev
  libcurl4-openssl-dev libgloo-dev
)
packages_weights=(python3 python3-pip ca-certificates)
packages_ask=(curl)
packages_test=(catch2 patch python3-venv curl iproute2 iptables openssl procps)

# fail MESSAGE...: prints each argument on a line of its own and ends the script.
fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

package_is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# require_packages NAME...: installs those that are missing. Where that is not
# possible it says which are missing, why it may not, and what to type.
require_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || fail \
    "This is not a Debian system (there is no dpkg-query)." \
    "Install what these Debian 12 packages hold by hand: $*"
  for name in "$@"; do
    package_is_installed "$name" || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  echo "Debian packages to install: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      fail "They cannot be installed: this is not root, and there is no sudo." \
        "As root: apt-get install ${missing[*]}"
    fi
    if ! sudo -n true 2>/dev/null && [ ! -t 0 ]; then
      fail "They cannot be installed: sudo wants a password, and there is no" \
        "terminal to ask for it. Type: sudo apt-get install ${missing[*]}"
    fi
    as_root=(sudo)
  fi
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install them; its last words are above." \
      "Troupe is built on Debian 12; other releases may lack some of these."
  fi
  rm -f "$log"
}
