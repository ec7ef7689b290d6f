#!/usr/bin/env bash
# A throw-away PostgreSQL server for tests, with syncing on, on a folder and a port of its own.
#
#   scripts/postgres.sh start DIR [PORT]   makes the server in DIR, which must not be there yet;
#                                          prints its URL when it answers
#   scripts/postgres.sh stop DIR           stops it at once and removes DIR
#   scripts/postgres.sh url DIR            prints its URL
#
# Without PORT a free one is taken. It listens on this machine only. Run as root, the server runs as
# `postgres`, since it refuses to run as root. Needs Debian's package `postgresql` or PostgreSQL's
# programs in PATH; POSTGRES_BIN names the folder of another version's programs
# (scripts/postgres18.sh). The server allows 300 connections, or POSTGRES_CONNECTIONS.
set -euo pipefail

programs() { # the newest version's folder of programs, or the one that POSTGRES_BIN names
  local found
  if [ -n "${POSTGRES_BIN:-}" ]; then echo "$POSTGRES_BIN"; return; fi
  # A client alone brings the folder too.
  found=$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -t/ -k5 -V | tail -1) || true
  found=${found%/initdb}
  if [ -z "$found" ]; then
    found=$(dirname "$(command -v initdb)" 2>/dev/null) || { echo "PostgreSQL is not installed (on Debian: apt-get install postgresql)" >&2; exit 1; }
  fi
  echo "$found"
}

as_owner() { # runs a command as who may run the server
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 100); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
  echo "no free port was found" >&2
  exit 1
}

is_ready() { # is_ready BIN PORT LOG: by its own program, or by what it says where that was left out
  if [ -x "$1/pg_isready" ]; then as_owner "$1/pg_isready" -q -h 127.0.0.1 -p "$2"; else grep -q "ready to accept connections" "$3"; fi
}

start() {
  local dir=$1 port=${2:-} bin user
  [ ! -e "$dir" ] || { echo "the folder is there already: $dir" >&2; exit 1; }
  bin=$(programs)
  port=${port:-$(free_port)}
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if [ "$(id -u)" = 0 ]; then chown postgres: "$dir"; user=postgres; else user=$(id -un); fi
  cd "$dir"
  as_owner "$bin/initdb" --no-sync -D "$dir/data" -U "$user" -A trust -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
  as_owner tee -a "$dir/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = ${POSTGRES_CONNECTIONS:-300}
shared_buffers = 256MB
deadlock_timeout = 200ms
CONF
  echo "postgres://$user@127.0.0.1:$port/postgres" >"$dir/url"
  as_owner bash -c 'exec "$0" -D "$1" >"$2" 2>&1 </dev/null & echo $! >"$3"' "$bin/postgres" "$dir/data" "$dir/log" "$dir/pid"
  for _ in $(seq 300); do
    if is_ready "$bin" "$port" "$dir/log"; then cat "$dir/url"; return; fi
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server does not answer:" >&2
  tail -20 "$dir/log" >&2
  exit 1
}

stop() {
  local dir=$1 pid
  [ -e "$dir" ] || return 0
  if pid=$(cat "$dir/pid" 2>/dev/null); then
    kill -INT "$pid" 2>/dev/null || true # fast: ends its clients' sessions
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -rf "$dir"
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop "${2:?the folder}" ;;
  url) cat "${2:?the folder}/url" ;;
  *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
