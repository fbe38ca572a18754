#!/usr/bin/env bash
# Stop the head that start.sh started, and nothing else on this machine.
#
#   eval "$(clusters/workstation/stop.sh)"
PORT=${PORT:-6379}
FOLDER=${FOLDER:-/tmp/td-ray-$PORT}

set -euo pipefail
if [ ! -f "$FOLDER/pid" ]; then
    echo "no head was started in $FOLDER" >&2
    exit 1
fi
leader=$(cat "$FOLDER/pid")

# start.sh made the head the leader of its own session, so its processes can be told by it.
living() { ps -o pid=,stat= --sid "$leader" | awk '$2 !~ /^Z/ { print $1 }'; }

for signal in TERM KILL; do
    living | xargs -r kill -s "$signal" 2>/dev/null || true
    for _ in $(seq 20); do
        if [ -z "$(living)" ]; then
            rm -f "$FOLDER/pid"
            echo "stopped" >&2
            echo "unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH" \
                RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER
            exit 0
        fi
        sleep 0.25
    done
done
echo "some processes are still there: $(living | tr '\n' ' ')" >&2
exit 1
