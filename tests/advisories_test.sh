#!/usr/bin/env bash
# Tests tests/advisories.sh with generated databases: a local git repository replaces RustSec's
# address, or the address is unreachable.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
folder=$(mktemp -d)
readonly folder
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "advisories_test: $1" >&2
  exit 1
}

# Creates a database with an advisory for version $2 of the crate $1.
database() {
  local repository=$folder/database
  rm -rf "$repository"
  mkdir -p "$repository/crates/$1"
  cat >"$repository/crates/$1/RUSTSEC-2026-9999.md" <<ADVISORY
\`\`\`toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "$1"
date = "2026-01-01"
url = "https://example.com/advisory"

[versions]
patched = []
unaffected = ["< $2", "> $2"]
\`\`\`

# The test's advisory

It is found.
ADVISORY
  git -c init.defaultBranch=main init --quiet "$repository"
  git -C "$repository" add .
  git -C "$repository" -c user.name=test -c user.email=test@example.com commit --quiet --message advisory
}

# Runs the script with $1 in place of RustSec's address, and checks its exit code $2 and its output
# $3. The copies are in the folder $4.
check() {
  local host=$1 code=$2 expected=$3 copies=$4 output got=0
  shift 4
  mkdir -p "$folder/$copies"
  output=$(
    # Only the database's address changes, not the registry's.
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$host.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
    ADVISORIES_COPIES=$folder/$copies ADVISORIES_FETCH_SECONDS_MAX=5 "$here/advisories.sh" "$@" 2>&1
  ) || got=$?
  [[ $got == "$code" && $output == *"$expected"* ]] ||
    fail "$host $*: exit code $got, not $code with \"$expected\": $output"
}

version=$(cargo metadata --manifest-path "$here/../Cargo.toml" --format-version 1 --locked --offline |
  node --eval 'const { packages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(packages.find((one) => one.name === "serde").version);')
readonly version

# A matching advisory fails, from a fresh database or from a copy.
database serde "$version"
check "file://$folder/database" 1 RUSTSEC-2026-9999 found
check "file://$folder/nowhere" 1 RUSTSEC-2026-9999 found
check "file://$folder/nowhere" 1 "checking with the copy" found
# An advisory of a crate outside of the dependencies does not fail.
database not-a-dependency 1.0.0
check "file://$folder/database" 0 "advisories: none" none
# Without a database, lint warns and an audit fails.
check "file://$folder/nowhere" 0 "NOT CHECKED" empty
check "file://$folder/nowhere" 1 "NOT CHECKED" empty required
# A host that does not respond runs into the timeout.
exec {listening}< <(exec node --eval 'const server = require("net").createServer(() => {});
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));')
readonly silent=$!
trap 'kill "$silent"; rm -rf "$folder"' EXIT
read -r port <&"$listening"
check "http://127.0.0.1:$port" 0 "no response within 5 s" empty
echo "advisories_test: passed"
