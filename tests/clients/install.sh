#!/usr/bin/env bash
# Installs the client libraries the whole-broker tests speak with: paho-mqtt in a Python
# environment, MQTT.js as a node module. Both go into a folder of the cache named after the digest
# of what is asked for, so a second call finds them and a changed version installs beside them.
#
#   install.sh              install unless they are there
#   install.sh --print-dir  say where they are or would be
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
readonly CACHE="${HOOPOE_CACHE:-$HOME/.cache/hoopoe}"

asked="$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum | cut -c1-12)"
readonly target="$CACHE/clients-$asked"

say() { printf 'Test clients: %s\n' "$*" >&2; }

if [[ "${1:-}" == --print-dir ]]; then
    echo "$target"
    exit
fi
[[ ! -f "$target/READY" ]] || exit 0

mkdir -p "$CACHE"
exec 9>"$CACHE/clients.lock"
flock 9
[[ ! -f "$target/READY" ]] || exit 0

# A Python environment holds its own path, so it is made in place; READY is written last.
rm -rf "$target"
mkdir -p "$target"
say "paho-mqtt (Python)"
python3 -m venv "$target/python" 9>&-
"$target/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --requirement "$here/requirements.txt" 9>&-
say "MQTT.js (node)"
cp "$here/package.json" "$here/package-lock.json" "$target/"
(cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error 9>&- >&2)
touch "$target/READY"
say "ready in $target"
