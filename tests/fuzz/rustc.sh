#!/usr/bin/env bash
# Compiles the workspace's own crates with the coverage that libFuzzer wants, on the stable toolchain. Cargo calls it
# as RUSTC_WORKSPACE_WRAPPER, and keeps what it makes apart; dependencies are those of every other build.
set -euo pipefail

# A build script runs in the compiler's world, where there is no libFuzzer.
case " $* " in *" build_script_"*) exec "$@" ;; esac

exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
