#!/usr/bin/env bash
# Screenshots of TensorBoard on a run: scalars, images, PR curves, hparams. For the docs, and to see that a browser shows them.
#   scripts/screenshots.sh RUN_DIR OUT_DIR
# Exit codes: 0 taken; 1 there is nothing to show on a page, or TensorBoard did not come up; 2 wrong use; 3 TensorBoard, Chromium or curl is missing.
set -euo pipefail

[ $# = 2 ] && [ -d "$1/tensorboard" ] || {
    echo "usage: scripts/screenshots.sh RUN_DIR OUT_DIR   (RUN_DIR of a launch, with event files)" >&2
    exit 2
}
run=$1 out=$2
here=$(cd "$(dirname "$0")/.." && pwd)

tensorboard=$here/.venv/bin/tensorboard
[ -x "$tensorboard" ] || tensorboard=$(command -v tensorboard) || {
    echo "there is no TensorBoard: run \`make setup-tests\`, or \`pip install tensorboard\`" >&2
    exit 3
}
chromium=
for name in chromium chromium-browser google-chrome; do
    chromium=$(command -v "$name") && break
done
[ -n "$chromium" ] || {
    echo "there is no Chromium: install one (\`apt-get install chromium\`), and try again" >&2
    exit 3
}

command -v curl >/dev/null || {
    echo "there is no curl: install it, and try again" >&2
    exit 3
}

mkdir -p "$out"
scratch=$(mktemp -d)
server=
end() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
trap end EXIT

port=$((20000 + RANDOM % 20000))
"$tensorboard" --logdir "$run/tensorboard" --host 127.0.0.1 --port "$port" --load_fast=false \
    --samples_per_plugin images=50 >"$scratch/log" 2>&1 &
server=$!
url=http://127.0.0.1:$port
# Until all runs have been read: the tags stand still.
before=none tags= still=0
for _ in $(seq 120); do
    sleep 1
    kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
    tags=$({ curl -s --noproxy "*" "$url/data/plugin/scalars/tags" || true; } | wc -c)
    if [ "$tags" -gt 2 ] && [ "$tags" = "$before" ]; then still=$((still + 1)); else still=0; fi
    [ "$still" -lt 3 ] || break
    before=$tags
done
[ "$tags" -gt 2 ] || { echo "TensorBoard shows no scalars of $run" >&2; exit 1; }

# PAGE FILE: a picture of the page of a plugin, where TensorBoard has found something for it.
shot() {
    curl -s --noproxy '*' "$url/data/plugins_listing" |
        python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)[sys.argv[1]]["enabled"])' "$1" || {
        echo "TensorBoard finds nothing to show under $1 in $run" >&2
        exit 1
    }
    timeout 120 "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --no-proxy-server --hide-scrollbars --user-data-dir="$scratch/browser-$2" \
        --window-size=1400,900 --virtual-time-budget=20000 --screenshot="$scratch/$2" "$url/#$1" >"$scratch/$2.log" 2>&1 || {
        cat "$scratch/$2.log" >&2
        exit 1
    }
    mv "$scratch/$2" "$out/$2"
    echo "$out/$2"
}
shot scalars scalars.png
shot images images.png
shot pr_curves pr-curves.png
shot hparams hparams.png
