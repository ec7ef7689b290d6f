#!/usr/bin/env bash
# How long the program's commands take on a large store, and how much memory: one row of a table for
# each.
#
#   scripts/large.sh PROGRAM [PROFILES [STORE]] [--versions N] [--only GROUP,GROUP…]
#
# Makes a store of that many profiles (200,000) with three versions each, or N: a file in a folder of
# its own, which it removes; or STORE, a file that is not there yet, or the URL of an empty database.
# `--only` leaves out the commands of other groups: import (always there), check, status, list,
# search, get, edit, audit, erase, export, backup. A command is ended after LIMIT seconds (1,800),
# with exit code 124. Needs awk and pgrep. Where GNU time is not installed (GNU_TIME names another
# program), the shell tells the times, and memory is what was seen every 0.1 s; `-` where a command
# was over before.
#
# A command that goes through all of the store tells how many records it did in a second. Its own
# memory is the most that was seen in the first, the second and the last third of its time: where it
# reads piece by piece, they are alike, however many records there are.
#
# PROGRAM is a release build: cargo build --release -p profilestore-cli --features postgres
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
given=() only='' versions=3
while [ $# -gt 0 ]; do
  case $1 in
    --only) only=,${2:?names of groups},; shift 2 ;;
    --versions) versions=${2:?a number}; shift 2 ;;
    *) given+=("$1"); shift ;;
  esac
done
set -- "${given[@]}"
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
  awk -v profiles="$profiles" -v versions="$versions" 'BEGIN {
    srand(1)
    for (p = 1; p <= profiles; p++) {
      items = ""
      for (i = 0; i < 40; i++) items = items sprintf("%s{\"id\":%d,\"count\":%d}", i ? "," : "", rand() * 1e9, rand() * 99)
      for (n = 1; n <= versions; n++)
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

wanted() { # wanted GROUP
  case ${only:-,$1,} in *,"$1",*) true ;; *) false ;; esac
}

thirds() { # the most of the samples in each third of them, in megabytes
  awk '{ kilobytes[NR] = $1 }
    END {
      if (NR < 3) { print "-"; exit }
      for (n = 1; n <= NR; n++) {
        third = int((n - 1) * 3 / NR)
        if (kilobytes[n] > most[third]) most[third] = kilobytes[n]
      }
      printf "%d · %d · %d MB\n", most[0] / 1024, most[1] / 1024, most[2] / 1024
    }' samples
}

measured() { # measured GROUP RECORDS NAME ARGUMENTS…: one row, of a command that does so many records
  local group=$1 records=$2 name=$3 code=0 most=0 now_own now_most timer said
  shift 3
  wanted "$group" || return 0
  timed "$@" &
  timer=$!
  : >samples
  # Pages of the file that are mapped count as resident; the program's own memory does without them.
  while kill -0 "$timer" 2>/dev/null; do
    read -r now_own now_most < <(memory_of "$timer") || true
    if [ "${now_own:-0}" -gt 0 ]; then echo "$now_own" >>samples; fi
    if [ "${now_most:-0}" -gt "$most" ]; then most=$now_most; fi
    sleep 0.1
  done
  wait "$timer" || code=$?
  read -r elapsed user system kilobytes < <(tail -n 1 time)
  if [ "$kilobytes" -lt "$most" ]; then kilobytes=$most; fi
  said=$(awk -v e="$elapsed" -v u="$user" -v s="$system" -v k="$kilobytes" -v n="$records" \
    -v own="$(thirds)" '
    function mb(kilobytes) { return kilobytes ? int(kilobytes / 1024) " MB" : "-" }
    BEGIN {
      rate = n && e > 0 ? sprintf("%d /s", n / e) : "-"
      printf "%.2f s | %s | %.2f s | %s | %s", e, rate, u + s, own, mb(k)
    }')
  # An earlier program lacks some of the commands.
  if [ "$code" = 2 ]; then said="- | - | - | - | -"; fi
  echo "| \`$name\` | $said | $code |"
  if [ "$code" -gt 1 ]; then cat err >&2; fi
}

echo "| command | time | rate | processor | own memory, by thirds | resident at most | exit code |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
all=$((versions * profiles)) newest=$((100 * versions))
versions >in.jsonl
[ -n "$file" ] || "$program" migrate >out
only=${only:+$only"import,"} # without it there is nothing to measure
measured import "$all" "import of $all versions" import in.jsonl
rm in.jsonl
measured check "$all" "check" check
measured status 0 "status" status
measured list "$profiles" "list, to a file" list
measured search "$profiles" "list --where" list --where "/coins >= $newest" --count
measured list 0 "list --user" list --user 7
measured list 0 "sessions" sessions
measured get 0 "get" get PlayerData/user-7
measured get 0 "history" history PlayerData/user-7
measured get 0 "history --path" history PlayerData/user-7 --path /coins
measured edit 0 "rollback --dry-run" rollback PlayerData/user-7 1 --dry-run
measured edit "$profiles" "edit --all --dry-run" edit --all --store-name PlayerData --add /coins=1 --dry-run
measured edit "$profiles" "edit --all" edit --all --store-name PlayerData --add /coins=1 --yes
measured edit "$profiles" "edit --all --where" edit --all --store-name PlayerData --where "/coins > $newest" --add /coins=1 --yes
bulk=''
if wanted edit; then
  bulk=$("$program" audit --action 'edit all' --limit 1 | sed -n 's/^ *operation //p') || true
fi
measured edit "$profiles" "edit --undo" edit --undo "${bulk:-unknown}" --yes
measured audit 0 "audit --key" audit --key PlayerData/user-7
measured audit 0 "audit --operation" audit --operation "${bulk:-unknown}" --limit 20
measured audit 0 "audit --author" audit --author nobody
measured erase 0 "erase --user --no-vacuum" erase --user 7 --yes --no-vacuum
measured erase 0 "erase --user" erase --user 8 --yes
measured check 0 "check, behind the edits" check
measured export "$all" "export" export all.jsonl.zst
measured export 0 "export --where --current" export --where "/coins >= $newest" --current some.jsonl.zst
if [ -n "$file" ]; then
  measured backup 0 "backup" backup copy.db
  measured backup 0 "backup --verify" backup --verify copy.db
  measured backup 0 "restore" restore copy.db --store sqlite:restored.db
  for made in "$file" copy.db all.jsonl.zst; do
    [ ! -e "$made" ] || ls -l "$made" | awk '{ sub(/.*\//, "", $9); printf "%s: %d MB\n", $9, $5 / 1048576 }'
  done
fi
