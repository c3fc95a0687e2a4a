#!/usr/bin/env bash
# What only a GPU can show, on one that is free: docs/gpu.md has the figures. Parts can be named; without names all are run.
#
#   scripts/check-gpu.sh [doctor kernels demo memory resume published step]
#
# doctor     what the machine has, and that NCCL loads
# kernels    NCCL's collectives, the Reducer, autocast, fused kernels, against the CPU
# demo       the whole pipeline on a phantom, in fp16, its audit, and whether the driver told how busy the GPU was
# memory     a GPU with too little memory for the micro-batch: the run halves it and goes on
# resume     killed and stopped at random moments, compared with an undisturbed run
# published  all stages in their published shapes (stage 2: 96 slices of 512x512, resnest50d, fp16) on a small phantom: how long
#            updates take and wait for data, and a prediction
# step       a training step beside PyTorch's; PYTHON names a Python with torch and timm; ARCHS, DTYPES, SHAPE
#            what is compared, STEP more flags of bench_step.py
#
# SPINECTL_BIN names the folder with the programs, WORK an empty one for what is written.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin="$(realpath "${SPINECTL_BIN:-${CARGO_TARGET_DIR:-target}/release}")"
work="${WORK:-demo/gpu}"
python="${PYTHON:-.venv/bin/python}"
spinectl="$bin/spinectl"
failed=()
mkdir -p "$work"

step() { printf '\n== %s\n' "$*"; }

# Ends the part in the text's name, but not the script.
check() {
  local name="$1"
  shift
  local began=$SECONDS
  "$@"
  local code=$?
  echo "-- $name: exit $code after $((SECONDS - began)) s"
  [ "$code" = 0 ] || failed+=("$name ($code)")
}

phantom() { # folder, studies, slices, size
  [ -d "$1" ] || "$spinectl" data synth --out "$1" --studies "$2" --slices "$3" --size "$4" --seed 7 > /dev/null
}

# The demo's recipe on one GPU, over the small phantom.
demo() { # run, more arguments
  phantom "$work/phantom" 128 32 96
  local run="$1"
  shift
  "$spinectl" launch configs/demo.yaml --gpus 1 --device cuda --run-dir "$run" --quiet \
    --set "data.root=$work/phantom" --set "data.cache.dir=$work/cache" "$@"
}

part_doctor() { check doctor "$spinectl" doctor; }

part_kernels() { check kernels "$bin/gpu_checks"; }

part_demo() {
  check demo demo "$work/demo"
  check audit "$spinectl" audit "$work/demo"
  check status "$spinectl" status "$work/demo"
  check gpu_use grep -m 3 '"event":"gpu_use".*"utilization"' "$work/demo/events.jsonl"
}

part_memory() {
  rm -rf "$work/memory"
  check memory env PYTORCH_CUDA_ALLOC_CONF=per_process_memory_fraction:"${FRACTION:-0.005}" \
    bash -c "$(declare -f demo phantom); spinectl=$spinectl work=$work; demo $work/memory --stages 1a \
      --set stage1a.training.image_size=256 --set stage1a.training.batch=32 --set stage1a.training.micro_batch=32 \
      --set stage1a.training.epochs=1" > "$work/memory.log" 2>&1
  grep -v '^ *$' "$work/memory.log" | cut -c1-400 | tail -20
}

part_resume() {
  check resume demo "$work/resume" --stages 1a --verify-resume 3 --set stage1a.training.epochs=3 --set checkpoint.every=5
}

part_published() {
  phantom "$work/large" 12 240 512
  local sets=(stage1b.models= stage2.models= stage1b.training.seeds=[0] data.root="$work/large" data.cache.dir="$work/large-cache" data.folds=2 data.workers=12 data.exclude=[]
    stage1a.training.seeds=[0] stage1a.training.epochs=1 stage1b.training.epochs=1 stage1b.training.batch=2 stage2.training.seeds=[0]
    stage1a.training.batch=16 stage1a.training.micro_batch=16 stage2.training.epochs=6 stage2.training.batch=3
    stage2.training.micro_batch=3 stage3.training.epochs=1 stage3.training.batch=2 stage2.training.evaluate_every=100 stage1a.training.pretrained=
    stage1b.training.pretrained= stage2.training.pretrained= data.check=headers)
  local arguments=()
  for set in "${sets[@]}"; do arguments+=(--set "$set"); done
  check published "$spinectl" launch configs/rsna2022.yaml --gpus 1 --folds 0 --run-dir "$work/published" --quiet "${arguments[@]}"
  check predict "$spinectl" predict "$work/published" --images "$work/large/train_images" --out "$work/published.csv"
  "$python" - "$work/published/events.jsonl" <<'EOF'
import json, statistics, sys
steps, jobs = {}, {}
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["event"] == "step":
        steps.setdefault(event["job"], []).append(event)
    if event["event"] == "job_finished":
        print(f'{event["job"]}: {event["seconds"]:.1f} s in all')
for job, rows in steps.items():
    rows = rows[len(rows) // 3:]  # the first ones read DICOM and choose kernels
    seconds = statistics.median(row["seconds"] for row in rows)
    waits = statistics.mean(row["phases"].get("data_wait", 0) for row in rows) / statistics.mean(row["seconds"] for row in rows)
    print(f"{job}: {len(rows)} updates, median {seconds:.3f} s, waiting for data {waits:.1%}")
EOF
}

part_step() {
  check step "$python" tests/python/bench_step.py --spinectl "$spinectl" --device cuda --rounds 1 --steps 12 --quiet 0 \
    --archs ${ARCHS:-resnest50d seresnext50_32x4d} --dtypes ${DTYPES:-fp16 bf16} --shapes "${SHAPE:-3x32x512}" ${STEP:-}
}

for part in "${@:-doctor kernels demo memory resume published step}"; do
  for name in $part; do
    step "$name"
    "part_$name"
  done
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
