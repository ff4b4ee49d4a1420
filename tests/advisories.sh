#!/usr/bin/env bash
# Checks the dependencies against RustSec's advisory database. It fails on an advisory and on an
# unmaintained crate.
#
#   tests/advisories.sh             `make lint`: warns if the database is unavailable
#   tests/advisories.sh required    `make audit`: fails if the database is unavailable
#
# ADVISORIES_FETCH_SECONDS_MAX (30) limits the time to fetch the database, ADVISORIES_COPIES is the
# folder of its copies. If the host is unreachable, a copy is used for up to 90 days.
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
  # `--offline` prevents another fetch of the database, so the crates must be fetched before.
  cargo fetch --locked --quiet
  "$deny" --log-level error --locked --offline check advisories || fail "see the errors above"
  echo "advisories: none"
}

fail() {
  echo "advisories: $1" >&2
  exit 1
}

# Fetches the database, or prints why that failed.
fetch() {
  local output code=0
  output=$(GIT_TERMINAL_PROMPT=0 timeout "$fetch_seconds_max" "$deny" --log-level error fetch db 2>&1) || code=$?
  case $code in
    0) ;;
    124) echo "no response within $fetch_seconds_max s" ;;
    *) tail -n 1 <<<"$output" ;;
  esac
  return "$code"
}

# Git touches one of these files on every fetch. A partial clone is unusable and blocks later
# fetches, so it is removed.
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
