#!/usr/bin/env bash
# Restores a SQLite store from what Litestream copied while the store was written to, and compares
# the two.
#
#   scripts/restore_litestream.sh PROGRAM LITESTREAM   on a store in a folder of its own, which it
#                                                      removes
#
# PROGRAM is profilestore; LITESTREAM is the program of litestream.io, which is no part of the
# tests.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
program=$(realpath "$1")
litestream=$(realpath "$2")
folder=$(mktemp -d "${TMPDIR:-/tmp}/profilestore-litestream.XXXXXX")
copier=
trap 'if [ -n "$copier" ]; then kill -9 "$copier" || true; fi; rm -rf "$folder"' EXIT
cd "$folder"
unset PROFILESTORE_CONFIG PROFILESTORE_MESSENGER
export PROFILESTORE_STORE=profiles.db

for p in $(seq 1 2000); do
  echo "{\"store\":\"PlayerData\",\"scope\":\"global\",\"key\":\"user-$p\",\"n\":1,\"version\":\"$p\",\"created_ms\":1790000000000,\"updated_ms\":1790000000000,\"user_ids\":[$p],\"metadata\":{},\"value\":{\"Data\":{\"coins\":$p},\"MetaData\":{\"SessionLoadCount\":1,\"MetaTags\":{}},\"GlobalUpdates\":[0,[]]}}"
done >in.jsonl
"$program" import in.jsonl
"$litestream" replicate profiles.db "file://$folder/replica" >copied 2>&1 &
copier=$!

# Bulk edits write much at once.
for round in 1 2 3; do
  "$program" edit --all --store-name PlayerData --add /coins=1 --yes >edited
done
"$program" edit PlayerData/user-7 --set /last=true >edited
"$program" export >as_it_is.jsonl

# It copies once a second. Looked at again until the copy has what was written last.
for attempt in $(seq 1 30); do
  rm -f copy.db copy.db-*
  sleep 1
  "$litestream" restore -o copy.db "file://$folder/replica" >restored 2>&1 || continue
  "$program" check --store copy.db
  "$program" export --store copy.db >as_it_was.jsonl
  if cmp -s as_it_is.jsonl as_it_was.jsonl; then
    kill -9 "$copier"
    wait "$copier" 2>>copied || true
    copier=
    "$program" restore copy.db --store sqlite:new.db
    "$program" check --store new.db
    echo "restored, and the same in all $(wc -l <as_it_is.jsonl) versions"
    exit 0
  fi
done
cat copied >&2
echo "the copy is not what was written" >&2
exit 1
