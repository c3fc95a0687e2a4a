#!/usr/bin/env bash
# The whole pipeline in small, on CPUs: phantom studies, training with two ranks, prediction on studies that no model has seen.
# Interrupted, it goes on from its newest checkpoint when started again; `rm -r demo` starts it anew.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly run=demo/run
readonly neck="${SPINECTL_SHARED:-../shared}/data/neck/train_images" # a real CT of the neck, where there is one
readonly spinectl="${CARGO_TARGET_DIR:-target}/release/spinectl"

step() { printf '\n== %s\n' "$*"; }

step "1. A phantom training set"
"$spinectl" data synth --out demo/phantom --studies 128 --slices 32 --size 96 --seed 7

step "2. Training: stages 1a, 1b, 2, 3 on two ranks"
"$spinectl" launch configs/demo.yaml --device cpu --ranks 2 --run-dir "$run" --resume auto

step "3. Prediction on phantom studies made with another seed"
"$spinectl" data synth --out demo/heldout --studies 12 --slices 32 --size 96 --seed 8
"$spinectl" predict "$run" --images demo/heldout/train_images --out demo/heldout.csv

step "4. Prediction on a real CT"
if [ -d "$neck" ]; then
  "$spinectl" predict "$run" --images "$neck" --out demo/neck.csv
else
  echo "skipped: $neck is not there"
fi

step "5. What came out"
"$spinectl" status "$run"
echo
"$spinectl" evaluate "$run"
echo
echo "metrics:     $run/summary.json"
echo "predictions: demo/heldout.csv"
echo "curves:      PATH=\"\$PATH:$PWD/.venv/bin\" $spinectl tensorboard $run   (make setup-tests puts a TensorBoard there)"
