#!/bin/bash
# A rank that speaks the contract and does what RUN_DIR/does-<job>-<attempt> (else RUN_DIR/does-<job>) says.
set -u
job=predict attempt=1 resume=never micro_batch=none
while [ $# -gt 0 ]; do
    case $1 in
    --run-dir) run_dir=$2 ;;
    --job) job=$2 ;;
    --attempt) attempt=$2 ;;
    --resume) resume=$2 ;;
    --micro-batch) micro_batch=$2 ;;
    esac
    shift
done

say() { # say KIND [,"key":value...]
    printf '{"time":%s,"event":"%s"%s}\n' "$EPOCHREALTIME" "$1" "${2:-}" >&"$SPINECTL_EVENT_FD"
}

fail() { # fail CLASS MESSAGE CODE
    say rank_failed ",\"failed_at\":$EPOCHREALTIME,\"class\":\"$1\",\"message\":\"$2\""
    exit "$3"
}

# Waits for ever with a child of its own; on SIGTERM it saves and stops.
train() {
    trap 'say checkpoint_written ",\"step\":5,\"bytes\":1,\"seconds\":0.1"; exit 75' TERM
    sleep 1000 &
    echo $! >"$run_dir/child-$RANK"
    say heartbeat ',"phase":"forward","step":5,"sequence":9'
    echo $$ >"$run_dir/pid-$RANK.partial" && mv "$run_dir/pid-$RANK.partial" "$run_dir/pid-$RANK"
    # Not `wait`: a signal that comes just before it begins would be acted on when it ends, which is never.
    while :; do sleep 0.05; done
}

# Starts what lives in a session of its own and is nobody's child.
stray() {
    (setsid bash -c 'echo $$ >"$0.partial" && mv "$0.partial" "$0"; exec sleep 1000' "$run_dir/stray-$RANK" &)
}

# Whether a process does anything any more; one that only waits to be reaped has no arguments.
lives() { # lives PID
    [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline")" ]
}

store=none
[ -f "/proc/$$/fd/${SPINECTL_STORE_FD:-none}" ] && store=file
echo "$job attempt $attempt rank $RANK of $WORLD_SIZE resume $resume threads $OMP_NUM_THREADS" \
    "store $store" >>"$run_dir/calls"
echo "log of rank $RANK"
for does in "$run_dir/does-$job-$attempt" "$run_dir/does-$job"; do
    if [ -e "$does" ]; then
        . "$does"
        break
    fi
done
exit 0
