#!/usr/bin/env bash
# Throw-away servers for the tests, each on a free port of this machine and in a folder of its own;
# stopped by process id.
#
#   scripts/servers.sh COMMAND…     starts them all, runs the command with their addresses in its
#                                   environment, stops them
#   . scripts/servers.sh            defines the functions; a script that calls start_all calls
#                                   stop_servers in a trap
#
# PROFILESTORE_TEST_NATS           one NATS server
# PROFILESTORE_TEST_NATS_CLUSTER   a cluster of three, all named in one address
# PROFILESTORE_TEST_POSTGRES       a PostgreSQL server, as its owner

SERVERS_FOLDER=""
SERVERS_PIDS=()

servers_folder() { # servers_folder NAME: makes a folder of its own for a server, in FOLDER
  [ -n "$SERVERS_FOLDER" ] || SERVERS_FOLDER="$(mktemp -d "${TMPDIR:-/tmp}/profilestore-servers.XXXXXX")"
  FOLDER="$SERVERS_FOLDER/$1"
  mkdir -p "$FOLDER"
}

server_failed() { # server_failed WHAT LOG
  echo "$1 did not start:" >&2
  tail -n 20 "$2" >&2
  return 1
}

# nats-server is not on everybody's PATH where Debian puts it.
nats_server() { command -v nats-server || PATH="/usr/sbin:$PATH" command -v nats-server; }

run_nats() { # run_nats NAME ARGUMENTS…: starts one; its ports are in NATS_PORT and NATS_CLUSTER_PORT
  servers_folder "$1"
  local log="$FOLDER/log" program
  program="$(nats_server)" || { echo "this needs 'nats-server'; install it first (on Debian: apt-get install nats-server)" >&2; return 1; }
  "$program" --addr 127.0.0.1 --port -1 --ports_file_dir "$FOLDER" "${@:2}" >"$log" 2>&1 &
  local pid=$! ports
  SERVERS_PIDS+=("$pid")
  for _ in $(seq 200); do
    ports="$(cat "$FOLDER"/*.ports 2>/dev/null)" || ports=""
    NATS_PORT="$(sed -nE 's/.*"nats":\["nats:\/\/[^"]*:([0-9]+)".*/\1/p' <<<"$ports")"
    NATS_CLUSTER_PORT="$(sed -nE 's/.*"cluster":\["[^"]*:([0-9]+)".*/\1/p' <<<"$ports")"
    [ -n "$NATS_PORT" ] && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  server_failed "nats-server" "$log"
}

start_nats() {
  run_nats nats || return
  export PROFILESTORE_TEST_NATS="nats://127.0.0.1:$NATS_PORT"
}

start_nats_cluster() {
  local n addresses="" routes=() logs=()
  for n in 1 2 3; do
    run_nats "nats-cluster-$n" --cluster_name test --cluster nats://127.0.0.1:-1 "${routes[@]}" || return
    addresses="${addresses:+$addresses,}127.0.0.1:$NATS_PORT"
    [ "$n" = 1 ] && routes=(--routes "nats://127.0.0.1:$NATS_CLUSTER_PORT")
    logs+=("$FOLDER/log")
  done
  # Each knows both others.
  for _ in $(seq 200); do
    for n in "${logs[@]}"; do
      [ "$(grep -c 'Route connection created' "$n")" -ge 2 ] || { sleep 0.05; continue 2; }
    done
    break
  done
  export PROFILESTORE_TEST_NATS_CLUSTER="nats://$addresses"
}

start_postgres() {
  servers_folder postgres
  # Debian's server does not run as root, but as a user who must get there.
  chmod 711 "$SERVERS_FOLDER"
  PROFILESTORE_TEST_POSTGRES="$("${BASH_SOURCE[0]%/*}/postgres.sh" start "$FOLDER/server")" || return
  export PROFILESTORE_TEST_POSTGRES
}

start_all() {
  start_nats && start_nats_cluster && start_postgres
}

stop_servers() {
  local pid
  for pid in "${SERVERS_PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${SERVERS_PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  SERVERS_PIDS=()
  if [ -n "$SERVERS_FOLDER" ]; then
    "${BASH_SOURCE[0]%/*}/postgres.sh" stop "$SERVERS_FOLDER/postgres/server" || true
    rm -rf "$SERVERS_FOLDER"
  fi
  SERVERS_FOLDER=""
  return 0
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -gt 0 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
  trap stop_servers EXIT
  start_all || exit 1
  "$@"
fi
