#!/usr/bin/env bash
# Devices that all come at once and have to show who they are: with tokens over TLS, and with passwords.
#
#   logins.sh PROGRAM FOLDER     PROGRAM is hoopoe-bench, with `hoopoe` beside it
#
# DEVICES (10,000) come with tokens, USERS (500) with passwords, each of which is hashed. PREFIX is
# for the first, FAIR_PREFIX (such as 'nice -n -20') for the second.
set -euo pipefail

program=$1
folder=$2
hoopoe=$(dirname "$program")/hoopoe
devices=${DEVICES:-10000}
users=${USERS:-500}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir -p "$folder"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$made/key.pem" -out "$made/cert.pem" 2>"$made/openssl.log"
# One hash for all: it is checked anew for each of them.
echo secret | "$hoopoe" passwd "$made/one" u --stdin >"$made/passwd.log"
hash=$(sed -n 's/^u://p' "$made/one")
for n in $(seq 0 $((users - 1))); do echo "u$n:$hash"; done >"$made/users"
printf 'user *\n  allow both #\n' >"$made/rules"

# What both have in common; PORT is where clients connect, HTTP where tokens are made.
broker() { # NAME SCHEME SETTINGS
    cat <<EOF
$1=printf '%s\n' '[[listener]]' 'url = "$2://127.0.0.1:{port}"' $3 > {dir}/hoopoe.toml
exec '$hoopoe' serve --config {dir}/hoopoe.toml --data {dir}/data --http 127.0.0.1:{http}
EOF
}

play() { # NAME ARGUMENTS: losses and refusals are part of the result
    local name=$1 status=0
    shift
    # shellcheck disable=SC2086 # a prefix is a command with its arguments
    ${PREFIX:-} "$program" versus --quiet --rounds 1 --json "$folder/$name.json" "$@" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
}

tls="'[listener.tls]' 'cert = \"$made/cert.pem\"' 'key = \"$made/key.pem\"'"
known="'[access]' 'users_file = \"$made/users\"' 'rules_file = \"$made/rules\"'"
export HOOPOE_HTTP__ADMIN_TOKEN=a-token-for-the-time-of-a-test
play tokens --with "$(broker hoopoe tls "$tls $known")" \
    --tls --insecure --username 'u{n}' --tokens 'http://127.0.0.1:{http}/v1/tokens' \
    --admin-token "$HOOPOE_HTTP__ADMIN_TOKEN" --clients "$devices" storm storm-resume
# Not with a real-time PREFIX: whoever hashes would keep the core until all is hashed.
PREFIX=${FAIR_PREFIX:-} play passwords --with "$(broker hoopoe tcp "$known")" \
    --username 'u{n}' --password secret --clients "$users" storm
