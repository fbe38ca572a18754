#!/usr/bin/env bash
# Start a Ray head on this machine. All its ports listen on loopback alone, and answer nobody without
# the token.
#
#   eval "$(clusters/workstation/start.sh)"     # address and token, for this shell
#   td-ray run experiment.yaml
#   eval "$(clusters/workstation/stop.sh)"      # and takes them back
#
# Knobs, as environment variables:
PORT=${PORT:-6379}                      # where td-ray connects
DASHBOARD_PORT=${DASHBOARD_PORT:-8265}  # the jobs API and the dashboard
FOLDER=${FOLDER:-/tmp/td-ray-$PORT}     # token, log, pid, Ray's sockets; keep its path short
CPUS=${CPUS:-}                          # default: all
GPUS=${GPUS:-}                          # default: all

set -euo pipefail
umask 077
mkdir -p "$FOLDER"
# Whoever else could have made this folder could have put a token of theirs into it.
if [ -L "$FOLDER" ] || [ ! -O "$FOLDER" ]; then
    echo "$FOLDER is not a folder of yours; name another with FOLDER=..." >&2
    exit 1
fi
chmod 700 "$FOLDER"

if [ -f "$FOLDER/pid" ] && kill -0 "$(cat "$FOLDER/pid")" 2>/dev/null; then
    echo "a head runs already (pid $(cat "$FOLDER/pid")); stop it with PORT=$PORT stop.sh" >&2
    exit 1
fi

[ -s "$FOLDER/token" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$FOLDER/token"
# The last variable is what has Ray stay on loopback, as it does on macOS and Windows by itself.
cat > "$FOLDER/environment" <<ENVIRONMENT
export RAY_ADDRESS=127.0.0.1:$PORT
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$FOLDER/token
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
ENVIRONMENT
# shellcheck disable=SC1091
. "$FOLDER/environment"

options=(--head --block --node-ip-address=127.0.0.1 --port="$PORT" --temp-dir="$FOLDER/ray"
    --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD_PORT"
    --dashboard-agent-listen-port=0 # else another Ray of this machine has it, and no job starts
    --disable-usage-stats)
[ -z "$CPUS" ] || options+=(--num-cpus="$CPUS")
[ -z "$GPUS" ] || options+=(--num-gpus="$GPUS")
# RAY_ADDRESS would make 'ray start' refuse to start a head of its own.
env -u RAY_ADDRESS setsid ray start "${options[@]}" > "$FOLDER/log" 2>&1 < /dev/null &
echo $! > "$FOLDER/pid"

# The dashboard comes up some seconds after the rest.
answers() { (: < "/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for _ in $(seq 60); do
    if answers "$DASHBOARD_PORT" &&
        ray health-check --address "127.0.0.1:$PORT" > /dev/null 2>&1; then
        echo "a Ray head listens on 127.0.0.1:$PORT" >&2
        cat "$FOLDER/environment"
        exit 0
    fi
    kill -0 "$(cat "$FOLDER/pid")" 2>/dev/null || break
    sleep 1
done
echo "the head did not start; see $FOLDER/log" >&2
exit 1
