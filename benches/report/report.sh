#!/usr/bin/env bash
# Measures the rows of the targets and writes one report: text, JSON and a page with plots.
#
#   report.sh PROGRAM FOLDER     PROGRAM is hoopoe-bench, with `hoopoe` beside it
#
# Takes about nine minutes on an idle machine with two cores; ROUNDS and SECS change that.
set -euo pipefail

program=$1
folder=$2
here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-3}
secs=${SECS:-2}
export PATH="$PATH:/usr/sbin:/sbin"
mkdir -p "$folder"
text="$folder/report.txt"

say() { printf '\n== %s\n' "$1"; }

# Losses are part of the result: exit code 3 says that a check found some.
play() {
    local name=$1 status=0
    shift
    "$program" versus --quiet --duration "$secs" --warmup 0.5 \
        --json "$folder/$name.json" --html "$folder/$name.html" "$@" "$here/$name.toml" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
}

{
    date -u '+Measured from %Y-%m-%d %H:%M UTC'
    uptime
    say 'Online: mosquitto, Hoopoe, relay'
    play online --rounds "$rounds" --with mosquitto --with hoopoe --with relay
    say 'Connections, and what is kept: mosquitto, Hoopoe'
    play kept --rounds "$(((rounds + 1) / 2))" --with mosquitto --with hoopoe
    say 'Instant messaging: Hoopoe without limits of sending'
    export HOOPOE_IM__SENDS_PER_SEC=1000000 HOOPOE_IM__SEND_BURST=1000000
    export HOOPOE_IM__BIG_GROUP_PER_SEC=1000000 HOOPOE_IM__ROOMS__CHAT_PER_SEC=1000000
    play im --rounds 1 --with hoopoe
    say 'End'
    date -u '+%Y-%m-%d %H:%M UTC'
    uptime
} | tee "$text"
printf '\nThe report is %s, with pages and JSON beside it.\n' "$text"
