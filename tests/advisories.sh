#!/usr/bin/env bash
# Looks the dependencies up in RustSec's advisory database. An advisory fails it; so does a crate that is no longer
# maintained.
#
#   tests/advisories.sh             `make lint`: where the database cannot be had, it says so and lint goes on
#   tests/advisories.sh required    `make audit`: it fails then
#
# ADVISORIES_FETCH_SECONDS_MAX (30) is how long fetching the database may take, ADVISORIES_COPIES the folder that it is
# copied into. A copy that was fetched before serves where the host cannot be reached, for 90 days.
set -euo pipefail

readonly database=https://github.com/RustSec/advisory-db
readonly copy_days_max=90
readonly fetch_seconds_max=${ADVISORIES_FETCH_SECONDS_MAX:-30}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly tools=${DRAWBRIDGE_TOOLS:-${here%/*}/.tools}
readonly deny=$tools/cargo/bin/cargo-deny
export ADVISORIES_COPIES=${ADVISORIES_COPIES:-$tools/advisory-dbs}
readonly copies=$ADVISORIES_COPIES

main() {
  cd "${here%/*}"
  [[ -x $deny ]] || fail "cargo-deny is missing: run tests/setup.sh lint"
  local why
  if ! why=$(fetch); then
    echo "advisories: $database could not be fetched: $why" >&2
    if ! has_copy; then
      echo "advisories: NOT CHECKED: there is no copy of the last $copy_days_max days in $copies" >&2
      [[ ${1:-} != required ]] || exit 1
      return
    fi
    echo "advisories: checking with the copy in $copies" >&2
  fi
  # Offline is what keeps it from fetching the database again; so the crates have to be there.
  cargo fetch --locked --quiet
  "$deny" --log-level error --locked --offline check advisories || fail "the lines above name what is wrong"
  echo "advisories: none"
}

fail() {
  echo "advisories: $1" >&2
  exit 1
}

# Fetches the database, or says why not.
fetch() {
  local said code=0
  said=$(GIT_TERMINAL_PROMPT=0 timeout "$fetch_seconds_max" "$deny" --log-level error fetch db 2>&1) || code=$?
  case $code in
    0) ;;
    124) echo "no answer within $fetch_seconds_max s" ;;
    *) tail -n 1 <<<"$said" ;;
  esac
  return "$code"
}

# Git touches one of these files whenever it fetches. What a clone that was broken off has left is no copy, and nothing
# could be fetched into it.
has_copy() {
  local copy
  for copy in "$copies"/advisory-db-*; do
    git -C "$copy" rev-parse --quiet --verify 'HEAD^{commit}' >/dev/null 2>&1 || {
      rm -rf "$copy"
      continue
    }
    [[ -n $(find "$copy/.git" -maxdepth 1 \( -name FETCH_HEAD -o -name HEAD \) -mtime "-$copy_days_max") ]] && return
  done
  return 1
}

main "$@"
