#!/usr/bin/env bash
# PostgreSQL loses its disk, and comes back from a base backup and the log that was archived: the
# steps of docs/backup.md on throw-away servers. What was acknowledged and archived must be there,
# and servers of before must be refused.
#
#   scripts/restore_postgres.sh PROGRAM   with PROGRAM built with the feature postgres; run as
#                                         root, the servers run as `postgres`
#
# Needs Debian's package `postgresql`, or POSTGRES_BIN as postgres.sh has it.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
program=$(realpath "$1")
bin=${POSTGRES_BIN:-$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | sort -t/ -k5 -V | tail -1)")}
folder=$(mktemp -d "${TMPDIR:-/tmp}/profilestore-restore.XXXXXX")
as_owner() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
stop() { as_owner "$bin/pg_ctl" -D "$1" -m "$2" stop >/dev/null 2>&1 || true; }
trap 'stop "$folder/data" immediate; stop "$folder/restored" immediate; rm -rf "$folder"' EXIT
if [ "$(id -u)" = 0 ]; then chown postgres: "$folder"; user=postgres; else user=$(id -un); fi
chmod 755 "$folder"
cd "$folder"
unset PROFILESTORE_CONFIG PROFILESTORE_MESSENGER

start() { # start DATA: on a free port; PROFILESTORE_STORE names it then
  local port
  for port in $(shuf -i 20000-29999 -n 20); do
    rm -f "$folder/log"
    if as_owner "$bin/pg_ctl" -D "$1" -w -t 60 -l "$folder/log" \
      -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=''" start >/dev/null 2>&1; then
      export PROFILESTORE_STORE="postgres://$user@127.0.0.1:$port/postgres"
      return
    fi
    # Another program has the port; any other failure would come again.
    grep -q 'Address already in use' "$folder/log" || break
  done
  tail -n 20 "$folder/log" >&2
  exit 1
}

sql() { as_owner "$bin/psql" "$PROFILESTORE_STORE" -qAtc "$1"; }

coins() { "$program" get PlayerData/user-1 --path /coins; }

profile() { # profile NUMBER COINS: a line of an import
  printf '{"store":"PlayerData","scope":"global","key":"user-%d","n":1,"version":"a%d","created_ms":1790000000000,"updated_ms":1790000000000,"user_ids":[],"metadata":{},"value":{"Data":{"coins":%d},"MetaData":{"SessionLoadCount":1,"MetaTags":{}},"GlobalUpdates":[0,[]]}}\n' "$1" "$1" "$2"
}

as_owner "$bin/initdb" -D "$folder/data" -U "$user" -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
as_owner mkdir "$folder/archive"
as_owner tee -a "$folder/data/postgresql.conf" >/dev/null <<CONF
wal_level = replica
archive_mode = on
archive_command = 'test ! -f $folder/archive/%f && cp %p $folder/archive/%f.part && mv $folder/archive/%f.part $folder/archive/%f'
CONF
start "$folder/data"
"$program" migrate >/dev/null
profile 1 10 >in.jsonl
"$program" import in.jsonl >/dev/null
as_owner "$bin/pg_basebackup" -d "$PROFILESTORE_STORE" -D "$folder/base" -X none -c fast 2>/dev/null
# After the base backup: only the archived log has it.
"$program" edit PlayerData/user-1 --add /coins=5 --reason 'after the base backup' >/dev/null
segment=$(sql 'SELECT pg_walfile_name(pg_current_wal_lsn())')
sql 'SELECT pg_switch_wal()' >/dev/null
# The file is there before it is whole: the server says when it is.
archived() { [ "$(sql 'SELECT last_archived_wal FROM pg_stat_archiver')" = "$segment" ]; }
for _ in $(seq 600); do archived && break; sleep 0.1; done
archived || { echo "the log was not archived within a minute" >&2; exit 1; }
stop "$folder/data" immediate
rm -rf "$folder/data"

as_owner cp -r "$folder/base" "$folder/restored"
as_owner tee -a "$folder/restored/postgresql.conf" >/dev/null <<CONF
archive_mode = off
restore_command = 'cp $folder/archive/%f %p'
CONF
as_owner touch "$folder/restored/recovery.signal"
start "$folder/restored"
for _ in $(seq 300); do [ "$(sql 'SELECT pg_is_in_recovery()')" = f ] && break; sleep 0.1; done
before=$(sql 'SELECT md5(meta::text) FROM profilestore.meta' | sort | md5sum)
"$program" migrate --restored >/dev/null
after=$(sql 'SELECT md5(meta::text) FROM profilestore.meta' | sort | md5sum)
[ "$before" != "$after" ] || { echo "the restored contents have the identity of before" >&2; exit 1; }
[ "$(coins)" = 15 ] || { echo "what was archived is not there: coins $(coins)" >&2; exit 1; }
"$program" check
