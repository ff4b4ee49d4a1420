#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while, side by side.
#
#   tests/fuzz/run.sh 600              all, for ten minutes
#   tests/fuzz/run.sh 60 arguments     one
#
# What they learn stays in corpus/, what fails in artifacts/ with the log of the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly seconds=${1:?for how many seconds}
shift
targets=("$@")
((${#targets[@]} > 0)) || targets=(entry arguments sequences)

RUSTC_WORKSPACE_WRAPPER=$PWD/rustc.sh cargo build --locked --package drawbridge-fuzz --bins
built=${CARGO_TARGET_DIR:-$PWD/../../target}/debug

declare -A running
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  "$built/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target" >"artifacts/$target.log" 2>&1 &
  running[$target]=$!
done

failed=0
for target in "${targets[@]}"; do
  if wait "${running[$target]}"; then
    echo "fuzz $target: $(grep '^Done' "artifacts/$target.log"), nothing found"
  else
    failed=1
    tail -n 100 "artifacts/$target.log" >&2
    echo "fuzz $target: failed; the input stands in tests/fuzz/artifacts/$target" >&2
  fi
done
exit "$failed"
