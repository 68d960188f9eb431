#!/usr/bin/env bash
# Gets certificates: for ORB_COMMAND if there is one, else for the steps that follow.
# Parameters arrive in the environment and leave as one argument each, `--name=value`, so that none can be read as
# shell text or pass for another option.
set -euo pipefail

args=(once --join-method=circleci)
option() { if [[ -n $2 ]]; then args+=("--$1=$2"); fi; }
each() { while read -r line; do option "$1" "$line"; done < <(printf '%s\n' "$2"); }
absolute() { case $1 in "" | /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; }
ca_file=$(absolute "$ORB_CA_FILE")

option authority "$ORB_AUTHORITY"
option ca-file "$ca_file"
option ca-pin "$ORB_CA_PIN"
option token "$ORB_TOKEN"
option ttl "$ORB_TTL"
option timeout "$ORB_TIMEOUT"
each output "$ORB_OUTPUT"
each role "$ORB_ROLE"

if [[ -n ${ORB_COMMAND:-} ]]; then
  exec machine-id "${args[@]}" -- bash -eo pipefail -c "$ORB_COMMAND"
fi

# What the cleanup must know is kept before there are keys, so that even half of them are wiped.
# On a line of its own, also where an earlier step left its last one without an end.
keep() { if [[ -n $2 ]]; then printf '\nexport %s=%q\n' "$1" "$2" >>"$BASH_ENV"; fi; }
destination=$(absolute "${ORB_DESTINATION:-$(mktemp -d)/certificates}")
keep MACHINE_ID_DESTINATION "$destination"
keep MACHINE_ID_AUTHORITY "$ORB_AUTHORITY"
keep MACHINE_ID_CA_FILE "$ca_file"
keep MACHINE_ID_CA_PIN "$ORB_CA_PIN"
exec machine-id "${args[@]}" "--destination=$destination"
