#!/usr/bin/env bash
#SBATCH --job-name=td-ray
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# One sweep on the nodes of one Slurm job: a Ray head on the first, a worker on each of the others.
#
#   sbatch --nodes=4 --gpus-per-node=4 --time=12:00:00 clusters/slurm/job.sh experiment.yaml
#   td-ray submit experiment.yaml --on slurm --nodes 4 --gpus 4 --time 12:00:00
#
# The second line writes this script, with its options at the top, and submits it. All arguments go
# to 'td-ray run'. Two minutes before its time is over the job is told, ends, and queues again.
#
# Knobs, as environment variables:
TD_RAY=${TD_RAY:-td-ray}                # the program; on a file system that all nodes see
SCRATCH=${SCRATCH:-/tmp}                # on each node, for Ray's sockets and logs; a short path
MOST_RESTARTS=${MOST_RESTARTS:-100}     # then the job ends instead of queueing again
JOB_FOLDER=${JOB_FOLDER:-}              # for the exit code, and for Ray's logs; else they lie where you are
# Features are cached where TD_RAY_CACHE says; name a disk of the nodes if your home is slow.

set -euo pipefail
is_due=''
trap 'is_due=yes' USR1 # also while Ray starts

say() { echo "td-ray: $*" >&2; }

# What each node does: Ray, until it is told to end; nothing of it is left then.
# shellcheck disable=SC2317
node() {
    umask 077
    exec >> "$logs/ray-$SLURM_JOB_ID-$SLURMD_NODENAME.log" 2>&1
    trap 'kill -TERM "$ray" 2> /dev/null' TERM
    # Whoever else could have made this folder could put sockets of theirs into it.
    mkdir "$scratch" 2> /dev/null || { [ -O "$scratch" ] && [ ! -L "$scratch" ]; } || exit 1
    "$ray_program" start "$@" --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE" \
        --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --min-worker-port=0 --max-worker-port=0 \
        --dashboard-agent-listen-port=0 &
    ray=$!
    wait "$ray" || wait "$ray" || true # a signal ends the first
    rm -rf "$scratch"
}

# Run that as a step of the job: on_nodes SRUN_OPTIONS... -- RAY_OPTIONS...
on_nodes() {
    local where=()
    while [ "$1" != -- ]; do where+=("$1") && shift; done
    srun --overlap --cpu-bind=none --ntasks-per-node=1 "${where[@]}" \
        bash -c "$(declare -f node); node \"\$@\"" node "${@:2}" \
        >> "$logs/ray-$SLURM_JOB_ID-srun.log" 2>&1 &
    steps+=($!)
}

# Told by its own srun, a step would be killed.
end_steps() {
    scancel --signal=TERM "$SLURM_JOB_ID" 2> /dev/null || true
    wait
}

# Wait for a process; a signal that this script has been told of meanwhile ends no wait.
wait_for() {
    local before=0 code=0
    while signalled=''; do
        before=$code code=0
        wait "$1" 2> /dev/null || code=$?
        [ "$code" != 127 ] || return "$before" # it had ended as the signal came
        [ -n "$signalled" ] || return "$code"
    done
}

# The job is over: end what is left of it, and say how it ended.
finish() {
    trap '' TERM USR1
    end_steps
    if [ -n "$JOB_FOLDER" ]; then
        echo "$1" > "$JOB_FOLDER/code.tmp" && mv "$JOB_FOLDER/code.tmp" "$JOB_FOLDER/code"
    fi
    exit "$1"
}

[ -z "$JOB_FOLDER" ] || rm -f "$JOB_FOLDER/code" # of an earlier start
program=$(command -v "$TD_RAY") || { say "there is no $TD_RAY on $(hostname)" && finish 2; }
export ray_program=${program%/*}/ray scratch=$SCRATCH/td-ray-$SLURM_JOB_ID
export logs=${JOB_FOLDER:-$SLURM_SUBMIT_DIR}
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
# No node waits for others before it ends, and processes that extract features are kept for the next.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 RAY_idle_worker_killing_time_threshold_ms=60000
unset RAY_ADDRESS
run='' steps=()
trap 'signalled=yes; if [ -n "$run" ]; then kill -TERM "$run" 2> /dev/null; else finish 143; fi' TERM
trap 'signalled=yes is_due=yes; [ -z "$run" ] || kill -USR1 "$run" 2> /dev/null' USR1

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
name=$(scontrol show node "$head" --oneliner | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
host=$({ getent ahostsv4 "$name" || true; } | awk 'NR == 1 { print $1 }')
[ -n "$host" ] || { say "nobody knows the address of $head, whose name is '$name'" && finish 1; }
# This script runs on the head's node, so a port that is free here is free there.
port=$("${program%/*}/python" -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])')

on_nodes --nodes=1 --ntasks=1 --nodelist="$head" -- --head --node-ip-address="$host" \
    --port="$port" --temp-dir="$scratch" --include-dashboard=false
for _ in $(seq 60); do
    "$ray_program" health-check --address "$host:$port" > /dev/null 2>&1 && break
    kill -0 "${steps[0]}" 2> /dev/null || break
    sleep 1
done
if ! "$ray_program" health-check --address "$host:$port" > /dev/null 2>&1; then
    say "no Ray head came up on $head:"
    tail -n 20 "$logs/ray-$SLURM_JOB_ID-$head.log" >&2 || true
    finish 1
fi
others=$((${#nodes[@]} - 1))
if [ "$others" -gt 0 ]; then
    on_nodes --nodes="$others" --ntasks="$others" --exclude="$head" -- --address="$host:$port"
fi

"$program" run "$@" --address "$host:$port" &
run=$!
[ -z "$is_due" ] || kill -USR1 "$run"
code=0
wait_for "$run" || code=$?
if [ "$code" = 138 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$MOST_RESTARTS" ]; then
    say "the job's time is over; it queues again and goes on from here"
    end_steps
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until Slurm ends this script
fi
finish "$code"
