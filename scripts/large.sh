#!/usr/bin/env bash
# How long the program's commands take on a large store, and how much memory: one row of a table for
# each.
#
#   scripts/large.sh PROGRAM [PROFILES [STORE]]
#
# Makes a store of that many profiles (200,000) with three versions each: a file in a folder of its
# own, which it removes; or STORE, a file that is not there yet, or the URL of an empty database.
# A command is ended after LIMIT seconds (1,800), with exit code 124. Needs awk and pgrep. Where GNU
# time is not installed (GNU_TIME names another program), the shell tells the times, and memory is
# what was seen every 0.1 s; `-` where a command was over before.
#
# PROGRAM is a release build: cargo build --release -p profilestore-cli --features postgres
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
program=$(realpath "$1")
profiles=${2:-200000}
folder=$(mktemp -d "${TMPDIR:-/tmp}/profilestore-large.XXXXXX")
trap 'rm -rf "$folder"' EXIT
limit=${LIMIT:-1800}
store=${3:-$folder/profiles.db}
file=''
case $store in
  postgres*) ;;
  *)
    file=$(realpath -m "${store#sqlite:}")
    store=sqlite:$file
    [ ! -e "$file" ] || { echo "the file exists already: $file" >&2; exit 2; } ;;
esac
gnu_time=${GNU_TIME:-/usr/bin/time}
"$gnu_time" -o "$folder/time" -f %M true 2>/dev/null || gnu_time=''
unset PROFILESTORE_CONFIG PROFILESTORE_MESSENGER
export PROFILESTORE_STORE=$store
cd "$folder"

# About 1.5 KB of JSON a version, most of which differs from profile to profile.
versions() {
  awk -v profiles="$profiles" 'BEGIN {
    srand(1)
    for (p = 1; p <= profiles; p++) {
      items = ""
      for (i = 0; i < 40; i++) items = items sprintf("%s{\"id\":%d,\"count\":%d}", i ? "," : "", rand() * 1e9, rand() * 99)
      for (n = 1; n <= 3; n++)
        printf "{\"store\":\"PlayerData\",\"scope\":\"global\",\"key\":\"user-%d\",\"n\":%d,\"version\":\"%d-%d\",\"created_ms\":1790000000000,\"updated_ms\":%d,\"user_ids\":[%d],\"metadata\":{},\"value\":{\"Data\":{\"coins\":%d,\"items\":[%s]},\"MetaData\":{\"SessionLoadCount\":%d,\"MetaTags\":{}},\"GlobalUpdates\":[0,[]]}}\n", p, n, p, n, 1790000000000 + n * 7200000, p, n * 100, items, n
    }
  }'
}

timed() { # timed ARGUMENTS…: runs the program, and leaves seconds and kilobytes in the file `time`
  if [ -n "$gnu_time" ]; then
    "$gnu_time" -o time -f '%e %U %S %M' timeout "$limit" "$program" "$@" >out 2>err
  else
    local TIMEFORMAT='%R %U %S 0'
    { time timeout "$limit" "$program" "$@" >out 2>err; } 2>time
  fi
}

memory_of() { # memory_of PROCESS: kilobytes of the last of its children, own and resident at most
  local process=$1 child
  while child=$(pgrep -P "$process"); do process=$child; done
  awk '/^VmHWM/ { most = $2 } /^RssAnon/ { own = $2 } END { print own + 0, most + 0 }' \
    "/proc/$process/status" 2>/dev/null
}

measured() { # measured NAME ARGUMENTS…: one row
  local name=$1 code=0 own=0 most=0 now_own now_most timer said
  shift
  timed "$@" &
  timer=$!
  # Pages of the file that are mapped count as resident; the program's own memory does without them.
  while kill -0 "$timer" 2>/dev/null; do
    read -r now_own now_most < <(memory_of "$timer") || true
    if [ "${now_own:-0}" -gt "$own" ]; then own=$now_own; fi
    if [ "${now_most:-0}" -gt "$most" ]; then most=$now_most; fi
    sleep 0.1
  done
  wait "$timer" || code=$?
  read -r elapsed user system kilobytes < <(tail -n 1 time)
  if [ "$kilobytes" -lt "$most" ]; then kilobytes=$most; fi
  said=$(awk -v e="$elapsed" -v u="$user" -v s="$system" -v o="$own" -v k="$kilobytes" '
    function mb(kilobytes) { return kilobytes ? int(kilobytes / 1024) " MB" : "-" }
    BEGIN { printf "%.2f s | %.2f s | %s | %s", e, u + s, mb(o), mb(k) }')
  # An earlier program lacks some of the commands.
  if [ "$code" = 2 ]; then said="- | - | - | -"; fi
  echo "| \`$name\` | $said | $code |"
  if [ "$code" -gt 1 ]; then cat err >&2; fi
}

echo "| command | time | processor | own memory, sampled | resident at most | exit code |"
echo "| --- | --- | --- | --- | --- | --- |"
versions >in.jsonl
[ -n "$file" ] || "$program" migrate >out
measured "import of $((3 * profiles)) versions" import in.jsonl
rm in.jsonl
measured "check" check
measured "status" status
measured "list, to a file" list
measured "list --where" list --where '/coins > 299' --count
measured "list --user" list --user 7
measured "sessions" sessions
measured "get" get PlayerData/user-7
measured "history" history PlayerData/user-7
measured "history --path" history PlayerData/user-7 --path /coins
measured "rollback --dry-run" rollback PlayerData/user-7 1 --dry-run
measured "edit --all --dry-run" edit --all --store-name PlayerData --add /coins=1 --dry-run
measured "edit --all" edit --all --store-name PlayerData --add /coins=1 --yes
measured "edit --all --where" edit --all --store-name PlayerData --where '/coins > 300' --add /coins=1 --yes
bulk=$("$program" audit --action 'edit all' --limit 1 | sed -n 's/^ *operation //p') || true
measured "edit --undo" edit --undo "${bulk:-unknown}" --yes
measured "audit --key" audit --key PlayerData/user-7
measured "audit --operation" audit --operation "${bulk:-unknown}" --limit 20
measured "audit --author" audit --author nobody
measured "erase --user --no-vacuum" erase --user 7 --yes --no-vacuum
measured "erase --user" erase --user 8 --yes
measured "check, behind the edits" check
measured "export" export all.jsonl.zst
measured "export --where --current" export --where '/coins > 299' --current some.jsonl.zst
if [ -n "$file" ]; then
  measured "backup" backup copy.db
  measured "backup --verify" backup --verify copy.db
  measured "restore" restore copy.db --store sqlite:restored.db
  ls -l "$file" copy.db all.jsonl.zst | awk '{ printf "%s: %d MB\n", $9, $5 / 1048576 }'
fi
