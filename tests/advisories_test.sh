#!/usr/bin/env bash
# Tests tests/advisories.sh against databases that this makes: RustSec's address is answered by a local git repository,
# or by nobody.
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

# Makes a database, in which the advisory is of the crate $1, in version $2 alone.
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

# Runs the script with RustSec's address answered by $1, and checks its exit code and what it says. The copies are in
# the folder $4.
check() {
  local by=$1 code=$2 expected=$3 copies=$4 said got=0
  shift 4
  mkdir -p "$folder/$copies"
  said=$(
    # The registry stays where it is: only the databases are elsewhere.
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$by.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
    ADVISORIES_COPIES=$folder/$copies ADVISORIES_FETCH_SECONDS_MAX=5 "$here/advisories.sh" "$@" 2>&1
  ) || got=$?
  [[ $got == "$code" && $said == *"$expected"* ]] || fail "$by $*: exit code $got, not $code with \"$expected\": $said"
}

version=$(cargo metadata --manifest-path "$here/../Cargo.toml" --format-version 1 --locked --offline |
  node --eval 'const { packages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(packages.find((one) => one.name === "serde").version);')
readonly version

# A found advisory fails, fetched now or before.
database serde "$version"
check "file://$folder/database" 1 RUSTSEC-2026-9999 found
check "file://$folder/nowhere" 1 RUSTSEC-2026-9999 found
check "file://$folder/nowhere" 1 "checking with the copy" found
# One of a crate that nothing here depends on does not.
database nobody-depends-on-this 1.0.0
check "file://$folder/database" 0 "advisories: none" none
# Without a database lint goes on, and says so; an audit does not.
check "file://$folder/nowhere" 0 "NOT CHECKED" empty
check "file://$folder/nowhere" 1 "NOT CHECKED" empty required
# A host that does not answer is not waited for.
exec {listening}< <(exec node --eval 'const server = require("net").createServer(() => {});
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));')
readonly silent=$!
trap 'kill "$silent"; rm -rf "$folder"' EXIT
read -r port <&"$listening"
check "http://127.0.0.1:$port" 0 "no answer within 5 s" empty
echo "advisories_test: passed"
