#!/bin/bash
# From a fresh clone to a language model that answers an OpenAI client.
#   scripts/quickstart.sh          serves until Ctrl-C
#   scripts/quickstart.sh --check  asks one question, prints the answer, ends
# TROUPE_PORT (8000) and TROUPE_ADMIN_PORT (8265) choose the ports, and
# TROUPE_STATE_DIR the place of the cluster's state. A second start takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
. scripts/build.sh

check=false
case "${1:-}" in
  "") ;;
  --check) check=true ;;
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  *) fail "Unknown argument: $1 (see scripts/quickstart.sh --help)" ;;
esac
port=${TROUPE_PORT:-8000}
url=http://127.0.0.1:$port
model=smollm2-135m
config=cluster-configs/quickstart.yaml

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

if port_is_taken "$port"; then
  fail "Something listens on port $port already. Choose another one:" \
    "TROUPE_PORT=8001 $0"
fi

require_packages "${packages_build[@]}" "${packages_ask[@]}"
echo "Building Troupe (the first time takes some minutes) ..."
build_release OFF troupe
scripts/fetch_model.sh

# The cluster runs in a session of its own: Ctrl-C reaches this script alone,
# which asks the cluster to end and waits for it. Should this script be killed,
# the kernel ends the cluster.
arguments=(--port "$port" --admin-port "${TROUPE_ADMIN_PORT:-8265}")
if $check; then
  state_dir=$(mktemp -d)
  arguments+=(--state-dir "$state_dir")
fi
setsid setpriv --pdeathsig TERM \
  build/release/troupe run "$config" "${arguments[@]}" </dev/null &
cluster=$!

end_cluster() {
  trap - EXIT INT TERM
  kill -TERM "$cluster" 2>/dev/null || true
  local left=300
  while kill -0 "$cluster" 2>/dev/null && [ $((left -= 1)) -gt 0 ]; do
    sleep 0.1
  done
  kill -KILL "$cluster" 2>/dev/null || true
  wait "$cluster" 2>/dev/null || true
  [ -z "${state_dir:-}" ] || rm -rf "$state_dir"
}
trap 'status=$?; end_cluster; exit $status' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

question='What is gravity?'
body='{"model": "'$model'", "max_tokens": 48, "temperature": 0,
  "messages": [{"role": "user", "content": "'$question'"}]}'

# The model answers when a request for one token is answered; healthz alone
# would only say that it should.
left=1200
until curl -fsS -o /dev/null --max-time 30 "$url/v1/chat/completions" \
  -H 'Content-Type: application/json' \
  -d "${body/48/1}" 2>/dev/null; do
  if ! kill -0 "$cluster" 2>/dev/null; then
    wait "$cluster" || status=$?
    fail "The cluster ended before its model answered (exit status" \
      "${status:-0}); its last words are above."
  fi
  [ $((left -= 1)) -gt 0 ] || fail "The model did not answer within two minutes."
  sleep 0.1
done

if $check; then
  answer=$(curl -fsS --max-time 60 "$url/v1/chat/completions" \
    -H 'Content-Type: application/json' -d "$body")
  text=$(python3 -c '
import json, sys
answer = json.load(sys.stdin)
print(answer["choices"][0]["message"]["content"])
sys.exit(not answer["usage"]["completion_tokens"])' <<<"$answer") ||
    fail "This is not the answer of a model: $answer"
  printf '\n> %s\n%s\n' "$question" "$text"
  exit 0
fi

cat <<TEXT

The model answers at $url (OpenAI API). Paste this into another terminal:

curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"model": "$model",
       "messages": [{"role": "user", "content": "$question"}]}'

Ctrl-C ends it.
TEXT
wait "$cluster"
