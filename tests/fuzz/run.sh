#!/usr/bin/env bash
# Builds the fuzz targets and runs them in parallel.
#
#   tests/fuzz/run.sh 600                        all, for ten minutes
#   tests/fuzz/run.sh 60 arguments               one
#   RUNS=100000 tests/fuzz/run.sh 0 sequences    one, this many runs: optimized, on every core
#
# New inputs are stored in corpus/, failing ones in artifacts/ with the log of the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly seconds=${1:?the number of seconds} runs=${RUNS:-}
shift
targets=("$@")
((${#targets[@]} > 0)) || targets=(entry arguments sequences)

profile=dev folder=debug workers=1 limit=(-max_total_time="$seconds")
if [[ $runs ]]; then
  profile=bench folder=release workers=$(nproc)
  limit=(-runs=$(((runs + workers - 1) / workers)))
fi
RUSTC_WORKSPACE_WRAPPER=$PWD/rustc.sh \
  cargo build --locked --profile "$profile" --package drawbridge-fuzz --bins
built=${CARGO_TARGET_DIR:-$PWD/../../target}/$folder

# The options of a single target.
options() {
  # Eight steps, at full length from the start.
  if [[ $1 == sequences ]]; then echo -max_len=48 -len_control=0; fi
}

declare -A running
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  for ((worker = 1; worker <= workers; worker++)); do
    # Without the entropic schedule, which records every feature of every run: that costs more than
    # a run of the edge.
    "$built/$target" "${limit[@]}" $(options "$target") -entropic=0 -timeout=10 -rss_limit_mb=4096 \
      -print_final_stats=1 -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target" \
      >"artifacts/$target.$worker.log" 2>&1 &
    running[$target.$worker]=$!
  done
done

failed=0
for name in "${!running[@]}"; do
  target=${name%.*}
  if wait "${running[$name]}"; then
    echo "fuzz $target: $(grep '^Done' "artifacts/$name.log"), nothing found"
  else
    failed=1
    tail -n 100 "artifacts/$name.log" >&2
    echo "fuzz $target: failed; the input is in tests/fuzz/artifacts/$target" >&2
  fi
done
exit "$failed"
