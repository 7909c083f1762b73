#!/usr/bin/env bash
# Measures the rows of the targets and writes one report: text, JSON and a page with plots.
#
#   report.sh PROGRAM FOLDER     PROGRAM is hoopoe-bench, with `hoopoe` beside it
#
# ROUNDS (2) and SECS (2, measured in each round) change how long it takes. Latencies need cores of
# one's own: as root on a busy machine, PREFIX='chrt -f 5' keeps the neighbours out of them.
set -euo pipefail

program=$1
folder=$2
here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-2}
secs=${SECS:-2}
export PATH="$PATH:/usr/sbin:/sbin"
mkdir -p "$folder"
text="$folder/report.txt"

# How long each scenario lasts; without it, as long as its file says.
length=(--duration "$secs" --warmup 0.5)

say() { printf '\n== %s\n' "$1"; }

# Losses are part of the result: exit code 3 says that a check found some.
play() {
    local name=$1 status=0
    shift
    # shellcheck disable=SC2086 # a prefix is a command with its arguments
    ${PREFIX:-} "$program" versus --quiet "${length[@]}" \
        --json "$folder/$name.json" --html "$folder/$name.html" "$@" "$here/$name.toml" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
    echo "($((SECONDS / 60)) min $((SECONDS % 60)) s since the beginning)"
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
    say 'What others feel of a blocked viewer, of retained fetches, of merging files: Hoopoe'
    length=()
    play beside --rounds 1 --with hoopoe
    say 'Logins with tokens over TLS, and with passwords: Hoopoe'
    "$here/logins.sh" "$program" "$folder"
    say 'End'
    date -u '+%Y-%m-%d %H:%M UTC'
    uptime
} | tee "$text"
printf '\nThe report is %s, with pages and JSON beside it.\n' "$text"
