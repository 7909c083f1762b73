#!/usr/bin/env bash
# Where a broker's CPU goes: plays a scenario against `hoopoe` and sorts the samples of perf.
#
#   cycles.sh PROGRAM FOLDER SCENARIO [OPTIONS]     PROGRAM is hoopoe-bench, with `hoopoe` beside it
#
# OPTIONS are those of `hoopoe-bench run`. The samples are of the whole run: what comes before the
# measuring (connecting, feeding) is among them. Wants perf, and to be root or
# kernel.perf_event_paranoid at 1.
set -euo pipefail

program=$1
folder=$2
scenario=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
hoopoe=$(dirname "$program")/hoopoe
made=$(mktemp -d)
mkdir -p "$folder"
trap 'kill "$broker" 2>/dev/null || true; wait; rm -rf "$made"' EXIT

# Ports that the system gives, told in the first lines.
taskset -c 0 "$hoopoe" serve --listen tcp://127.0.0.1:0 --http 127.0.0.1:0 --data "$made/data" \
    >"$made/log" 2>&1 &
broker=$!
until port=$(sed -nE 's|.*tcp://127\.0\.0\.1:([0-9]+).*|\1|p' "$made/log" | head -1) && [ -n "$port" ]; do
    kill -0 "$broker" || { cat "$made/log" >&2; exit 1; }
    sleep 0.1
done
perf record --quiet --freq 1999 --call-graph fp --output "$made/perf.data" --pid "$broker" &
perf=$!
taskset -c 1 "$program" run --quiet --port "$port" --broker-pid "$broker" \
    --json "$folder/$scenario.json" "$scenario" "$@" >"$folder/$scenario.txt" ||
    { status=$?; cat "$folder/$scenario.txt"; exit "$status"; }
kill -INT "$perf"
wait "$perf" || true
per_second=$(sed -nE 's/^ .* per broker CPU second +([0-9,]+)$/\1/p' "$folder/$scenario.txt" | tr -d ,)
[ -n "$per_second" ] || { echo "$scenario has no figure per broker CPU second" >&2; exit 1; }
perf script --input "$made/perf.data" --fields comm,ip,sym 2>/dev/null |
    "$here/cycles.py" "$per_second" | tee "$folder/$scenario.cycles.txt"
